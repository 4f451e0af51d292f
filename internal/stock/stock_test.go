package stock

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/config/names"
)

// TestFromEnv checks the variables of a real StatefulSet that used the stock container
// as an egress proxy.
func TestFromEnv(t *testing.T) {
	company := []string{
		"KUBERNETES_SERVICE_HOST=10.96.0.1", "POD_HOSTNAME=ts-proxy-1", "TS_KUBE_SECRET=ts-proxy-1-ts-state",
		"TS_AUTHKEY=tskey-auth-x", "TS_USERSPACE=false", "TS_HOSTNAME=ts-proxy-1", "TS_ACCEPT_DNS=true",
		"TS_EXTRA_ARGS=--accept-routes --login-server=https://headscale.example.com --advertise-tags=tag:k8s,egress",
		"TS_OUTBOUND_HTTP_PROXY_LISTEN=:1055", "TS_SOCKS5_SERVER=:1055", "TS_ENABLE_HEALTH_CHECK=true",
	}
	c, _, err := FromEnv(company)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	want := config.Default()
	want.Listen.Admin = "[::]:9002"
	want.Listen.Also = []string{}
	want.Policy.Direct = "public"
	want.Tailnet.Mode = "kernel"
	want.Tailnet.Hostname = "ts-proxy-1"
	want.Tailnet.KubeSecret = "ts-proxy-1-ts-state"
	want.Tailnet.AuthKey = "tskey-auth-x"
	want.Tailnet.ControlURL = "https://headscale.example.com"
	want.Tailnet.Tags = []string{"tag:k8s", "tag:egress"}
	equal(t, c, want)
}

