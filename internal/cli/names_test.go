package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestEnv(t *testing.T) {
	const no = "localhost,127.0.0.1,::1,.svc,.cluster.local,kubernetes.default,10.96.0.0/12,10.244.0.0/16,.corp.example"
	args := []string{"env", "--proxy", "http://pando.net.svc:1055", "--cidr", "10.96.0.0/12,10.244.0.0/16", "--no-proxy", ".corp.example"}
	stdout, _, err := run(t, nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	// A shell takes it, and programs find both cases.
	out, err := exec.Command("/bin/sh", "-c", stdout+`echo "$HTTP_PROXY $https_proxy $ALL_PROXY $no_proxy"; [ "$NO_PROXY" = "$no_proxy" ]`).CombinedOutput()
	if want := "http://pando.net.svc:1055 http://pando.net.svc:1055 socks5h://pando.net.svc:1055 " + no + "\n"; err != nil || string(out) != want {
		t.Errorf("a shell makes of it %q, %v; want %q", out, err, want)
	}
	stdout, _, err = run(t, nil, append(args, "--format", "dotenv")...)
	if err != nil || !strings.Contains(stdout, "\nno_proxy="+no+"\n") || strings.Contains(stdout, "export") {
		t.Errorf("dotenv: %s, %v", stdout, err)
	}
	stdout, _, err = run(t, nil, append(args, "--format", "kubernetes")...)
	if err != nil || !strings.HasPrefix(stdout, "env:\n- name: HTTP_PROXY\n  value: http://pando.net.svc:1055\n") || strings.Count(stdout, "- name:") != 8 {
		t.Errorf("kubernetes: %s, %v", stdout, err)
	}
	for _, tc := range []struct{ name, flag, value, want string }{
		{"tls", "--proxy", "https://pando:1055", "speaks no TLS"},
		{"no_port", "--proxy", "http://pando", "names no port"},
		{"no_url", "--proxy", "pando:1055", "no address of the fleet"},
		{"cidr", "--cidr", "10.96.0.1", "no prefix"},
		{"cidr_bits", "--cidr", "10.96.0.1/12", "no prefix"},
		{"format", "--format", "xml", "use shell, dotenv or kubernetes"},
		{"no_proxy", "--no-proxy", "a b", "commas"},
		{"domain", "--cluster-domain", ".", "cluster.local"},
		{"no_kubectl", "--kubectl", "/nonexistent/kubectl", "--from-cluster"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, _, err := run(t, nil, "env", "--from-cluster="+map[bool]string{true: "true", false: "false"}[tc.name == "no_kubectl"], tc.flag, tc.value); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// The prefixes come from what kubectl prints; the e2e test asks a real cluster.
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
		t.Errorf("%s, %v", stdout, err)
	}
}

func TestCoreDNS(t *testing.T) {
	conf := configFile(t, "dns: {fleet: [pando.pando.svc], zones: [{suffix: Internal.example.com}, {suffix: real.example.com, answer: real}]}\n")
	stdout, _, err := run(t, nil, "coredns", "--config", conf, "--address", "10.96.0.7")
	want := `# CoreDNS: add to the Corefile (kubectl -n kube-system edit configmap coredns)
internal.example.com:53 {
    errors
    cache 5
    forward . 10.96.0.7:53
}
real.example.com:53 {
    errors
    cache 5
    forward . 10.96.0.7:53
}

# kube-dns: data of its ConfigMap
stubDomains: |
  {"internal.example.com":["10.96.0.7"],"real.example.com":["10.96.0.7"]}
`
	if err != nil || stdout != want {
		t.Errorf("got %s, %v; want %s", stdout, err, want)
	}
	// Of a file that is meant for a pod, only the zones have to be right here.
	pods := configFile(t, "tailnet: {authKeyFile: /etc/pando/key/authkey}\nlisten: {dns: ':1053'}\ndns: {zones: [{suffix: internal.example.com}]}\n")
	if stdout, _, err := run(t, nil, "coredns", "--config", pods, "--address", "10.96.0.7"); err != nil || !strings.Contains(stdout, "forward . 10.96.0.7:53") {
		t.Errorf("a pod's file: %s, %v", stdout, err)
	}
	wrong := configFile(t, "dns: {fleet: [10.96.0.7], zones: [{suffix: 'not a zone'}]}\n")
	for name, args := range map[string][]string{
		"dns.zones[0].suffix":                           {"--config", wrong},
		"--address: the Service's cluster IP is needed": {"--config", conf},
		"no address":         {"--config", conf, "--address", "pando"},
		"dns.zones is empty": nil,
	} {
		if _, _, err := run(t, nil, append([]string{"coredns"}, args...)...); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}
