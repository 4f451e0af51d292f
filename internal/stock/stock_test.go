package stock

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
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
	want.HTTP.OriginTLS = true
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
		{"spellings_of_localhost", []string{"TS_OUTBOUND_HTTP_PROXY_LISTEN=localhost:1066", "TS_SOCKS5_SERVER=127.0.0.1:1066"}, func(c *config.Config) { c.Listen.Proxy = "localhost:1066" }},
		{"all_addresses_of_ipv6", []string{"TS_OUTBOUND_HTTP_PROXY_LISTEN=[::]:1066", "TS_SOCKS5_SERVER=0.0.0.0:1066"}, func(c *config.Config) { c.Listen.Proxy = "[::]:1066" }},
		{"verbosity", []string{"TS_LOG_VERBOSITY=2"}, func(c *config.Config) { c.Log.Level = "debug" }},
		{"advertisement_of_serve", []string{"TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT=true"}, func(c *config.Config) {}},
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
			want.HTTP.OriginTLS = true
			c.want(&want)
			want.Tailnet.Ephemeral = want.Tailnet.KubeSecret == "" && want.Tailnet.StateDir == ""
			if len(got.Listen.Also) == 0 {
				got.Listen.Also = nil
			}
			equal(t, got, want)
		})
	}
}

// TestLenient checks that a boolean or a duration which cannot be read counts as not
// set, as in the stock container (tailscale.com/util/def), and that a warning says so.
func TestLenient(t *testing.T) {
	const off = "so the default false is used"
	const on = "so the default true is used"
	for _, c := range []struct{ name, value, want string }{
		{"TS_USERSPACE", "perhaps", on},
		{"TS_USERSPACE", "no", on}, // the stock container runs in userspace mode then, too
		{"TS_USERSPACE", "false ", on},
		{"TS_USERSPACE", "false\n", on},
		{"TS_USERSPACE", `"false"`, on},
		{"TS_USERSPACE", "fALSE", on},
		{"TS_ACCEPT_DNS", "off", on},
		{"TS_ACCEPT_DNS", "2", on},
		{"TS_AUTH_ONCE", "yes", off},
		{"TS_ENABLE_METRICS", "on", off},
		{"TS_ENABLE_HEALTH_CHECK", "enabled", off},
		{"TS_EXPERIMENTAL_CERT_SHARE", "yes", off},
		{"EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS", "y", off},
		{"TS_BOOT_TIMEOUT", "60", "so there is no time limit"},
		{"TS_BOOT_TIMEOUT", "1 m", "so there is no time limit"},
		{"TS_BOOT_TIMEOUT", "never", "so there is no time limit"},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			got, notes, err := FromEnv([]string{c.name + "=" + c.value})
			if err != nil {
				t.Fatal(err)
			}
			unset, _, err := FromEnv(nil)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, got, unset)
			if len(notes) != 1 || !notes[0].Warning || !strings.HasPrefix(notes[0].Text, fmt.Sprintf("%s: %q is not a ", c.name, c.value)) || !strings.Contains(notes[0].Text, c.want) {
				t.Errorf("FromEnv gives the notes %+v, want one warning with %q", notes, c.want)
			}
		})
	}
	for value, want := range map[string]bool{"1": true, "t": true, "T": true, "TRUE": true, "true": true, "True": true, "0": false, "f": false, "F": false, "FALSE": false, "false": false, "False": false, "": false} {
		c, notes, err := FromEnv([]string{"TS_AUTH_ONCE=" + value})
		if err != nil || len(notes) > 0 || c.Tailnet.AuthOnce != want {
			t.Errorf("FromEnv(TS_AUTH_ONCE=%s) = %v, notes %v, %v; want %v without a note", value, c.Tailnet.AuthOnce, notes, err, want)
		}
	}
}

