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
	const no = "localhost,127.0.0.1,.svc,.cluster.local,kubernetes.default,10.96.0.1,10.244.0.1,169.254.169.254,169.254.170.2,169.254.170.23,metadata.google.internal,10.96.0.0/12,10.244.0.0/16,.corp.example"
	args := []string{"env", "--proxy", "http://pando.net.svc:1055", "--cidr", "10.96.0.0/12,10.244.0.0/16", "--no-proxy", ".corp.example"}
	stdout, stderr, err := run(t, nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(strings.ToUpper(stdout), "ALL_PROXY") || stderr != "" {
		t.Errorf("without flags for that, pando env printed %s and %q; want no ALL_PROXY and no remark", stdout, stderr)
	}
	stdout, _, err = run(t, nil, append(args, "--all-proxy")...)
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
	if err != nil || !strings.HasPrefix(stdout, "env:\n- name: HTTP_PROXY\n  value: http://pando.net.svc:1055\n") || strings.Count(stdout, "- name:") != 6 {
		t.Errorf("--format kubernetes printed %s, %v; want six variables", stdout, err)
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

// TestEnvFromCluster checks that the prefixes come from what kubectl prints, and what
// is said of those of IPv6. The e2e test asks a real cluster.
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
	for _, c := range []struct{ flag, tail, remark string }{
		{"--ipv6=false", ",10.96.0.0/12,10.244.0.0/24,10.244.1.0/24'", "NO_PROXY does not have fd00:96::/112: "},
		{"--ipv6", ",::1,fd00:ec2::254,fd00:ec2::23,10.96.0.0/12,fd00:96::/112,10.244.0.0/24,10.244.1.0/24'", ""},
	} {
		stdout, stderr, err := run(t, nil, "env", "--from-cluster", "--kubectl", kubectl, c.flag)
		if err != nil || !strings.Contains(stdout, c.tail) || !strings.Contains(stdout, ",10.96.0.1,") {
			t.Errorf("pando env %s printed %s, %v; want the API server, and %s", c.flag, stdout, err, c.tail)
		}
		if !strings.Contains(stderr, c.remark) || (stderr == "") != (c.remark == "") {
			t.Errorf("pando env %s remarked %q, want %q", c.flag, stderr, c.remark)
		}
	}
}

// TestEnvInPod checks that the API server's address comes from the pod's variables.
func TestEnvInPod(t *testing.T) {
	stdout, _, err := run(t, []string{"KUBERNETES_SERVICE_HOST=172.30.0.1"}, "env", "--cidr", "10.96.0.0/12")
	if err != nil || !strings.Contains(stdout, ",kubernetes.default,172.30.0.1,169.254.169.254,") {
		t.Errorf("pando env in a pod printed %s, %v; want its API server", stdout, err)
	}
}
