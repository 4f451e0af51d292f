package stock

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/config/value"
)

// variable is a variable that is honoured, and what sets the configuration from its
// value.
type variable struct {
	name string
	set  func(value string) error
}

// variables lists the variables that are honoured, in the order in which they apply.
// The later ones win: TS_AUTHKEY over TS_AUTH_KEY, and flags over variables, as in
// the stock container.
func (r *reader) variables() []variable {
	t := &r.cfg.Tailnet
	return []variable{
		{"TS_ACCEPT_DNS", r.boolean("TS_ACCEPT_DNS", &r.cfg.Resolve.Tailnet)},
		{"TS_AUTH_ONCE", r.boolean("TS_AUTH_ONCE", &t.AuthOnce)},
		{"TS_BOOT_TIMEOUT", r.bootTimeout},
		{"TS_CLIENT_SECRET", r.clientSecret},
		{"TS_DEBUG_ADDR_PORT", ignored},
		{"TS_ENABLE_HEALTH_CHECK", r.boolean("TS_ENABLE_HEALTH_CHECK", &r.health)},
		{"TS_ENABLE_METRICS", r.boolean("TS_ENABLE_METRICS", &r.metrics)},
		{"TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS", ignored},
		{"TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT", ignored}, // of TS_SERVE_CONFIG, which is refused
		{"TS_HEALTHCHECK_ADDR_PORT", ignored},                   // finish reads it: other variables say what it is for
		{"TS_HOSTNAME", text(&t.Hostname)},
		{"TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV", ignored}, // always done
		{"TS_KUBE_SECRET", text(&t.KubeSecret)},
		{"TS_LOCAL_ADDR_PORT", ignored}, // finish reads it, too
		{"TS_LOGS_DIR", ignored},        // no logs are uploaded
		{"TS_LOG_TARGET", ignored},
		{"TS_LOG_VERBOSITY", r.verbose},
		{"TS_OUTBOUND_HTTP_PROXY_LISTEN", r.proxy},
		{"TS_PORTLIST", ignored}, // ports are not reported
		{"TS_ROUTES", r.routes},
		{"TS_SOCKET", ignored}, // there is no tailscaled to talk to
		{"TS_SOCKS5_SERVER", r.proxy},
		{"TS_STATE_DIR", text(&t.StateDir)},
		{"TS_USERSPACE", r.userspace},

		{"TS_AUTH_KEY", r.authKey},
		{"TS_AUTHKEY", r.authKey},
		{"TS_TAILSCALED_EXTRA_ARGS", r.daemonFlags},
		{"TS_EXTRA_ARGS", r.upFlags},
	}
}

const (
	useProxy    = "Pando is an egress proxy: point clients at its port; they ask for the target by name or address"
	useTailnet  = "an egress proxy does not do serve and ingress; keep the stock container for that"
	useOperator = "this belongs to the Tailscale Kubernetes operator, which configures its own proxies; Pando runs without it"
	useKeys     = "use TS_AUTHKEY, or TS_CLIENT_SECRET for an OAuth client"
)

// refused are the variables that ask for something that Pando cannot do, each with
// what to do instead.
var refused = map[string]string{
	"TS_DEST_IP":                                              useProxy,
	"TS_EXPERIMENTAL_DEST_DNS_NAME":                           useProxy,
	"TS_TAILNET_TARGET_IP":                                    useProxy,
	"TS_TAILNET_TARGET_FQDN":                                  useProxy,
	"TS_SERVE_CONFIG":                                         useTailnet,
	"TS_EXPERIMENTAL_CERT_SHARE":                              useTailnet,
	"TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR":                    useOperator,
	"TS_EGRESS_PROXIES_CONFIG_PATH":                           useOperator,
	"TS_INGRESS_PROXIES_CONFIG_PATH":                          useOperator,
	"EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS": useOperator,
	"TS_CLIENT_ID":                                            useKeys,
	"TS_ID_TOKEN":                                             useKeys,
	"TS_AUDIENCE":                                             useKeys,
}

// refusedBooleans are those of refused that are off unless they are true.
var refusedBooleans = []string{"TS_EXPERIMENTAL_CERT_SHARE", "EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS"}

