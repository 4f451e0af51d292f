package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEnv checks the variables in each format, and what a wrong flag is answered.
func TestEnv(t *testing.T) {
	const no = "localhost,127.0.0.1,::1,.svc,.cluster.local,kubernetes.default,10.96.0.0/12,10.244.0.0/16,.corp.example"
	args := []string{"env", "--proxy", "http://pando.net.svc:1055", "--cidr", "10.96.0.0/12,10.244.0.0/16", "--no-proxy", ".corp.example"}
	stdout, _, err := run(t, nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	// A shell can read it, and both cases are set.
	out, err := exec.Command("/bin/sh", "-c", stdout+`echo "$HTTP_PROXY $https_proxy $ALL_PROXY $no_proxy"; [ "$NO_PROXY" = "$no_proxy" ]`).CombinedOutput()
	if want := "http://pando.net.svc:1055 http://pando.net.svc:1055 socks5h://pando.net.svc:1055 " + no + "\n"; err != nil || string(out) != want {
		t.Errorf("the shell prints %q, %v; want %q", out, err, want)
	}
	stdout, _, err = run(t, nil, append(args, "--format", "dotenv")...)
	if err != nil || !strings.Contains(stdout, "\nno_proxy="+no+"\n") || strings.Contains(stdout, "export") {
		t.Errorf("--format dotenv printed %s, %v; want lines without export", stdout, err)
	}
	stdout, _, err = run(t, nil, append(args, "--format", "kubernetes")...)
	if err != nil || !strings.HasPrefix(stdout, "env:\n- name: HTTP_PROXY\n  value: http://pando.net.svc:1055\n") || strings.Count(stdout, "- name:") != 8 {
		t.Errorf("--format kubernetes printed %s, %v; want eight variables", stdout, err)
	}
	for _, tc := range []struct{ name, flag, value, want string }{
		{"tls", "--proxy", "https://pando:1055", "does not use TLS"},
		{"no_port", "--proxy", "http://pando", "add the port"},
		{"no_url", "--proxy", "pando:1055", "write http://host:port"},
		{"cidr", "--cidr", "10.96.0.1", "write a prefix"},
		{"cidr_bits", "--cidr", "10.96.0.1/12", "write a prefix"},
		{"format", "--format", "xml", "use shell, dotenv or kubernetes"},
		{"no_proxy", "--no-proxy", "a b", "cannot contain spaces, commas"},
		{"domain", "--cluster-domain", ".", "cluster.local"},
		{"no_kubectl", "--kubectl", "/nonexistent/kubectl", "--from-cluster"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fromCluster := fmt.Sprintf("--from-cluster=%v", tc.name == "no_kubectl")
			if _, _, err := run(t, nil, "env", fromCluster, tc.flag, tc.value); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q in it", err, tc.want)
			}
		})
	}
}

// TestEnvFromCluster checks that the prefixes come from what kubectl prints. The
// e2e test asks a real cluster.
func TestEnvFromCluster(t *testing.T) {
	kubectl := filepath.Join(t.TempDir(), "kubectl")
	script := `#!/bin/sh
case "$2" in
servicecidrs) echo '{"items": [{"spec": {"cidrs": ["10.96.0.0/12", "fd00:96::/112"]}}]}';;
nodes) echo '{"items": [{"spec": {"podCIDRs": ["10.244.0.0/24"]}}, {"spec": {"podCIDRs": ["10.244.1.0/24"]}}]}';;
esac`
	if err := os.WriteFile(kubectl, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	stdout, _, err := run(t, nil, "env", "--from-cluster", "--kubectl", kubectl)
	if err != nil || !strings.Contains(stdout, "10.96.0.0/12,fd00:96::/112,10.244.0.0/24,10.244.1.0/24'") {
		t.Errorf("pando env printed %s, %v; want the prefixes of services and pods", stdout, err)
	}
}
