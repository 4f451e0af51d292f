//go:build e2e

// Package e2e proves a fleet on a real cluster, with a Headscale as the control
// server and a stock Tailscale container as the subnet router. make e2e runs it.
package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestFleet checks the drop-in, the chart in both modes, an outage of the control
// server, and the removal. The parts share one site and run in this order.
func TestFleet(t *testing.T) {
	clean(t)
	if env("E2E_KEEP", "") == "" {
		t.Cleanup(func() { clean(t) })
	}
	key := startSite(t)
	t.Run("drop_in", func(t *testing.T) { dropIn(t, key) })
	t.Run("chart", func(t *testing.T) { chart(t, key, "pando-e2e-chart", "pando", "userspace") })
	t.Run("chart_kernel", func(t *testing.T) { chart(t, key, "pando-e2e-kernel", "kernel-pando", "kernel") })
	t.Run("control_server_away", controlAway)
	t.Run("upgrade_and_remove", func(t *testing.T) { removeByDocs(t, "pando-e2e-chart") })
}

// clean removes what an earlier run has left.
func clean(t *testing.T) {
	args := append([]string{"delete", "namespace", "--ignore-not-found", "--timeout=120s"}, namespaces...)
	if _, err := tryKubectl(t, args...); err != nil {
		t.Errorf("clean up: %v", err)
	}
}