// TestKeysWithWhiteSpace checks that a key from each source is the key alone. Values
// from files and from kubectl create secret --from-file end with a newline.
func TestKeysWithWhiteSpace(t *testing.T) {
	const key = "tskey-auth-x"
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	yaml := filepath.Join(dir, "pando.yaml")
	for _, padded := range []string{key + "\n", key + "\r\n", "\n\t " + key + "  ", "\ufeff" + key + "\n", key + "\u00a0"} {
		if err := os.WriteFile(file, []byte(padded), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(yaml, fmt.Appendf(nil, "tailnet: {authKey: %q}\n", padded), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ config, env string }{
			{"", "TS_AUTHKEY=" + padded},
			{"", "TS_AUTH_KEY=" + padded},
			{"", "TS_AUTHKEY=file:" + file},
			{"", "TS_AUTHKEY= file:" + file + " \n"},
			{"", "TS_EXTRA_ARGS=--auth-key=" + key + "\n"},
			{"", "TS_EXTRA_ARGS=\n--authkey\t" + key + "\n--accept-routes\n"},
			{"", "TS_EXTRA_ARGS=--auth-key=file:" + file},
			{"", "PANDO_TAILNET_AUTH_KEY=" + padded},
			{"", "PANDO_TAILNET_AUTH_KEY_FILE=" + file},
			{yaml, "TS_AUTHKEY=\n"},
		} {
			got, _, err := Load(c.config, []string{c.env})
			if err != nil {
				t.Errorf("Load(%q, %q): %v", c.config, c.env, err)
				continue
			}
			if k, err := got.Tailnet.ReadAuthKey(); err != nil || k.Reveal() != key {
				t.Errorf("Load(%q, %q) has the key %q, %v; want %q", c.config, c.env, k.Reveal(), err, key)
			}
		}
		for _, env := range []string{"TS_CLIENT_SECRET=" + padded, "TS_CLIENT_SECRET=\tfile:" + file + "\n", "PANDO_TAILNET_CLIENT_SECRET=" + padded, "PANDO_TAILNET_CLIENT_SECRET_FILE=" + file} {
			got, _, err := Load("", []string{env, "TS_EXTRA_ARGS=--advertise-tags=tag:k8s"})
			if err != nil {
				t.Errorf("Load(%q): %v", env, err)
				continue
			}
			if k, err := got.Tailnet.ReadClientSecret(); err != nil || k.Reveal() != key {
				t.Errorf("Load(%q) has the secret %q, %v; want %q", env, k.Reveal(), err, key)
			}
		}
	}
	for _, env := range [][]string{
		{"TS_AUTHKEY=\n", "TS_AUTH_KEY=" + key},
		{"TS_AUTH_KEY=" + key, "TS_CLIENT_SECRET=\n"},
		{"TS_AUTH_KEY=" + key, "PANDO_TAILNET_CLIENT_SECRET= "},
	} {
		got, _, err := Load("", env)
		if err != nil || got.Tailnet.AuthKey.Reveal() != key {
			t.Errorf("Load(%q) has the key %q, %v; want %q: nothing but white space is not a key", env, got.Tailnet.AuthKey.Reveal(), err, key)
		}
	}
}

// TestAllOfStock checks that every variable that the stock container's own program
// reads is honoured, refused, or known to be the engine's.
func TestAllOfStock(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "tailscale.com").Output()
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "cmd", "containerboot", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	variable := regexp.MustCompile(`"((?:TS|EXPERIMENTAL)_[A-Z0-9_]+)"`)
	names := map[string]bool{}
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range variable.FindAllStringSubmatch(string(data), -1) {
			names[m[1]] = true
		}
	}
	if len(names) < 30 {
		t.Fatalf("found only the variables %v", names)
	}
	page, err := os.ReadFile("../../docs/stock.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range names {
		if !newReader(nil).isVariable(name) && refused[name] == "" && !isEngines(name) {
			t.Errorf("%s: the stock container reads it, and here it is not known", name)
		}
		if !isEngines(name) && !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("%s: docs/stock.md does not say what becomes of it", name)
		}
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
		{"TS_EXPERIMENTAL_CERT_SHARE=t", "TS_EXPERIMENTAL_CERT_SHARE: not supported; an egress proxy does not do serve and ingress"},
		{"TS_USE_CACHED_NETMAP=yes", `TS_USE_CACHED_NETMAP: invalid value "yes": write true or false`},
		{"TS_AUTHKEY=arn:aws:ssm:eu-west-1:1:parameter/key", "TS_AUTHKEY: the AWS Parameter Store is not supported; write the key itself"},
		{"TS_CLIENT_SECRET= file: \n", "TS_CLIENT_SECRET: file: has no path"},
		{"TS_LOG_VERBOSITY=high", "TS_LOG_VERBOSITY: not a number"},
		{"TS_EXTRA_ARGS=--accept-dns=yes", "TS_EXTRA_ARGS: tailscale up: flag --accept-dns: parse error"},
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
	text := joined(notes)
	if err != nil || !strings.Contains(text, "TS_NEW_THING is not known") || strings.Contains(text, "TS_DEBUG_MTU") || strings.Contains(text, "TS_PROXY") || !strings.Contains(text, "--netfilter-mode has no meaning") {
		t.Errorf("FromEnv gives the notes %v, error %v, want notes on TS_NEW_THING and --netfilter-mode alone", notes, err)
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
		if err != nil || strings.Contains(joined(notes), "device name") != (want != "") || !strings.Contains(joined(notes), want) {
			t.Errorf("FromEnv(%s) gives the notes %v, error %v, want %q", env, notes, err, want)
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
	if len(notes) != 1 || !strings.Contains(notes[0].Text, "egress-0") {
		t.Errorf("notes %v, want one on the device name", notes)
	}
	_, notes, err = Load("", []string{"TS_AUTHKEY=x"})
	if text := joined(notes); err != nil || !strings.Contains(text, "policy.direct is public") || !strings.Contains(text, "listen on :1055") {
		t.Errorf("Load gives the notes %v, error %v, want notes on policy.direct and on the port", notes, err)
	}
	if _, _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil); err == nil {
		t.Error("Load of a missing file gives no error")
	}
	if _, _, err := Load(file, []string{"TS_DEST_IP=x", "PANDO_NONE=1"}); err == nil || !strings.HasPrefix(err.Error(), "TS_DEST_IP: ") {
		t.Errorf("Load gives the error %v, want that of TS_DEST_IP", err)
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

func joined(notes []Note) string {
	var b strings.Builder
	for _, n := range notes {
		fmt.Fprintln(&b, n.Text)
	}
	return b.String()
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
