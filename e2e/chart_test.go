//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/pandoproxy/pando/internal/testkit"
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
		"exposed": append(key, "--values", exposedValues(t)),
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
	if _, err := command(t, 60e9, nil, env("HELM", "helm"), "template", "pando", dir, "--set", "image.repository=x"); err == nil || !strings.Contains(err.Error(), "set tailnet.authKey, or tailnet.existingSecret") {
		t.Errorf("helm template without an auth key: %v, want an error that names tailnet.authKey", err)
	}
}

// TestChartRefuses checks that the chart refuses wrong values, and that its error
// says what is wrong.
func TestChartRefuses(t *testing.T) {
	const noPassword = "because clients need no password. Set config.auth.usersFile"
	for args, want := range map[string]string{
		"mode=both":                                    "mode",
		"tailnet.tags={k8s}":                           "tags",
		"replica=3":                                    "replica",
		"config.polcy.direct=any":                      "polcy",
		"config.policy.dirct=any":                      "dirct",
		"config.listen.proxy=:80":                      "proxy",
		"config.drain.timeout=2m":                      "timeout",
		"tailnet=null":                                 "tailnet",
		"tailnet.authKeyField=a/b":                     "authKeyField",
		"replicas=0":                                   "replicas",
		"networkPolicy.clients[0].podSelectr.x=y":      "podSelectr",
		"networkPolicy.enabled=sometimes":              "enabled",
		"extraVolumeMounts[0].name=users":              "mountPath",
		"service.type=LoadBalancer":                    "service.type LoadBalancer lets everyone who reaches the Service use the tailnet, " + noPassword,
		"service.type=NodePort":                        "service.type NodePort lets everyone who reaches the Service use the tailnet, " + noPassword,
		"service.type=NodePort,config.auth.usersFile=": noPassword,
		"service.type=LoadBalancer,config.auth.usersFile=/u,service.ports[0].port=443": "Set service.ports to []",
	} {
		out, err := render(t, "--set", args)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %s: %v, want an error with %q\n%s", args, err, want, out)
		}
	}
	for _, args := range []string{
		"service.type=LoadBalancer,config.auth.usersFile=/etc/pando/users/users",
		"service.type=NodePort,service.allowUnauthenticated=true",
		"service.type=LoadBalancer,service.ports[0].port=443,service.allowUnauthenticated=true",
	} {
		if _, err := render(t, "--set", args); err != nil {
			t.Errorf("--set %s: %v, want no error", args, err)
		}
	}
}

// TestChartNetworkPolicy checks which pods the NetworkPolicy lets in to which port.
func TestChartNetworkPolicy(t *testing.T) {
	const fronts = "config.listen.dns=:1053,config.dns.zones[0].suffix=example.com,config.sni[0].listen=:8443,config.web[0].listen=127.0.0.1:8080,config.forward[0].listen=:7000,config.forward[0].target=a.example.com:7000"
	var (
		own      = pod{"kubernetes.io/metadata.name": "egress"}
		client   = pod{"kubernetes.io/metadata.name": "shop", "pando-client": "true"}
		stranger = pod{"kubernetes.io/metadata.name": "other"}
		refused  = pod{"kubernetes.io/metadata.name": "other", "pando-client": "false"}
		dns      = pod{"kubernetes.io/metadata.name": "kube-system", "pod k8s-app": "kube-dns"}
		system   = pod{"kubernetes.io/metadata.name": "kube-system"}
		monitor  = pod{"kubernetes.io/metadata.name": "monitoring"}
	)
	for _, c := range []struct {
		name, set string
		from      pod
		want      string
	}{
		{"client", "replicas=3", client, "1055/TCP"},
		{"own_namespace", "replicas=3", own, "1055/TCP"},
		{"stranger", "replicas=3", stranger, ""},
		{"wrong_value_of_the_label", "replicas=3", refused, ""},
		{"cluster_dns_without_a_server", "replicas=3", dns, ""},
		{"client_of_all_fronts", fronts, client, "1053/TCP 1053/UDP 1055/TCP 7000/TCP 8080/TCP 8443/TCP"},
		{"stranger_at_all_fronts", fronts, stranger, ""},
		{"cluster_dns", fronts, dns, "1053/TCP 1053/UDP"},
		{"another_pod_of_kube_system", fronts, system, ""},
		{"prometheus_without_a_peer", "replicas=3", monitor, ""},
		{"prometheus", "networkPolicy.admin[0].namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name=monitoring", monitor, "9002/TCP"},
		{"client_at_the_admin_port", "networkPolicy.admin[0].namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name=monitoring", client, "1055/TCP"},
		{"stranger_when_open_for_all", "networkPolicy.allowAll=true", stranger, "1055/TCP"},
		{"no_clients", "networkPolicy.clients=null", client, ""},
		{"wireguard", "config.tailnet.port=41641", stranger, "41641/UDP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := render(t, "--set", c.set, "--show-only", "templates/networkpolicy.yaml")
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(openTo(t, text, c.from), " "); got != c.want {
				t.Errorf("open ports = %q, want %q, with\n%s", got, c.want, text)
			}
		})
	}
	if text, err := render(t, "--set", "networkPolicy.enabled=false"); err != nil || strings.Contains(text, "NetworkPolicy") {
		t.Errorf("networkPolicy.enabled=false: %v, want no NetworkPolicy\n%s", err, text)
	}
}