// startSite brings up the control server, the router with the private site
// and the client, and returns an auth key.
func startSite(t *testing.T) string {
	defer diagnose(t, siteNS)
	cert, certKey, ca := certificate(t)
	apply(t, "site.yaml", nil)
	control = "http://" + net.JoinHostPort(kubectl(t, "-n", siteNS, "get", "service", "headscale", "-o", "jsonpath={.spec.clusterIP}"), "8080")
	kubectl(t, "create", "namespace", clientNS)
	b64 := base64.StdEncoding.EncodeToString
	applyText(t, []byte(fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: site, namespace: %s}\ndata: {tls.crt: %s, tls.key: %s}\n", siteNS, b64(cert), b64(certKey))))
	applyText(t, []byte(fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: site, namespace: %s}\nbinaryData: {ca.crt: %s}\n", clientNS, b64(ca))))
	apply(t, "client.yaml", nil)
	kubectl(t, "-n", siteNS, "wait", "--for=condition=Ready", "pod/headscale", "--timeout=60s")
	var user struct{ ID json.Number }
	headscale(t, &user, "users", "create", "lab")
	var made struct{ Key string }
	headscale(t, &made, "preauthkeys", "create", "--user", user.ID.String(), "--reusable", "--expiration", "24h")
	apply(t, "router.yaml", map[string]string{"AuthKey": made.Key, "Control": control})
	kubectl(t, "-n", siteNS, "wait", "--for=condition=Ready", "pod/router", "--timeout=60s")
	kubectl(t, "-n", clientNS, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	eventually(t, "the router to join", time.Minute, func() error {
		if len(devices(t, "router")) != 1 {
			return errors.New("no device is called router")
		}
		return nil
	})
	return made.Key
}

// dropIn starts the company's StatefulSet with the stock container, and then
// changes only its image.
func dropIn(t *testing.T, key string) {
	const (
		ns    = "pando-e2e-dropin"
		name  = "ts-proxy"
		proxy = "http://ts-proxy.pando-e2e-dropin:1055"
	)
	defer diagnose(t, ns)
	apply(t, "dropin.yaml", map[string]string{"AuthKey": key, "Control": control})
	rollout(t, ns, name)
	before := fleetOf(t, name)

	kubectl(t, "-n", ns, "set", "image", "statefulset/"+name, "tailscale="+pandoImage)
	rollout(t, ns, name)
	after := fleetOf(t, name)
	for n, d := range before {
		if a := after[n]; a.ID != d.ID || !slices.Equal(a.IPAddresses, d.IPAddresses) || a.MachineKey != d.MachineKey {
			t.Errorf("%s: device after the change of image = %+v, want %+v", n, a, d)
		}
	}
	t.Logf("the stock container's devices were adopted: %v", addresses(after))
	for n := range after {
		fields := secretFields(t, ns, n+"-ts-state")
		for _, f := range []string{"_machinekey", "_current-profile", "_profiles", "device_id", "device_fqdn", "device_ips"} {
			if fields[f] == "" {
				t.Errorf("Secret %s-ts-state lacks %s", n, f)
			}
		}
	}
	works(t, proxy)

	// Without the names that were typed in, and without the privileged init
	// container.
	kubectl(t, "-n", ns, "patch", "statefulset", name, "--type=json", "-p",
		`[{"op":"remove","path":"/spec/template/spec/hostAliases"},{"op":"remove","path":"/spec/template/spec/initContainers"}]`)
	rollout(t, ns, name)
	works(t, proxy)
	// Settle and drain take 25 s here. Settling takes 10 s of them at most. Only
	// tunnels that last longer are cut.
	if r := restartUnderLoad(t, ns, name, proxy, "-endless", "10", "-drain", "15s"); r.Cut == 0 {
		t.Errorf("endless tunnels cut by the drain = 0, want some: %v", r)
	}
	killOne(t, ns, name+"-1", proxy)
	rollout(t, ns, name)

	// And back: the stock container finds its state.
	kubectl(t, "-n", ns, "set", "image", "statefulset/"+name, "tailscale="+stockImage)
	rollout(t, ns, name)
	eventually(t, "the stock container to be back on its devices", time.Minute, func() error {
		for n, d := range fleetOf(t, name) {
			if d.ID != before[n].ID || !d.Online {
				return fmt.Errorf("%s = %+v, want %+v", n, d, before[n])
			}
		}
		return nil
	})
	if out := kubectl(t, "-n", ns, "get", "pods", "-o", `jsonpath={.items[*].status.containerStatuses[*].restartCount}`); strings.Trim(out, "0 ") != "" {
		t.Errorf("restarts of the stock containers after the way back = %s, want none", out)
	}
}

// expire makes a replica's key expire while it runs, and checks that the replica
// logs in again by itself.
func expire(t *testing.T, ns, pod string) {
	t.Helper()
	d := devices(t, pod)[pod]
	var ignored any
	headscale(t, &ignored, "nodes", "expire", "--identifier", d.ID.String())
	begin := time.Now()
	eventually(t, pod+" to notice", 30*time.Second, func() error {
		if devices(t, pod)[pod].NodeKey == d.NodeKey {
			return errors.New("the device has its old key")
		}
		return nil
	})
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/"+pod, "--timeout=60s")
	t.Logf("MEASURED %s logged in again %v after its key had expired", pod, time.Since(begin).Round(time.Second))
	if out := kubectl(t, "-n", ns, "get", "pod", pod, "-o", `jsonpath={.status.containerStatuses[*].restartCount}`); out != "0" {
		t.Errorf("restarts of %s = %s, want 0", pod, out)
	}
}

// scale removes a replica and brings it back, and checks that it is the same
// device. A fourth replica is a new device.
func scale(t *testing.T, ns, name string) {
	t.Helper()
	before := fleetOf(t, name)
	for _, n := range []string{"2", "4"} {
		kubectl(t, "-n", ns, "scale", "statefulset/"+name, "--replicas="+n)
		rollout(t, ns, name)
	}
	after := devices(t, name+"-")
	for n, d := range before {
		if after[n].ID != d.ID {
			t.Errorf("%s: device = %s, want %s", n, after[n].ID, d.ID)
		}
	}
	if len(after) != 4 {
		t.Errorf("devices after scaling to 4 = %d, want 4", len(after))
	}
	kubectl(t, "-n", ns, "scale", "statefulset/"+name, "--replicas=3")
	rollout(t, ns, name)
}

// chart installs the chart with its defaults, in a namespace whose Pod Security
// level permits only what the mode needs.
func chart(t *testing.T, key, ns, name, mode string) {
	proxy := "http://" + name + "." + ns + ":1055"
	defer diagnose(t, ns)
	level := map[string]string{"userspace": "restricted", "kernel": "privileged"}[mode]
	applyText(t, []byte(fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n  labels: {pod-security.kubernetes.io/enforce: %s}\n", ns, level)))
	values := filepath.Join(t.TempDir(), "values.yaml")
	// Without a public network, a device reaches its home relay over plain HTTP.
	// The tests read metrics through the API server, whose address depends on the cluster.
	text := fmt.Sprintf("mode: %s\ntailnet: {controlURL: %q}\nextraEnv: [{name: TS_DEBUG_USE_DERP_HTTP, value: \"true\"}]\n"+
		"networkPolicy: {admin: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: \"::/0\"}}]}\n%s", mode, control, noProxyValues+aliasRule)
	if err := os.WriteFile(values, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out string
	if mode == "userspace" {
		out = installByDocs(t, ns, key, values)
	} else {
		kubectl(t, "label", "--overwrite", "namespace", clientNS, "pando-client=true")
		out = helm(t, "-n", ns, "install", name, env("E2E_CHART", "../charts/pando"), "-f", values, "--wait", "--timeout", "120s",
			"--set", "image.repository=lab.invalid/pando,image.tag=e2e,tailnet.authKey="+key)
	}
	fleetOf(t, name)
	// The first command of the notes is run unchanged.
	first := regexp.MustCompile(`(?m)^  kubectl (.*)$`).FindStringSubmatch(out)
	if first == nil {
		t.Fatalf("the notes have no command:\n%s", out)
	}
	if says := kubectl(t, strings.Fields(first[1])...); !strings.Contains(says, "10.55.0.0/16") || !strings.Contains(says, name+"-0.") {
		t.Errorf("kubectl %s does not show the device and the routes:\n%s", first[1], says)
	} else {
		t.Logf("kubectl %s:\n%s", first[1], says)
	}
	memory(t, ns, name, "idle")
	works(t, proxy)
	noProxy(t, ns, name)
	externalName(t, proxy)
	explains(t, ns, name)
	if mode == "userspace" {
		runReads(t, ns)
		docsManifests(t, ns)
	}
	restartUnderLoad(t, ns, name, proxy)
	memory(t, ns, name, "after the load")
	expire(t, ns, name+"-1")
	if mode == "userspace" {
		return // control_server_away needs it
	}
	scale(t, ns, name)
	helm(t, "-n", ns, "uninstall", name, "--wait")
	kubectl(t, "delete", "namespace", ns, "--timeout=120s")
}

// memory logs the replicas' memory, and checks that their metrics can be scraped.
func memory(t *testing.T, ns, name, when string) {
	t.Helper()
	for i := range 3 {
		pod := fmt.Sprintf("%s-%d", name, i)
		out := kubectl(t, "get", "--raw", "/api/v1/namespaces/"+ns+"/pods/"+pod+":9002/proxy/metrics")
		for line := range strings.Lines(out) {
			if v, ok := strings.CutPrefix(line, "process_resident_memory_bytes "); ok {
				bytes, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("MEASURED %s %s: RSS %.1f MiB", pod, when, bytes/(1<<20))
			}
		}
		if !strings.Contains(out, "\npando_ready 1\n") {
			t.Errorf("%s: no pando_ready 1 in its metrics:\n%s", pod, out)
		}
	}
}

// controlAway stops the control server for a minute, under load, and checks that
// no client notices. Then it stops it again and deletes a replica meanwhile: the
// new one must not be ready until it has joined.
func controlAway(t *testing.T) {
	const (
		ns    = "pando-e2e-chart"
		proxy = "http://pando.pando-e2e-chart:1055"
	)
	defer diagnose(t, ns)
	away := func(f func()) {
		kubectl(t, "-n", siteNS, "exec", "headscale", "--", "/lab", "touch", "/state/down")
		f()
		kubectl(t, "-n", siteNS, "exec", "headscale", "--", "/lab", "rm", "/state/down")
	}
	unharmed(t, under(t, proxy, 50, 10, func() {
		away(func() { time.Sleep(time.Minute) }) // the length of the outage
		everybodyBack(t)
	}))
	var unready string
	r := under(t, proxy, 50, 10, func() {
		away(func() {
			kubectl(t, "-n", ns, "delete", "pod", "pando-2", "--wait=true")
			kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.phase}=Running", "pod/pando-2", "--timeout=60s")
			time.Sleep(5 * time.Second) // it must not become ready in this time
			unready = kubectl(t, "-n", ns, "get", "pod", "pando-2", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		})
	})
	unharmed(t, r)
	if unready != "False" {
		t.Errorf("Ready of a replica that cannot join = %q, want False", unready)
	}
	begin := time.Now()
	eventually(t, "the lost replica to carry traffic", 3*time.Minute, func() error {
		_, err := client(t, "get", "-proxy", "http://pando-2.pando-replicas."+ns+":1055", "-timeout", "3s")
		return err
	})
	t.Logf("MEASURED the replica that was deleted in the outage carries traffic %v after its end", time.Since(begin).Round(time.Second))
}

// everybodyBack waits until the control server sees the router and the
// chart's replicas again.
func everybodyBack(t *testing.T) {
	t.Helper()
	eventually(t, "all devices to be online", 3*time.Minute, func() error {
		for _, prefix := range []string{"router", "pando-"} {
			for name, d := range devices(t, prefix) {
				if !d.Online {
					return fmt.Errorf("%s is offline", name)
				}
			}
		}
		return nil
	})
}

// fleetOf waits for three devices whose names begin with name.
func fleetOf(t *testing.T, name string) (m map[string]device) {
	t.Helper()
	eventually(t, "three devices called "+name, time.Minute, func() error {
		m = devices(t, name+"-")
		if len(m) != 3 {
			return fmt.Errorf("devices = %v", slices.Sorted(maps.Keys(m)))
		}
		return nil
	})
	return m
}

func addresses(m map[string]device) string {
	var list []string
	for _, n := range slices.Sorted(maps.Keys(m)) {
		list = append(list, n+" "+m[n].IPAddresses[0])
	}
	return strings.Join(list, ", ")
}

func secretFields(t *testing.T, ns, name string) map[string]string {
	t.Helper()
	var s struct{ Data map[string]string }
	if err := json.Unmarshal([]byte(kubectl(t, "-n", ns, "get", "secret", name, "-o", "json")), &s); err != nil {
		t.Fatal(err)
	}
	return s.Data
}

// works reaches the private API by its name over every front, with a
// half-closed stream, and over all three devices.
func works(t *testing.T, proxy string) {
	t.Helper()
	socks := strings.Replace(proxy, "http://", "socks5h://", 1)
	for what, args := range map[string][]string{
		"CONNECT":    {"get", "-proxy", proxy, "-url", "https://" + apiName + "/"},
		"plain HTTP": {"get", "-proxy", proxy, "-url", "http://" + apiName + "/"},
		"SOCKS5":     {"get", "-proxy", socks, "-url", "https://" + apiName + "/"},
	} {
		out, err := client(t, args...)
		if err != nil || !strings.Contains(out, `"service":"private-api"`) {
			t.Errorf("%s: %v %s", what, err, out)
			continue
		}
		t.Logf("%s: %s", what, strings.TrimSpace(out))
	}
	if out, err := client(t, "half-close", "-proxy", socks); err != nil || strings.TrimSpace(out) != "100000" {
		t.Errorf("answer to a half-closed stream = %q, %v; want 100000, the bytes that arrived", out, err)
	}
	r := under(t, proxy, 50, 0, func() {})
	unharmed(t, r)
	if len(r.Devices) != 3 {
		t.Errorf("devices that the API saw = %v, want three", r.Devices)
	}
	t.Logf("load per device: %v", r.Devices)
}

// restartUnderLoad restarts every replica, in order, while 200 new connections
// a second (or E2E_RATE) are made and 100 transfers run.
func restartUnderLoad(t *testing.T, ns, name, proxy string, more ...string) *report {
	t.Helper()
	rate, err := strconv.Atoi(env("E2E_RATE", "200"))
	if err != nil {
		t.Fatal(err)
	}
	r := under(t, proxy, rate, 100, func() {
		kubectl(t, "-n", ns, "rollout", "restart", "statefulset/"+name)
		rollout(t, ns, name)
	}, more...)
	unharmed(t, r)
	if r.Rate < 0.99*float64(rate) {
		t.Errorf("new connections a second = %.0f, want %d", r.Rate, rate)
	}
	return r
}

// killOne kills a replica under load, and logs how many connections failed.
func killOne(t *testing.T, ns, pod, proxy string) {
	t.Helper()
	r := under(t, proxy, 20, 0, func() {
		kubectl(t, "-n", ns, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
		rollout(t, ns, strings.TrimRight(pod, "-0123456789"))
	})
	if r.Failed*20 > r.New { // a stock fleet loses one in a hundred
		t.Errorf("failed connections while a replica was killed = %d of %d, want less than one in twenty", r.Failed, r.New)
	}
}

// certificate returns a certificate of the private API with its key, and its
// authority, as PEM.
func certificate(t *testing.T) (cert, key, ca []byte) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: apiName}, DNSNames: []string{apiName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, priv.Public(), priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), cert
}
