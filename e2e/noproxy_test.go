//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// noProxyValues are chart values for clients without a proxy setting, like those
// of docs/names.md.
const noProxyValues = `
service:
  ports:
  - {name: dns, port: 53, targetPort: 1053, protocol: UDP}
  - {name: dns-tcp, port: 53, targetPort: 1053}
  - {name: tls, port: 443, targetPort: 8443}
  - {name: http, port: 80, targetPort: 8080}
  - {name: echo, port: 7000, targetPort: 7000}
config:
  listen: {dns: ":1053"}
  dns: {zones: [{suffix: internal.cloudprovider.io}]}
  sni: [{listen: ":8443"}]
  web: [{listen: ":8080"}]
  forward: [{listen: ":7000", target: "api.internal.cloudprovider.io:7000"}]
`

// noProxy checks that a pod without a proxy setting reaches the private API by
// name. A CoreDNS of the cluster's own image forwards the zone to the fleet, with
// the block that pando coredns prints. The cluster's own CoreDNS is not changed.
func noProxy(t *testing.T, ns, name string) {
	image, err := tryKubectl(t, "-n", "kube-system", "get", "deployment", "coredns", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	if err != nil {
		t.Fatalf("the cluster's DNS is not CoreDNS: %v", err)
	}
	address := kubectl(t, "-n", ns, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
	dns := kubectl(t, "-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}")
	printed := kubectl(t, "-n", ns, "exec", name+"-0", "--", "/pando", "coredns", "--config", "/etc/pando/config/pando.yaml", "--address", address)
	block, _, _ := strings.Cut(printed, "\n# kube-dns")
	t.Logf("pando coredns:\n%s", printed)
	server := "dns-" + name
	client := "client-" + name
	apply(t, "noproxy.yaml", map[string]string{
		"Server": server, "Client": client, "Image": image,
		"Corefile": indent(".:53 {\n    errors\n    ready\n    forward . "+dns+"\n}\n"+block, 4),
	})
	kubectl(t, "-n", clientNS, "wait", "--for=condition=Ready", "pod/"+server, "--timeout=60s")
	apply(t, "noproxy-client.yaml", map[string]string{"Client": client, "DNS": kubectl(t, "-n", clientNS, "get", "pod", server, "-o", "jsonpath={.status.podIP}")})
	kubectl(t, "-n", clientNS, "wait", "--for=condition=Ready", "pod/"+client, "--timeout=60s")
	in := func(args ...string) (string, error) {
		return tryKubectl(t, append([]string{"-n", clientNS, "exec", client, "--", "/lab"}, args...)...)
	}
	if out, err := in("lookup", apiName); err != nil || strings.TrimSpace(out) != address {
		t.Errorf("lookup of %s = %q, %v; want the fleet's address %s", apiName, out, err, address)
	}
	if out, err := in("lookup", "none.internal.cloudprovider.io"); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("lookup of a name that does not exist = %q, %v; want NXDOMAIN", out, err)
	}
	if out, err := in("lookup", "kubernetes.default.svc.cluster.local"); err != nil || net.ParseIP(strings.TrimSpace(out)) == nil {
		t.Errorf("lookup of a cluster name = %q, %v; want an address", out, err)
	}
	for _, url := range []string{"https://" + apiName + "/", "http://" + apiName + "/"} {
		begin := time.Now()
		out, err := in("get", "-url", url)
		if err != nil || !strings.Contains(out, `"service":"private-api"`) {
			t.Errorf("%s without a proxy: %v %s", url, err, out)
			continue
		}
		t.Logf("%s without a proxy, after %v: %s", url, time.Since(begin).Round(time.Millisecond), strings.TrimSpace(out))
	}
	if out, err := in("half-close"); err != nil || strings.TrimSpace(out) != "100000" {
		t.Errorf("answer to a half-closed stream without a proxy = %q, %v; want 100000", out, err)
	}
	kubectl(t, "-n", clientNS, "delete", "pod", server, client, "--wait=false")
}

func indent(text string, by int) string {
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+strings.Repeat(" ", by))
}

// explains checks what pando explain says of a target that works, of targets that
// fail, and of the replica.
func explains(t *testing.T, ns, name string) {
	for target, words := range map[string][]string{
		"https://" + apiName + "/":           {"router.", "subnet router of 10.55.0.0/16", "zone internal.cloudprovider.io", "HTTP/1.1 200"},
		"none.internal.cloudprovider.io:443": {"class: not_found", "NXDOMAIN"},
		"10.77.0.1:443":                      {"class: no_route", "policy.direct"},
		"":                                   {"control server connected", "home region e2e", "internal.cloudprovider.io: resolver 10.55.0.2 answers", "s of the control server's"},
	} {
		args := []string{"-n", ns, "exec", name + "-0", "--", "/pando", "explain"}
		if target != "" {
			args = append(args, target)
		}
		out, err := tryKubectl(t, args...)
		if err != nil {
			out = fmt.Sprint(err)
		}
		t.Logf("pando explain %s\n%s", target, out)
		for _, word := range words {
			if !strings.Contains(out, word) {
				t.Errorf("pando explain %s: output lacks %q", target, word)
			}
		}
	}
}