// TestChartNotes checks that the notes say how to admit a namespace. Only an
// installation prints notes, so the test renders them as a manifest.
func TestChartNotes(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(env("E2E_CHART", "../charts/pando"))); err != nil {
		t.Fatal(err)
	}
	notes, err := os.ReadFile(filepath.Join(dir, "templates/NOTES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := "{{ define \"notes\" }}" + string(notes) + "{{ end }}kind: Notes\ntext: {{ include \"notes\" . | quote }}\n"
	if err := os.WriteFile(filepath.Join(dir, "templates/notes.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	const (
		label    = "\n  kubectl label namespace NAMESPACE pando-client=true\n"
		anywhere = "from any pod that has curl"
	)
	for _, c := range []struct{ set, has, hasNot string }{
		{"replicas=3", label, anywhere},
		{"networkPolicy.clients[0].namespaceSelector.matchLabels.team=shop", "\n  kubectl label namespace NAMESPACE team=shop\n", anywhere},
		{"networkPolicy.clients[0].ipBlock.cidr=192.0.2.0/24", "lets in the pods of namespace egress", "kubectl label"},
		{"networkPolicy.allowAll=true", anywhere, "kubectl label"},
		{"networkPolicy.enabled=false", anywhere, "kubectl label"},
	} {
		text, err := renderOf(t, dir, "--set", c.set, "--show-only", "templates/notes.yaml")
		if err != nil {
			t.Fatal(err)
		}
		var rendered struct{ Text string }
		if err := yaml.Unmarshal([]byte(text), &rendered); err != nil {
			t.Fatal(err)
		}
		out := rendered.Text
		if !strings.Contains(out, c.has) || strings.Contains(out, c.hasNot) {
			t.Errorf("--set %s: notes =\n%s\nwant them with %q and without %q", c.set, out, c.has, c.hasNot)
		}
	}
}

// TestChartValuesOfDocs checks that the chart takes the values in the pages.
func TestChartValuesOfDocs(t *testing.T) {
	n := 0
	for _, p := range testkit.Pages(t, "..") {
		for _, b := range p.Blocks() {
			if !strings.HasPrefix(b.Text, "# values of the chart\n") {
				continue
			}
			n++
			file := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(file, []byte(b.Text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := render(t, "--values", file); err != nil {
				t.Errorf("%s: %v with\n%s", p.Path, err, b.Text)
			}
		}
	}
	if n < 2 {
		t.Errorf("found only %d blocks of values: the test looks for the wrong thing", n)
	}
}

// exposedValues returns a file with the values of the exposed golden file: a fleet
// behind a load balancer, with a file of users from a Secret, and every port.
func exposedValues(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	text := `
service: {type: LoadBalancer}
networkPolicy:
  clients: [{ipBlock: {cidr: 192.0.2.0/24}}]
  admin: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
config:
  auth: {usersFile: /etc/pando/users/users}
  listen: {dns: ":1053"}
  dns: {zones: [{suffix: internal.example.com}]}
  sni: [{listen: ":8443"}]
  tailnet: {port: 41641}
extraVolumes: [{name: users, secret: {secretName: pando-users}}]
extraVolumeMounts: [{name: users, mountPath: /etc/pando/users, readOnly: true}]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// render returns the manifests of the chart as release pando of namespace egress.
func render(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return renderOf(t, env("E2E_CHART", "../charts/pando"), args...)
}

func renderOf(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	all := append([]string{"template", "pando", dir, "--namespace", "egress",
		"--set", "tailnet.authKey=tskey-auth-x,image.repository=registry.example/pando"}, args...)
	return command(t, 60e9, nil, env("HELM", "helm"), all...)
}

// pod describes a pod that connects: the labels of its namespace, and its own
// labels with "pod " before them.
type pod map[string]string

// has reports whether p has every label in want, after prefix.
func (p pod) has(want map[string]string, prefix string) bool {
	for key, value := range want {
		if p[prefix+key] != value {
			return false
		}
	}
	return true
}

type selector struct {
	MatchLabels map[string]string `json:"matchLabels"`
}

type networkPolicy struct {
	Metadata struct{ Name string }
	Spec     struct {
		PodSelector selector `json:"podSelector"`
		PolicyTypes []string `json:"policyTypes"`
		Ingress     []struct {
			Ports []struct {
				Port     int
				Protocol string
			}
			From []struct {
				NamespaceSelector *selector `json:"namespaceSelector"`
				PodSelector       *selector `json:"podSelector"`
			}
		}
	}
}

// openTo returns the ports that the NetworkPolicy in text opens to a pod. The policy
// stands in namespace egress, and may only use matchLabels.
func openTo(t *testing.T, text string, from pod) []string {
	t.Helper()
	var policy networkPolicy
	if err := yaml.Unmarshal([]byte(text), &policy); err != nil {
		t.Fatal(err)
	}
	if policy.Spec.PodSelector.MatchLabels["app.kubernetes.io/instance"] != "pando" || !slices.Equal(policy.Spec.PolicyTypes, []string{"Ingress"}) {
		t.Errorf("policy = %+v, want one for ingress of the release's pods", policy)
	}
	open := map[string]bool{}
	for _, rule := range policy.Spec.Ingress {
		lets := len(rule.From) == 0 // a rule without peers is for everyone
		for _, peer := range rule.From {
			namespace := peer.NamespaceSelector
			if namespace == nil {
				namespace = &selector{map[string]string{"kubernetes.io/metadata.name": "egress"}}
			}
			lets = lets || from.has(namespace.MatchLabels, "") && (peer.PodSelector == nil || from.has(peer.PodSelector.MatchLabels, "pod "))
		}
		for _, p := range rule.Ports {
			protocol := p.Protocol
			if protocol == "" {
				protocol = "TCP"
			}
			if lets {
				open[fmt.Sprintf("%d/%s", p.Port, protocol)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(open))
}
