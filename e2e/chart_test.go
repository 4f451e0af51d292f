//go:build e2e

package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// TestChartRenders lints the chart and compares what it renders with golden files.
// It needs no cluster.
func TestChartRenders(t *testing.T) {
	dir := env("E2E_CHART", "../charts/pando")
	key := []string{"--set", "tailnet.authKey=tskey-auth-x,image.repository=registry.example/pando"}
	out := helm(t, append([]string{"lint", "--strict", dir}, key...)...)
	if !strings.Contains(out, "0 chart(s) failed") {
		t.Error(out)
	}
	for name, args := range map[string][]string{
		"default": key,
		"kernel": {"--set", "image.repository=registry.example/pando,mode=kernel,tailnet.existingSecret=mine,replicas=2,tailnet.controlURL=https://headscale.example.com,tailnet.tags={tag:k8s}",
			"--set", "config.policy.direct=public,drain.timeoutSeconds=60"},
	} {
		t.Run(name, func(t *testing.T) {
			got := helm(t, append([]string{"template", "pando", dir, "--namespace", "egress"}, args...)...)
			golden := filepath.Join("testdata", "chart-"+name+".yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the chart renders other manifests than %s; if that is right, run with -update. Got:\n%s", golden, got)
			}
		})
	}
	for args, want := range map[string]string{
		"mode=both":                "mode",
		"tailnet.tags={k8s}":       "tags",
		"replica=3":                "replica",
		"config.polcy.direct=any":  "polcy",
		"config.policy.dirct=any":  "dirct",
		"config.listen.proxy=:80":  "proxy",
		"config.drain.timeout=2m":  "timeout",
		"tailnet=null":             "tailnet",
		"tailnet.authKeyField=a/b": "authKeyField",
		"replicas=0":               "replicas",
	} {
		out, err := command(t, 60e9, nil, env("HELM", "helm"), "template", "pando", dir, key[0], key[1], "--set", args)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %s: %v, want an error about %s\n%s", args, err, want, out)
		}
	}
	if _, err := command(t, 60e9, nil, env("HELM", "helm"), "template", "pando", dir, "--set", "image.repository=x"); err == nil || !strings.Contains(err.Error(), "set tailnet.authKey, or tailnet.existingSecret") {
		t.Errorf("helm template without an auth key: %v, want an error that names tailnet.authKey", err)
	}
}
