package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// IsStock reports whether environ is that of a pod made for the stock
// tailscale/tailscale container: it sets one of its variables.
func IsStock(environ []string) bool {
	return slices.ContainsFunc(environ, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return stockVars[name] != nil || stockRefused[name] != ""
	})
}

// FromStock reads the environment of the stock container, TS_*, as its
// containerboot does (tailscale.com/cmd/containerboot/settings.go), into what
// Default would be otherwise. notes are for the log: what differs from the
// stock container, and what was ignored. The error joins every mistake, each
// with its variable.
//
// It differs where the stock container hurts: TS_ACCEPT_DNS unset means true,
// routes are accepted without --accept-routes, and nobody on the tailnet may
// connect to the replica unless --shields-up=false says so.
func FromStock(environ []string) (c Config, notes []string, err error) {
	s := &stock{Config: Default(), env: map[string]string{}}
	s.Listen.Admin = ""
	s.Policy.Direct = "public"
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		s.env[name] = value
	}
	if s.env["KUBERNETES_SERVICE_HOST"] != "" {
		s.Tailnet.KubeSecret = "tailscale"
	}
	// In the order of the container: what stands in the arguments wins.
	for _, name := range stockOrder() {
		if value, ok := s.env[name]; ok {
			if err := stockVars[name](s, value); err != nil {
				s.errs = append(s.errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.env)) {
		value := s.env[name]
		switch off, err := strconv.ParseBool(value); {
		case value == "" || stockVars[name] != nil:
		case stockRefused[name] != "" && (err != nil || off):
			s.errs = append(s.errs, fmt.Errorf("%s: not supported; %s", name, stockRefused[name]))
		case stockRefused[name] == "" && strings.HasPrefix(name, "TS_") && !serviceVariable(name) && !slices.Contains(stockEngine, name) && !strings.HasPrefix(name, "TS_DEBUG_"):
			s.note("%s is not known and ignored", name)
		}
	}
	s.finish()
	return s.Config, s.notes, errors.Join(s.errs...)
}

// StockNotes say what of c, a configuration that began as FromStock's, its
// users may not expect.
func StockNotes(c Config) []string {
	var notes []string
	if c.Policy.Direct == "public" {
		notes = append(notes, "policy.direct is public, as users of the stock proxy expect: internet addresses are dialled through the pod's own network; PANDO_POLICY_DIRECT=none ends that")
	}
	if c.Listen.Proxy == Default().Listen.Proxy {
		notes = append(notes, "the proxies listen on "+c.Listen.Proxy+"; TS_OUTBOUND_HTTP_PROXY_LISTEN and TS_SOCKS5_SERVER say where else")
	}
	return notes
}

type stock struct {
	Config
	env     map[string]string
	proxies []string
	metrics bool
	health  bool
	notes   []string
	errs    []error
}

func (s *stock) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// stockOrder lists the variables that are honoured in the order in which they
// apply: the later ones win, except that TS_AUTHKEY goes before TS_AUTH_KEY.
func stockOrder() []string {
	last := []string{"TS_AUTH_KEY", "TS_AUTHKEY", "TS_TAILSCALED_EXTRA_ARGS", "TS_EXTRA_ARGS"}
	var names []string
	for name := range stockVars {
		if !slices.Contains(last, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return append(names, last...)
}

// stockVars are the variables that are honoured.
var stockVars map[string]func(s *stock, value string) error

func init() { // stockVars refers to itself through FromStock
	text := func(field func(*stock) *string) func(*stock, string) error {
		return func(s *stock, v string) error { *field(s) = v; return nil }
	}
	boolean := func(field func(*stock) *bool) func(*stock, string) error {
		return func(s *stock, v string) error {
			if v == "" {
				return nil
			}
			b, err := strconv.ParseBool(v)
			if err != nil {
				return fmt.Errorf("%q is neither true nor false", v)
			}
			*field(s) = b
			return nil
		}
	}
	proxy := func(s *stock, v string) error {
		if v != "" && !slices.ContainsFunc(s.proxies, func(p string) bool { return sameAddr(p, v) }) {
			s.proxies = append(s.proxies, v)
		}
		return nil
	}
	ignored := func(*stock, string) error { return nil }
	stockVars = map[string]func(*stock, string) error{
		"TS_AUTHKEY":  func(s *stock, v string) error { return s.key(v) },
		"TS_AUTH_KEY": func(s *stock, v string) error { return s.key(v) },
		"TS_CLIENT_SECRET": func(s *stock, v string) error {
			return setSecret(v, &s.Tailnet.ClientSecret, &s.Tailnet.ClientSecretFile)
		},
		"TS_HOSTNAME": text(func(s *stock) *string { return &s.Tailnet.Hostname }),
		"TS_USERSPACE": func(s *stock, v string) error {
			userspace := true
			err := boolean(func(*stock) *bool { return &userspace })(s, v)
			if !userspace {
				s.Tailnet.Mode = "kernel"
			}
			return err
		},
		"TS_KUBE_SECRET":                text(func(s *stock) *string { return &s.Tailnet.KubeSecret }),
		"TS_STATE_DIR":                  text(func(s *stock) *string { return &s.Tailnet.StateDir }),
		"TS_AUTH_ONCE":                  boolean(func(s *stock) *bool { return &s.Tailnet.AuthOnce }),
		"TS_ACCEPT_DNS":                 boolean(func(s *stock) *bool { return &s.Resolve.Tailnet }),
		"TS_ROUTES":                     (*stock).routes,
		"TS_EXTRA_ARGS":                 (*stock).upFlags,
		"TS_TAILSCALED_EXTRA_ARGS":      (*stock).daemonFlags,
		"TS_OUTBOUND_HTTP_PROXY_LISTEN": proxy,
		"TS_SOCKS5_SERVER":              proxy,
		"TS_LOCAL_ADDR_PORT":            ignored, // read by finish, as what it is for comes in other variables
		"TS_HEALTHCHECK_ADDR_PORT":      ignored,
		"TS_ENABLE_METRICS":             boolean(func(s *stock) *bool { return &s.metrics }),
		"TS_ENABLE_HEALTH_CHECK":        boolean(func(s *stock) *bool { return &s.health }),
		"TS_BOOT_TIMEOUT":               (*stock).bootTimeout,
		"TS_SOCKET":                     ignored, // there is no tailscaled to talk to
		"TS_DEBUG_ADDR_PORT":            ignored,
		"TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS": ignored,
		"TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV":  ignored, // always done
	}
}

const (
	useProxy    = "Pando is an egress proxy: point clients at its port and let them ask for the target by name or address"
	useTailnet  = "serve and ingress are not an egress proxy's work: keep the stock container for that"
	useOperator = "this belongs to the Tailscale Kubernetes operator, which configures its own proxies: Pando runs without it"
	useKeys     = "use TS_AUTHKEY, or TS_CLIENT_SECRET for an OAuth client"
)

var stockRefused = map[string]string{
	"TS_DEST_IP": useProxy, "TS_EXPERIMENTAL_DEST_DNS_NAME": useProxy,
	"TS_TAILNET_TARGET_IP": useProxy, "TS_TAILNET_TARGET_FQDN": useProxy,
	"TS_SERVE_CONFIG": useTailnet, "TS_EXPERIMENTAL_CERT_SHARE": useTailnet,
	"TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT": useTailnet,
	"TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR":       useOperator, "TS_EGRESS_PROXIES_CONFIG_PATH": useOperator,
	"TS_INGRESS_PROXIES_CONFIG_PATH": useOperator, "EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS": useOperator,
	"TS_CLIENT_ID": useKeys, "TS_ID_TOKEN": useKeys, "TS_AUDIENCE": useKeys,
}

// stockEngine are variables that the engine itself reads.
var stockEngine = []string{"TS_NO_LOGS_NO_SUPPORT", "TS_DISABLE_PORTMAPPER", "TS_FORCE_LINUX_BIND_TO_DEVICE", "TS_PERMIT_CERT_UID", "TS_TEST_ONLY_ROOT", "TS_TEST_FAKE_NETFILTER"}

func (s *stock) key(v string) error {
	if v == "" {
		return nil
	}
	s.Tailnet.AuthKey, s.Tailnet.AuthKeyFile = "", ""
	return setSecret(v, &s.Tailnet.AuthKey, &s.Tailnet.AuthKeyFile)
}

func setSecret(v string, value *Secret, file *string) error {
	path, ok := strings.CutPrefix(v, "file:")
	switch {
	case ok && path == "":
		return errors.New("file: without a path behind it")
	case ok:
		*file = path
	default:
		*value = Secret(v)
	}
	return nil
}

func (s *stock) routes(v string) error {
	s.Tailnet.AdvertiseRoutes = list(v)
	for _, r := range s.Tailnet.AdvertiseRoutes {
		if _, err := ParsePrefix(r); err != nil {
			return err
		}
	}
	return nil
}

func (s *stock) bootTimeout(v string) error {
	if v == "" {
		return nil
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		return fmt.Errorf("%q is no duration; write one such as 60s", v)
	}
	s.Tailnet.BootTimeout = Duration(d)
	return nil
}

// upFlags reads flags of "tailscale up".
func (s *stock) upFlags(v string) error {
	t := &s.Tailnet
	fs := flagSet("tailscale up")
	fs.BoolVar(&t.AcceptRoutes, "accept-routes", t.AcceptRoutes, "")
	fs.BoolVar(&s.Resolve.Tailnet, "accept-dns", s.Resolve.Tailnet, "")
	fs.BoolVar(&t.ShieldsUp, "shields-up", t.ShieldsUp, "")
	fs.StringVar(&t.ControlURL, "login-server", t.ControlURL, "")
	fs.StringVar(&t.Hostname, "hostname", t.Hostname, "")
	fs.Func("auth-key", "", s.key)
	fs.Func("authkey", "", s.key)
	fs.Func("client-secret", "", func(v string) error { return setSecret(v, &t.ClientSecret, &t.ClientSecretFile) })
	fs.Func("advertise-routes", "", s.routes)
	fs.Func("advertise-tags", "", func(v string) error {
		t.Tags = list(v)
		for i, tag := range t.Tags {
			if !strings.HasPrefix(tag, "tag:") {
				t.Tags[i] = "tag:" + tag
			}
		}
		return nil
	})
	ignoreFlags(fs, s, "timeout", "netfilter-mode", "operator", "accept-risk", "qr-format")
	ignoreBoolFlags(fs, s, "snat-subnet-routes", "stateful-filtering", "host-routes", "reset", "qr", "json")
	for name, instead := range map[string]string{
		"exit-node": "exit nodes are not used: let a subnet router carry the networks that you need",
		"client-id": useKeys, "id-token": useKeys, "audience": useKeys,
	} {
		fs.Func(name, "", func(v string) error {
			if v == "" {
				return nil
			}
			return errors.New(instead)
		})
	}
	for name, instead := range map[string]string{
		"exit-node-allow-lan-access": "exit nodes are not used", "advertise-exit-node": "Pando is no exit node",
		"advertise-connector": "Pando is no app connector", "ssh": "Pando runs no SSH server",
		"force-reauth": "delete the state Secret for a new device", "report-posture": "Pando reports no posture",
	} {
		fs.BoolFunc(name, "", func(v string) error {
			if on, err := strconv.ParseBool(v); err == nil && !on {
				return nil
			}
			return errors.New(instead)
		})
	}
	return parseFlags(fs, v)
}

// daemonFlags reads flags of tailscaled.
func (s *stock) daemonFlags(v string) error {
	t := &s.Tailnet
	fs := flagSet("tailscaled")
	fs.IntVar(&t.Port, "port", t.Port, "")
	fs.StringVar(&t.StateDir, "statedir", t.StateDir, "")
	fs.Func("tun", "", func(v string) error {
		if v == "userspace-networking" {
			t.Mode = "userspace"
		} else {
			t.Mode, t.TUN = "kernel", v
		}
		return nil
	})
	fs.Func("state", "", func(v string) error {
		name, kube := strings.CutPrefix(v, "kube:")
		switch {
		case kube:
			t.KubeSecret = name
		case v == "mem:":
			t.KubeSecret, t.StateDir = "", ""
		default:
			return errors.New("only kube:NAME and mem: are supported; use TS_STATE_DIR for a directory")
		}
		return nil
	})
	fs.Func("verbose", "", func(v string) error {
		if n, err := strconv.Atoi(v); err != nil {
			return errors.New("not a number")
		} else if n > 0 {
			s.Log.Level = "debug"
		}
		return nil
	})
	for _, name := range []string{"socks5-server", "outbound-http-proxy-listen"} {
		fs.Func(name, "", func(v string) error { return stockVars["TS_SOCKS5_SERVER"](s, v) })
	}
	ignoreFlags(fs, s, "debug", "socket")
	ignoreBoolFlags(fs, s, "no-logs-no-support")
	return parseFlags(fs, v)
}

func flagSet(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

func ignoreFlags(fs *flag.FlagSet, s *stock, names ...string) {
	for _, name := range names {
		fs.Func(name, "", func(string) error { s.note("--%s has no meaning here and is ignored", name); return nil })
	}
}

func ignoreBoolFlags(fs *flag.FlagSet, s *stock, names ...string) {
	for _, name := range names {
		fs.BoolFunc(name, "", func(string) error { s.note("--%s has no meaning here and is ignored", name); return nil })
	}
}

// flagValue is how package flag words a value that is wrong.
var flagValue = regexp.MustCompile(`(?s)^invalid (?:boolean )?value ".*" for (?:flag )?(-[^:]+): (.*)$`)

// parseFlags splits as containerboot does, at white space.
func parseFlags(fs *flag.FlagSet, v string) error {
	err := fs.Parse(strings.Fields(v))
	switch {
	case errors.Is(err, flag.ErrHelp):
		return errors.New("-help is no setting")
	case err != nil:
		// A value may be a secret: the flag and what is wrong are enough.
		text := err.Error()
		if m := flagValue.FindStringSubmatch(text); m != nil {
			text = "flag " + m[1] + ": " + m[2]
		}
		return fmt.Errorf("%s: %s", fs.Name(), strings.Replace(text, " -", " --", 1))
	case fs.NArg() > 0:
		return fmt.Errorf("%s: an argument without a flag, word %d; flags are separated by spaces, and a value by =", fs.Name(), len(strings.Fields(v))-fs.NArg()+1)
	}
	return nil
}

// finish settles what depends on more than one variable.
func (s *stock) finish() {
	t := &s.Tailnet
	if name := deviceName(t.Hostname); name == "" && t.Hostname != "" {
		s.note("the device name %q has no letter and no digit: the host's name stands in for it", t.Hostname)
		t.Hostname = ""
	} else if name != t.Hostname {
		s.note("the device name %q is made a valid one: %s", t.Hostname, name)
		t.Hostname = name
	}
	if t.KubeSecret != "" {
		t.StateDir = "" // the stock container keeps nothing of ours there then
	}
	t.Ephemeral = t.KubeSecret == "" && t.StateDir == "" // as a tailscaled with its state in memory
	if len(s.proxies) > 0 {
		s.Listen.Proxy, s.Listen.Also = s.proxies[0], s.proxies[1:]
	}
	old := s.env["TS_HEALTHCHECK_ADDR_PORT"]
	switch {
	case old != "" && s.health:
		s.errs = append(s.errs, errors.New("TS_HEALTHCHECK_ADDR_PORT: set together with TS_ENABLE_HEALTH_CHECK; keep that one, with TS_LOCAL_ADDR_PORT"))
	case s.metrics || s.health:
		s.Listen.Admin = s.localAddr()
		if old != "" && !sameAddr(old, s.Listen.Admin) {
			s.Listen.AdminAlso = []string{old}
		}
	case old != "":
		s.Listen.Admin = old
	}
}

// deviceName makes a host name a device's name, by the rule of Tailscale
// (tailscale.com/util/dnsname.SanitizeHostname), whose control server does it
// for the stock container. Empty means that nothing was left of it.
func deviceName(name string) string {
	for _, suffix := range []string{".local", ".localdomain", ".lan"} {
		name = strings.TrimSuffix(name, suffix)
	}
	name = name[:min(len(name), 63)]
	ends := func(r rune) bool { return !strings.ContainsRune(alphanumeric, r) }
	return strings.ToLower(strings.Map(func(r rune) rune {
		switch {
		case strings.ContainsRune(" .@_", r):
			return '-'
		case r != '-' && ends(r):
			return -1
		}
		return r
	}, strings.TrimFunc(name, ends)))
}

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// localAddr returns TS_LOCAL_ADDR_PORT. "$(POD_IP):9002" lacks the brackets
// when the pod speaks IPv6.
func (s *stock) localAddr() string {
	a := s.env["TS_LOCAL_ADDR_PORT"]
	if a == "" {
		return "[::]:9002"
	}
	for ip := range strings.SplitSeq(s.env["POD_IPS"]+","+s.env["POD_IP"], ",") {
		if port, ok := strings.CutPrefix(a, ip+":"); ok && strings.Contains(ip, ":") {
			return "[" + ip + "]:" + port
		}
	}
	return a
}

// sameAddr reports whether two variables mean one listen address.
func sameAddr(a, b string) bool {
	x := listenAddr(a)
	return a == b || x.IsValid() && x == listenAddr(b)
}

// list splits at commas; empty means none.
func list(v string) []string {
	var out []string
	for e := range strings.SplitSeq(v, ",") {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	return out
}