// engineBooleans are booleans that the engine itself reads, once it runs.
var engineBooleans = []string{
	"TS_ASSUME_NETWORK_UP_FOR_TEST",
	"TS_DISABLE_SSH_SERVER",
	"TS_DISABLE_TAILDROP",
	"TS_NO_LOGS_NO_SUPPORT",
	"TS_PANIC_IF_HIT_MAIN_CONTROL",
	"TS_TUN_DISABLE_TCP_GRO",
	"TS_TUN_DISABLE_UDP_GRO",
	"TS_UNSAFE_SKIP_NKS_VERIFICATION",
	"TS_USE_CACHED_NETMAP",
	"TS_USE_CONTROL_DIAL_PLAN",
}

// isEngines reports whether the variable is one more that the engine itself reads. It
// reads most of them before this package does.
func isEngines(name string) bool {
	engine := []string{
		"TS_ALLOW_SELF_INGRESS",
		"TS_DISABLE_PORTMAPPER",
		"TS_DISABLE_UPNP",
		"TS_DISCO_PONG_IPV4_DELAY",
		"TS_DNS_FORWARD_SKIP_TCP_RETRY",
		"TS_ENABLE_RAW_DISCO",
		"TS_FORCE_LINUX_BIND_TO_DEVICE",
		"TS_FORCE_NOISE_443",
		"TS_NETSTACK_KEEPALIVE_IDLE",
		"TS_NETSTACK_KEEPALIVE_INTERVAL",
		"TS_PERMIT_CERT_UID",
		"TS_TEST_ONLY_ROOT",
		"TS_TEST_FAKE_NETFILTER",
	}
	return slices.Contains(engine, name) || strings.HasPrefix(name, "TS_DEBUG_")
}

func ignored(string) error { return nil }

func text(field *string) func(string) error {
	return func(v string) error {
		*field = v
		return nil
	}
}

// boolean leaves field as it is, which is the default, if the value is empty or not a
// boolean.
func (r *reader) boolean(name string, field *bool) func(string) error {
	return func(v string) error {
		if v == "" {
			return nil
		}
		b, err := strconv.ParseBool(v)
		if err != nil {
			r.warn("%s: %q is not a boolean, so the default %t is used, as in the stock container; write true or false", name, v, *field)
			return nil
		}
		*field = b
		return nil
	}
}

func (r *reader) userspace(v string) error {
	userspace := true
	err := r.boolean("TS_USERSPACE", &userspace)(v)
	if !userspace {
		r.cfg.Tailnet.Mode = "kernel"
	}
	return err
}

func (r *reader) proxy(v string) error {
	if v != "" && !slices.ContainsFunc(r.proxies, func(p string) bool { return sameAddr(p, v) }) {
		r.proxies = append(r.proxies, v)
	}
	return nil
}

func (r *reader) authKey(v string) error {
	if config.Secret(v).Reveal() == "" {
		return nil
	}
	return setSecret(v, &r.cfg.Tailnet.AuthKey, &r.cfg.Tailnet.AuthKeyFile)
}

func (r *reader) clientSecret(v string) error {
	return setSecret(v, &r.cfg.Tailnet.ClientSecret, &r.cfg.Tailnet.ClientSecretFile)
}

// setSecret sets value, or file if v has the form file:PATH, without the white space
// around them.
func setSecret(v string, value *config.Secret, file *string) error {
	v = config.Secret(v).Reveal()
	path, ok := strings.CutPrefix(v, "file:")
	path = strings.TrimSpace(path)
	*value = ""
	*file = ""
	switch {
	case ok && path == "":
		return errors.New("file: has no path; write file:PATH")
	case ok:
		*file = path
	case strings.HasPrefix(v, "arn:"):
		return errors.New("the AWS Parameter Store is not supported; write the key itself, or file:PATH")
	default:
		*value = config.Secret(v)
	}
	return nil
}

func (r *reader) routes(v string) error {
	r.cfg.Tailnet.AdvertiseRoutes = nil
	for _, s := range list(v) {
		p, err := value.ParsePrefix(s)
		if err != nil {
			return err
		}
		r.cfg.Tailnet.AdvertiseRoutes = append(r.cfg.Tailnet.AdvertiseRoutes, p)
	}
	return nil
}

func (r *reader) bootTimeout(v string) error {
	if v == "" {
		return nil
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		r.warn("TS_BOOT_TIMEOUT: %q is not a duration, so there is no time limit, as if it were not set; write it with a unit, such as 60s", v)
		return nil
	}
	r.cfg.Tailnet.BootTimeout = config.Duration(d)
	return nil
}

// list splits at commas; empty means none.
func list(v string) []string {
	var out []string
	for e := range strings.SplitSeq(v, ",") {
		e = strings.TrimSpace(e)
		if e != "" {
			out = append(out, e)
		}
	}
	return out
}
