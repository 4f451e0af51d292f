package clientenv

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// valid returns options without a mistake.
func valid() Options {
	return Options{
		Proxy:  "http://pando.pando.svc:1055",
		Domain: "cluster.local",
		CIDRs:  []string{"10.96.0.0/12"},
	}
}

// TestVariables checks each variable, in upper and in lower case.
func TestVariables(t *testing.T) {
	const before = "localhost,127.0.0.1,.svc,.cluster.local,kubernetes.default"
	const platform = ",169.254.169.254,169.254.170.2,169.254.170.23,metadata.google.internal"
	const always = before + platform
	const six = ",::1,fd00:ec2::254,fd00:ec2::23"
	dual := Options{Proxy: "http://pando:1", Domain: "cluster.local", CIDRs: []string{"10.96.0.0/12", "fd00:96::/112"}}
	dual6 := dual
	dual6.IPv6 = true
	dual6.NoProxy = []string{"fd00::7", "fd00:96::/112"}
	only6 := Options{Proxy: "http://pando:1", Domain: "cluster.local", APIServer: "fd00:96::1", NoProxy: []string{"::1", "fd00::/8"}}
	socks := valid()
	socks.AllProxy = true
	for _, c := range []struct {
		name                string
		options             Options
		http, socks, direct string // socks is empty if there is no ALL_PROXY
		leftOut             string
	}{
		{"plain", valid(), "http://pando.pando.svc:1055", "", before + ",10.96.0.1" + platform + ",10.96.0.0/12", ""},
		{"all_proxy", socks, "http://pando.pando.svc:1055", "socks5h://pando.pando.svc:1055", before + ",10.96.0.1" + platform + ",10.96.0.0/12", ""},
		{"no_prefix", Options{Proxy: "http://10.96.0.7:1055/", Domain: ".cluster.local."}, "http://10.96.0.7:1055", "", always, ""},
		{"in_a_pod", Options{Proxy: "http://pando:1", Domain: "cluster.local", APIServer: "172.30.0.1", CIDRs: []string{"10.96.0.0/12"}}, "http://pando:1", "", before + ",172.30.0.1" + platform + ",10.96.0.0/12", ""},
		{"api_server_by_name", Options{Proxy: "http://pando:1", Domain: "cluster.local", APIServer: "api.example.net"}, "http://pando:1", "", before + ",api.example.net" + platform, ""},
		{"ipv6_proxy", Options{Proxy: "http://[fd00::7]:1055", Domain: "cluster.local"}, "http://[fd00::7]:1055", "", always, ""},
		{"user", Options{Proxy: "http://ann:a%20b@pando:1055", Domain: "cluster.local"}, "http://ann:a%20b@pando:1055", "", always, ""},
		{"more_names", Options{Proxy: "http://pando:1", Domain: "cluster.local", NoProxy: []string{".corp.example", "localhost", ".corp.example"}}, "http://pando:1", "", always + ",.corp.example", ""},
		{"two_families", dual, "http://pando:1", "", before + ",10.96.0.1" + platform + ",10.96.0.0/12", "fd00:96::/112"},
		{"two_families_asked_for", dual6, "http://pando:1", "", before + ",10.96.0.1" + platform + six + ",10.96.0.0/12,fd00:96::/112,fd00::7", ""},
		{"all_of_ipv6_is_left_out", only6, "http://pando:1", "", always, "fd00:96::1,::1,fd00::/8"},
		{"one_address_as_a_prefix", Options{Proxy: "http://pando:1", Domain: "cluster.local", CIDRs: []string{"10.1.2.3/32"}}, "http://pando:1", "", always + ",10.1.2.3/32", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, leftOut, err := c.options.Variables()
			if err != nil {
				t.Fatal(err)
			}
			var want []Variable
			for _, v := range []Variable{{"HTTP_PROXY", c.http}, {"HTTPS_PROXY", c.http}, {"ALL_PROXY", c.socks}, {"NO_PROXY", c.direct}} {
				if v.Value != "" {
					want = append(want, v, Variable{strings.ToLower(v.Name), v.Value})
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("Variables() =\n%v\nwant\n%v", got, want)
			}
			if got := strings.Join(leftOut, ","); got != c.leftOut {
				t.Errorf("Variables() leaves out %q, want %q", got, c.leftOut)
			}
		})
	}
}

