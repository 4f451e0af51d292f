//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"
)

const (
	siteNS     = "pando-e2e-site"
	clientNS   = "pando-e2e-client"
	apiName    = "api.internal.cloudprovider.io"
	pandoImage = "lab.invalid/pando:e2e"
	stockImage = "lab.invalid/tailscale:e2e"
)

// control is the control server's URL. It holds the address, not the name: an
// engine that has lost a control server with a name uses only HTTPS for a while.
var control string

// namespaces lists every namespace that the tests create and remove.
var namespaces = []string{siteNS, clientNS, "pando-e2e-dropin", "pando-e2e-chart", "pando-e2e-kernel"}

//go:embed manifests
var manifests embed.FS

// command runs a program to its end and returns what it printed.
func command(t *testing.T, within time.Duration, stdin []byte, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout = &out
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

func env(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// kubectl runs kubectl, and fails the test when that fails.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryKubectl(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryKubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return command(t, 5*time.Minute, nil, env("KUBECTL", "kubectl"), args...)
}

// apply applies one of our manifests.
func apply(t *testing.T, name string, values any) {
	t.Helper()
	text, err := manifests.ReadFile("manifests/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := template.Must(template.New(name).Parse(string(text))).Execute(&b, values); err != nil {
		t.Fatal(err)
	}
	applyText(t, b.Bytes())
}

func applyText(t *testing.T, text []byte) {
	t.Helper()
	if _, err := command(t, time.Minute, text, env("KUBECTL", "kubectl"), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

func helm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(t, 5*time.Minute, nil, env("HELM", "helm"), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// client runs the lab's client in its pod.
func client(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return tryKubectl(t, append([]string{"-n", clientNS, "exec", "client", "--", "/lab"}, args...)...)
}

// report is what the lab's load prints.
type report struct {
	New, Failed, Slow     int
	Rate                  float64
	Max, P50, P99         time.Duration
	Devices               map[string]int
	Errors                []string
	Transfers, Concurrent int
	Broken                int
	BrokenWhy             []string
	Endless, Cut          int
}

func (r *report) String() string {
	return fmt.Sprintf("%d new connections, %.0f/s, %d failed, %d over 1 s, p50 %v p99 %v max %v, over %d devices; %d transfers, %d at a time, %d broken; %d endless tunnels ended, %d of them cut by a drain",
		r.New, r.Rate, r.Failed, r.Slow, r.P50.Round(100*time.Microsecond), r.P99.Round(100*time.Microsecond), r.Max.Round(time.Millisecond), len(r.Devices),
		r.Transfers, r.Concurrent, r.Broken, r.Endless, r.Cut)
}

// under runs f while the client pod loads proxy, and returns what the client
// measured. The load begins before f and ends after it. more are flags of lab load.
func under(t *testing.T, proxy string, rate, transfers int, f func(), more ...string) *report {
	t.Helper()
	until := fmt.Sprintf("/tmp/end-%d", time.Now().UnixNano())
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := client(t, append([]string{"load", "-proxy", proxy, "-tunnel", "-url", "http://" + apiName + "/", "-rate", fmt.Sprint(rate), "-transfers", fmt.Sprint(transfers), "-until", until}, more...)...)
		done <- result{out, err}
	}()
	const moment = 3 * time.Second // of load before and after f; it is measured, too
	time.Sleep(moment)             // of load
	f()
	time.Sleep(moment) // of load
	if _, err := client(t, "touch", until); err != nil {
		t.Fatal(err)
	}
	res := <-done
	if res.err != nil {
		t.Fatal(res.err)
	}
	var r report
	if err := json.Unmarshal([]byte(res.out), &r); err != nil {
		t.Fatalf("%v: %s", err, res.out)
	}
	t.Logf("MEASURED %v", &r)
	return &r
}

// unharmed fails the test when r shows any failure.
func unharmed(t *testing.T, r *report) {
	t.Helper()
	if r.New == 0 || r.Failed > 0 || r.Broken > 0 {
		t.Errorf("%d of %d new connections failed, %d of %d transfers broke:\n%s", r.Failed, r.New, r.Broken, r.Transfers,
			strings.Join(append(r.Errors, r.BrokenWhy...), "\n"))
	}
}

// rollout waits until all pods of a StatefulSet have its last revision and are ready.
func rollout(t *testing.T, ns, name string) {
	t.Helper()
	kubectl(t, "-n", ns, "rollout", "status", "statefulset/"+name, "--timeout=240s")
}

// headscale runs its command line and decodes what it prints.
func headscale(t *testing.T, into any, args ...string) {
	t.Helper()
	all := append([]string{"-n", siteNS, "exec", "headscale", "--", "/headscale", "-c", "/etc/headscale/config.yaml", "-o", "json"}, args...)
	out := kubectl(t, all...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// device is one node of the tailnet.
type device struct {
	ID          json.Number `json:"id"`
	Name        string      `json:"name"`
	GivenName   string      `json:"given_name"`
	IPAddresses []string    `json:"ip_addresses"`
	NodeKey     string      `json:"node_key"`
	MachineKey  string      `json:"machine_key"`
	Online      bool        `json:"online"`
}

// devices returns the nodes whose name begins with prefix, by name.
func devices(t *testing.T, prefix string) map[string]device {
	t.Helper()
	var list []device
	headscale(t, &list, "nodes", "list")
	m := map[string]device{}
	for _, d := range list {
		if strings.HasPrefix(d.Name, prefix) {
			if _, twice := m[d.Name]; twice {
				t.Errorf("devices called %s = 2, want 1", d.Name)
			}
			m[d.Name] = d
		}
	}
	return m
}

func eventually(t *testing.T, what string, within time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s: %v", within, what, err)
		}
		time.Sleep(500 * time.Millisecond) // f runs kubectl, which has no event for it
	}
}

// diagnose logs the pods of a namespace and their last lines, if the test failed.
func diagnose(t *testing.T, ns string) {
	if !t.Failed() {
		return
	}
	out, _ := tryKubectl(t, "-n", ns, "get", "pods", "-o", "wide")
	t.Logf("pods of %s:\n%s", ns, out)
	pods, _ := tryKubectl(t, "-n", ns, "get", "pods", "-o", "name")
	for _, pod := range strings.Fields(pods) {
		out, _ := tryKubectl(t, "-n", ns, "logs", pod, "--all-containers", "--tail=4000")
		var kept []string
		for line := range strings.Lines(out) {
			if !strings.Contains(line, `"class":"ok"`) {
				kept = append(kept, line)
			}
		}
		t.Logf("the last lines of %s, without flows that ended well:\n%s", pod, strings.Join(kept[max(0, len(kept)-40):], ""))
	}
}
