package cli

import (
	"strings"
	"testing"
)

// TestCoreDNS checks what is printed for cluster DNS.
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
		t.Errorf("pando coredns printed %s, %v; want %s", stdout, err, want)
	}
}

// TestCoreDNSAddress checks which address the zones are forwarded to.
func TestCoreDNSAddress(t *testing.T) {
	conf := configFile(t, "dns: {fleet: [pando.pando.svc, 10.96.0.8, 10.96.0.9], zones: [{suffix: internal.example.com}]}\n")
	for _, tc := range []struct{ name, address, forward, stub string }{
		{"first_of_the_fleet", "", "10.96.0.8:53", "10.96.0.8"},
		{"flag", "10.96.0.7", "10.96.0.7:53", "10.96.0.7"},
		{"port", "10.96.0.7:1053", "10.96.0.7:1053", "10.96.0.7:1053"},
		{"ipv6", "fd00:96::7", "[fd00:96::7]:53", "fd00:96::7"},
		{"ipv6_port", "[fd00:96::7]:1053", "[fd00:96::7]:1053", "[fd00:96::7]:1053"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, _, err := run(t, nil, "coredns", "--config", conf, "--address", tc.address)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"forward . " + tc.forward + "\n", `["` + tc.stub + `"]`} {
				if !strings.Contains(stdout, want) {
					t.Errorf("pando coredns printed %s, want %q in it", stdout, want)
				}
			}
		})
	}
}

// TestCoreDNSMistakes checks that mistakes in dns.zones are errors, and that
// other mistakes, which a file for a pod may have here, are not.
func TestCoreDNSMistakes(t *testing.T) {
	conf := configFile(t, "dns: {fleet: [pando.pando.svc], zones: [{suffix: internal.example.com}]}\n")
	pods := configFile(t, "tailnet: {authKeyFile: /etc/pando/key/authkey}\nlisten: {dns: ':1053'}\ndns: {zones: [{suffix: internal.example.com}]}\n")
	wrong := configFile(t, "dns: {fleet: [10.96.0.7], zones: [{suffix: 'not a zone'}]}\n")
	twice := configFile(t, "dns: {fleet: [10.96.0.7], zones: [{suffix: a.example}, {suffix: A.example}]}\n")
	malformed := configFile(t, "dns: {fleet: [10.96.0.7], zones: 7}\n")
	for _, tc := range []struct {
		name string
		args []string
		want string // of the error; empty means none
	}{
		{"file_for_a_pod", []string{"--config", pods, "--address", "10.96.0.7"}, ""},
		{"bad_suffix", []string{"--config", wrong}, "dns.zones[0].suffix"},
		{"zone_twice", []string{"--config", twice}, "dns.zones[1].suffix"},
		{"malformed", []string{"--config", malformed}, "dns.zones"},
		{"no_address", []string{"--config", conf}, "no --address: give the Service's cluster IP"},
		{"bad_address", []string{"--config", conf, "--address", "pando"}, `invalid --address "pando"`},
		{"port_zero", []string{"--config", conf, "--address", "10.96.0.7:0"}, `invalid --address "10.96.0.7:0"`},
		{"ipv6_zone", []string{"--config", conf, "--address", "fe80::1%eth0"}, `invalid --address "fe80::1%eth0"`},
		{"no_zones", nil, "dns.zones is empty"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, _, err := run(t, nil, append([]string{"coredns"}, tc.args...)...)
			if tc.want == "" {
				if err != nil || !strings.Contains(stdout, "forward . 10.96.0.7:53") {
					t.Errorf("got %s, %v; want the zone forwarded", stdout, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q in it", err, tc.want)
			}
		})
	}
}