// TestMistakes checks that an invalid option is an error that names its flag.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"tls", func(o *Options) { o.Proxy = "https://pando:1055" }, `invalid --proxy "https://pando:1055": write http://host:port`},
		{"no_scheme", func(o *Options) { o.Proxy = "pando:1055" }, "write http://host:port"},
		{"path", func(o *Options) { o.Proxy = "http://pando:1055/x" }, "write http://host:port"},
		{"no_port", func(o *Options) { o.Proxy = "http://pando" }, `invalid --proxy "http://pando": add the port`},
		{"port_0", func(o *Options) { o.Proxy = "http://pando:0" }, "add the port"},
		{"port_too_high", func(o *Options) { o.Proxy = "http://pando:65536" }, "add the port"},
		{"address_for_a_prefix", func(o *Options) { o.CIDRs = []string{"10.96.0.1"} }, `invalid --cidr "10.96.0.1": write a prefix`},
		{"host_bits", func(o *Options) { o.CIDRs = []string{"10.96.0.1/12"} }, "invalid --cidr"},
		{"no_domain", func(o *Options) { o.Domain = "." }, "invalid --cluster-domain"},
		{"domain_with_a_comma", func(o *Options) { o.Domain = "a,b" }, "invalid --cluster-domain"},
		{"two_names", func(o *Options) { o.NoProxy = []string{"a,b"} }, `invalid --no-proxy "a,b"`},
		{"quote", func(o *Options) { o.NoProxy = []string{"a'b"} }, "invalid --no-proxy"},
		{"star", func(o *Options) { o.NoProxy = []string{"*.corp.example"} }, "few clients understand the star; write .corp.example"},
		{"star_in_front", func(o *Options) { o.NoProxy = []string{"*corp.example"} }, "write corp.example"},
		{"all_names", func(o *Options) { o.NoProxy = []string{"*"} }, "few clients understand this entry"},
		{"port", func(o *Options) { o.NoProxy = []string{"corp.example:8080"} }, "without a port"},
		{"brackets", func(o *Options) { o.NoProxy = []string{"[fd00::1]"} }, "few clients understand this entry"},
		{"url", func(o *Options) { o.NoProxy = []string{"http://corp.example"} }, "few clients understand this entry"},
		{"address_pattern", func(o *Options) { o.NoProxy = []string{"10.*"} }, "few clients understand this entry"},
		{"dot", func(o *Options) { o.NoProxy = []string{"."} }, "few clients understand this entry"},
		{"empty", func(o *Options) { o.NoProxy = []string{""} }, "few clients understand this entry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := valid()
			c.change(&o)
			if got, _, err := o.Variables(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Variables() = %v, %v; want an error with %q", got, err, c.want)
			}
		})
	}
}

// TestWrite checks each format.
func TestWrite(t *testing.T) {
	variables := []Variable{{"A", "x y"}, {"b", "it's"}}
	for format, want := range map[string]string{
		"shell":      "export A='x y'\nexport b='it'\\''s'\n",
		"dotenv":     "A=x y\nb=it's\n",
		"kubernetes": "env:\n- name: A\n  value: x y\n- name: b\n  value: it's\n",
	} {
		var b strings.Builder
		if err := Write(&b, format, variables); err != nil || b.String() != want {
			t.Errorf("Write(%q) wrote %q, %v; want %q", format, &b, err, want)
		}
	}
	if err := Write(&strings.Builder{}, "xml", variables); err == nil {
		t.Error(`Write("xml") gave no error`)
	}
}

// TestFromCluster checks what is made of kubectl's answers.
func TestFromCluster(t *testing.T) {
	const services = `{"items": [{"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12", "fd00:96::/112"]}}]}`
	const more = `{"items": [{"metadata": {"name": "extra"}, "spec": {"cidrs": ["10.8.0.0/16"]}}, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}}]}`
	const nodes = `{"items": [{"spec": {"podCIDRs": ["10.244.0.0/24"]}}, {"spec": {}}, {"spec": {"podCIDRs": ["10.244.1.0/24"]}}]}`
	for _, c := range []struct{ name, services, nodes, want string }{
		{"both", "echo '" + services + "'", "echo '" + nodes + "'", "10.96.0.1: 10.96.0.0/12 fd00:96::/112 10.244.0.0/24 10.244.1.0/24"},
		{"more_services", "echo '" + more + "'", "echo '" + nodes + "'", "10.96.0.1: 10.96.0.0/12 10.8.0.0/16 10.244.0.0/24 10.244.1.0/24"},
		{"ipv6_first", `echo '{"items": [{"spec": {"cidrs": ["fd00:96::/112", "10.96.0.0/12"]}}]}'`, "echo '" + nodes + "'", "fd00:96::1: fd00:96::/112 "},
		{"no_services", `echo '{"items": []}'`, "echo '" + nodes + "'", "--from-cluster: the cluster's servicecidrs contain no prefixes; give them with --cidr"},
		{"no_pods", "echo '" + services + "'", `echo '{"items": [{"spec": {}}]}'`, "--from-cluster: the cluster's nodes contain no prefixes"},
		{"forbidden", "echo 'not allowed' >&2; exit 1", "exit 1", "--from-cluster: kubectl get servicecidrs: not allowed; you can give the prefixes with --cidr"},
		{"not_json", "echo '<html>'", "exit 1", "--from-cluster: kubectl get servicecidrs: invalid character"},
	} {
		t.Run(c.name, func(t *testing.T) {
			kubectl := filepath.Join(t.TempDir(), "kubectl")
			script := "#!/bin/sh\ncase \"$2\" in\nservicecidrs) " + c.services + ";;\nnodes) " + c.nodes + ";;\nesac\n"
			if err := os.WriteFile(kubectl, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			var o Options
			err := o.FromCluster(t.Context(), "/bin/sh "+kubectl)
			got := o.APIServer + ": " + strings.Join(o.CIDRs, " ")
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("FromCluster gives %q, want %q", got, c.want)
			}
		})
	}
	if err := new(Options).FromCluster(t.Context(), "/nonexistent/kubectl"); err == nil || !strings.Contains(err.Error(), "--from-cluster") {
		t.Errorf("FromCluster without kubectl gives the error %v, want one that names --from-cluster", err)
	}
}