// TestVariables checks what each variable sets.
func TestVariables(t *testing.T) {
	pod := "KUBERNETES_SERVICE_HOST=10.96.0.1"
	for _, c := range []struct {
		name string
		env  []string
		want func(*config.Config)
	}{
		{"nothing", nil, func(c *config.Config) {}},
		{"first_key", []string{"TS_AUTHKEY=first", "TS_AUTH_KEY=second"}, func(c *config.Config) { c.Tailnet.AuthKey = "first" }},
		{"second_key", []string{"TS_AUTHKEY=", "TS_AUTH_KEY=second"}, func(c *config.Config) { c.Tailnet.AuthKey = "second" }},
		{"hostname_dots", []string{"TS_HOSTNAME=egress.prod"}, func(c *config.Config) { c.Tailnet.Hostname = "egress-prod" }},
		{"hostname_flag_underscore", []string{"TS_EXTRA_ARGS=--hostname=Egress_prod"}, func(c *config.Config) { c.Tailnet.Hostname = "egress-prod" }},
		{"hostname_of_nothing", []string{"TS_HOSTNAME=___"}, func(c *config.Config) {}},
		{"hostname_flag_wins", []string{"TS_HOSTNAME=env", "TS_EXTRA_ARGS=--hostname=flag"}, func(c *config.Config) { c.Tailnet.Hostname = "flag" }},
		{"routes_flag_wins", []string{"TS_ROUTES=10.1.0.0/16", "TS_EXTRA_ARGS=--advertise-routes=10.2.0.0/16"}, func(c *config.Config) { c.Tailnet.AdvertiseRoutes = prefixes("10.2.0.0/16") }},
		{"tun_flag_wins", []string{"TS_USERSPACE=false", "TS_TAILSCALED_EXTRA_ARGS=--tun=userspace-networking"}, func(c *config.Config) {}},
		{"tun_flag_alone", []string{"TS_TAILSCALED_EXTRA_ARGS=--tun=ts1"}, func(c *config.Config) {
			c.Tailnet.Mode = "kernel"
			c.Tailnet.TUN = "ts1"
		}},
		{"both_health_checks", []string{"TS_HEALTHCHECK_ADDR_PORT=:9004", "TS_ENABLE_METRICS=true"}, func(c *config.Config) {
			c.Listen.Admin = "[::]:9002"
			c.Listen.AdminAlso = []string{":9004"}
		}},
		{"what_is_off_asks_for_nothing", []string{"TS_EXPERIMENTAL_CERT_SHARE=false", "EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS=0", "TS_EXTRA_ARGS=--json --qr-format=small"}, func(c *config.Config) {}},
		{"pod_without_secret", []string{pod}, func(c *config.Config) { c.Tailnet.KubeSecret = "tailscale" }},
		{"secret_off", []string{pod, "TS_KUBE_SECRET=", "TS_STATE_DIR=/state"}, func(c *config.Config) { c.Tailnet.StateDir = "/state" }},
		{"secret_before_dir", []string{"TS_KUBE_SECRET=s", "TS_STATE_DIR=/state"}, func(c *config.Config) { c.Tailnet.KubeSecret = "s" }},
		{"dns_off", []string{"TS_ACCEPT_DNS=false"}, func(c *config.Config) { c.Resolve.Tailnet = false }},
		{"dns_flag_wins", []string{"TS_ACCEPT_DNS=true", "TS_EXTRA_ARGS=--accept-dns=false"}, func(c *config.Config) { c.Resolve.Tailnet = false }},
		{"key_in_file", []string{"TS_AUTH_KEY=file:/key"}, func(c *config.Config) { c.Tailnet.AuthKeyFile = "/key" }},
		{"oauth", []string{"TS_CLIENT_SECRET=file:/secret"}, func(c *config.Config) { c.Tailnet.ClientSecretFile = "/secret" }},
		{"routes", []string{"TS_ROUTES=10.1.0.0/16, 10.2.0.0/16"}, func(c *config.Config) { c.Tailnet.AdvertiseRoutes = prefixes("10.1.0.0/16", "10.2.0.0/16") }},
		{"no_routes", []string{"TS_EXTRA_ARGS=--accept-routes=false"}, func(c *config.Config) { c.Tailnet.AcceptRoutes = false }},
		{"two_ports", []string{"TS_OUTBOUND_HTTP_PROXY_LISTEN=:8080", "TS_SOCKS5_SERVER=localhost:1055"}, func(c *config.Config) {
			c.Listen.Proxy = ":8080"
			c.Listen.Also = []string{"localhost:1055"}
		}},
		{"daemon", []string{"TS_TAILSCALED_EXTRA_ARGS=--port=41641 --tun ts0 --verbose=1 --no-logs-no-support --state=mem:", pod}, func(c *config.Config) {
			c.Tailnet.Mode = "kernel"
			c.Tailnet.Port = 41641
			c.Tailnet.TUN = "ts0"
			c.Log.Level = "debug"
		}},
		{"two_spellings_of_a_port", []string{"TS_OUTBOUND_HTTP_PROXY_LISTEN=:1066", "TS_SOCKS5_SERVER=0.0.0.0:1066"}, func(c *config.Config) { c.Listen.Proxy = ":1066" }},
		{"two_spellings_of_a_health_check", []string{"TS_HEALTHCHECK_ADDR_PORT=:9002", "TS_ENABLE_METRICS=true"}, func(c *config.Config) { c.Listen.Admin = "[::]:9002" }},
		{"metrics", []string{"TS_ENABLE_METRICS=1", "TS_LOCAL_ADDR_PORT=10.1.2.3:9003"}, func(c *config.Config) { c.Listen.Admin = "10.1.2.3:9003" }},
		{"metrics_ipv6", []string{"TS_ENABLE_METRICS=1", "POD_IPS=10.1.2.3,fd00::3", "TS_LOCAL_ADDR_PORT=fd00::3:9003"}, func(c *config.Config) { c.Listen.Admin = "[fd00::3]:9003" }},
		{"old_health_check", []string{"TS_HEALTHCHECK_ADDR_PORT=:9004"}, func(c *config.Config) { c.Listen.Admin = ":9004" }},
		{"boot_timeout", []string{"TS_BOOT_TIMEOUT=2m"}, func(c *config.Config) { c.Tailnet.BootTimeout = config.Duration(2 * time.Minute) }},
		{"auth_once", []string{"TS_AUTH_ONCE=true"}, func(c *config.Config) { c.Tailnet.AuthOnce = true }},
		{"shields", []string{"TS_EXTRA_ARGS=--shields-up=false"}, func(c *config.Config) { c.Tailnet.ShieldsUp = false }},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := FromEnv(c.env)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(fmt.Sprint(got.Validate())) { // the files do not exist here
				if strings.Contains(line, "choose another port") || strings.Contains(line, "hostname") {
					t.Errorf("Validate reports %s", line)
				}
			}
			want := config.Default()
			want.Listen.Admin = ""
			want.Policy.Direct = "public"
			c.want(&want)
			want.Tailnet.Ephemeral = want.Tailnet.KubeSecret == "" && want.Tailnet.StateDir == ""
			if len(got.Listen.Also) == 0 {
				got.Listen.Also = nil
			}
			equal(t, got, want)
		})
	}
}

// TestRefusals checks that what Pando cannot do is an error that says what to do
// instead, and that no error shows a value.
func TestRefusals(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{"TS_DEST_IP=10.0.0.1", "TS_DEST_IP: not supported; Pando is an egress proxy"},
		{"TS_TAILNET_TARGET_FQDN=db.ts.net", "TS_TAILNET_TARGET_FQDN: not supported; Pando is an egress proxy"},
		{"TS_SERVE_CONFIG=/x", "TS_SERVE_CONFIG: not supported; an egress proxy does not do serve and ingress"},
		{"TS_EGRESS_PROXIES_CONFIG_PATH=/x", "TS_EGRESS_PROXIES_CONFIG_PATH: not supported; this belongs to the Tailscale Kubernetes operator"},
		{"TS_CLIENT_ID=x", "TS_CLIENT_ID: not supported; use TS_AUTHKEY"},
		{"TS_USERSPACE=perhaps", `TS_USERSPACE: invalid value "perhaps": write true or false`},
		{"TS_BOOT_TIMEOUT=60", `TS_BOOT_TIMEOUT: invalid duration "60": write it with a unit`},
		{"TS_EXTRA_ARGS=--exit-node=100.64.0.9", "TS_EXTRA_ARGS: tailscale up: flag --exit-node: exit nodes are not supported"},
		{"TS_EXTRA_ARGS=--ssh", "TS_EXTRA_ARGS: tailscale up: flag --ssh: Pando has no SSH server"},
		{"TS_EXTRA_ARGS=--no-such-flag", "TS_EXTRA_ARGS: tailscale up: flag provided but not defined: --no-such-flag"},
		{"TS_EXTRA_ARGS=--hostname a b", `word 3 is not a flag`},
		{"TS_TAILSCALED_EXTRA_ARGS=--state=/var/lib/x", "only kube:NAME and mem: are supported"},
		{"TS_TAILSCALED_EXTRA_ARGS=--encrypt-state", "flag provided but not defined: --encrypt-state"},
	} {
		_, _, err := FromEnv([]string{c.env})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("FromEnv(%s) gives the error %v\nwant %s", c.env, err, c.want)
		}
	}
	for _, args := range []string{"--id-token=hunter2", "--authkey a hunter2", "--shields-up=hunter2"} {
		if _, _, err := FromEnv([]string{"TS_EXTRA_ARGS=" + args}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("FromEnv of TS_EXTRA_ARGS=%s gives %v, want an error that does not show the value", args, err)
		}
	}
	if c, _, err := FromEnv([]string{"TS_AUTHKEY=file:"}); err == nil {
		t.Errorf("FromEnv of a key file without a path = %v, want an error", c.Tailnet)
	}
	if _, _, err := FromEnv([]string{"TS_ROUTES=nowhere"}); err == nil || !strings.Contains(err.Error(), "TS_ROUTES") {
		t.Errorf("FromEnv of an invalid route gives %v, want an error about TS_ROUTES", err)
	}
	_, notes, err := FromEnv([]string{"TS_PROXY_PORT_1055_TCP_ADDR=10.0.0.1", "TS_NEW_THING=1", "TS_DEBUG_MTU=1300", "TS_EXTRA_ARGS=--netfilter-mode=off"})
	text := strings.Join(notes, "\n")
	if err != nil || !strings.Contains(text, "TS_NEW_THING is not known") || strings.Contains(text, "TS_DEBUG_MTU") || strings.Contains(text, "TS_PROXY") || !strings.Contains(text, "--netfilter-mode has no meaning") {
		t.Errorf("FromEnv gives the notes %q, error %v, want notes on TS_NEW_THING and --netfilter-mode alone", notes, err)
	}
}

// TestDeviceName checks the cases that the tests of
// tailscale.com/util/dnsname.SanitizeHostname have.
func TestDeviceName(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"space", " ", ""},
		{"valid", "egress-0", "egress-0"},
		{"upper", "OBERON", "oberon"},
		{"mixed", "Avery's iPhone 4(SE)", "averys-iphone-4se"},
		{"dotted", "mon.ipn.dev", "mon-ipn-dev"},
		{"underscore", "egress_prod", "egress-prod"},
		{"email", "admin@example.com", "admin-example-com"},
		{"boundary", ".bound.ary.", "bound-ary"},
		{"dashes", "-a-", "a"},
		{"foreign_letters", "größe", "gre"},
		{"no_text", "a\xffb", "ab"},
		{"local", "computer.local", "computer"},
		{"lan", "computer.lan", "computer"},
		{"overlong", strings.Repeat("test.", 20), "test-test-test-test-test-test-test-test-test-test-test-test-tes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := deviceName(c.in)
			if got != c.want {
				t.Errorf("deviceName(%q) = %q, want %q", c.in, got, c.want)
			}
			if got != "" && !names.IsLabel(got) {
				t.Errorf("deviceName(%q) = %q, which is not a valid label", c.in, got)
			}
		})
	}
	for env, want := range map[string]string{
		"TS_HOSTNAME=egress.prod":              `"egress.prod" is not valid; egress-prod is used instead`,
		"TS_EXTRA_ARGS=--hostname=egress_prod": `"egress_prod" is not valid; egress-prod is used instead`,
		"TS_HOSTNAME=...":                      `"..." has no letter and no digit`,
		"TS_HOSTNAME=egress-0":                 "",
	} {
		_, notes, err := FromEnv([]string{env})
		if err != nil || strings.Contains(strings.Join(notes, "\n"), "device name") != (want != "") || !strings.Contains(strings.Join(notes, "\n"), want) {
			t.Errorf("FromEnv(%s) gives the notes %q, error %v, want %q", env, notes, err, want)
		}
	}
}

// TestLoad checks that a file and PANDO_* win over TS_*, and the notes on the result.
func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pando.yaml")
	if err := os.WriteFile(file, []byte("log: {level: warn}\nlisten: {proxy: ':3128'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, notes, err := Load(file, []string{"TS_SOCKS5_SERVER=:1066", "TS_HOSTNAME=egress_0", "PANDO_POLICY_DIRECT=none"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen.Proxy != ":3128" || c.Log.Level != "warn" || c.Policy.Direct != "none" || c.Tailnet.Hostname != "egress-0" {
		t.Errorf("Load = %+v, want the values of the file and of PANDO_*", c)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "egress-0") {
		t.Errorf("notes %q, want one on the device name", notes)
	}
	_, notes, err = Load("", []string{"TS_AUTHKEY=x"})
	if text := strings.Join(notes, "\n"); err != nil || !strings.Contains(text, "policy.direct is public") || !strings.Contains(text, "listen on :1055") {
		t.Errorf("Load gives the notes %q, error %v, want notes on policy.direct and on the port", notes, err)
	}
	if _, _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil); err == nil {
		t.Error("Load of a missing file gives no error")
	}
	if _, _, err := Load(file, []string{"TS_USERSPACE=x", "PANDO_NONE=1"}); err == nil || !strings.HasPrefix(err.Error(), "TS_USERSPACE: ") {
		t.Errorf("Load gives the error %v, want that of TS_USERSPACE", err)
	}
}

// TestDetect checks which variables mean the stock container.
func TestDetect(t *testing.T) {
	for env, want := range map[string]bool{"TS_AUTHKEY=x": true, "TS_DEST_IP=x": true, "TS_DEBUG_MTU=1300": false, "PATH=/bin": false} {
		if got := Detect([]string{"HOME=/root", env}); got != want {
			t.Errorf("Detect(%s) = %v, want %v", env, got, want)
		}
	}
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func equal(t *testing.T, got, want config.Config) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", " ")
		w, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("got (secrets are hidden) %s\nwant %s", g, w)
	}
}
