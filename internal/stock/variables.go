package stock

import (
	"errors"
	"fmt"
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
		{"TS_ACCEPT_DNS", boolean(&r.cfg.Resolve.Tailnet)},
		{"TS_AUTH_ONCE", boolean(&t.AuthOnce)},
		{"TS_BOOT_TIMEOUT", r.bootTimeout},
		{"TS_CLIENT_SECRET", r.clientSecret},
		{"TS_DEBUG_ADDR_PORT", ignored},
		{"TS_ENABLE_HEALTH_CHECK", boolean(&r.health)},
		{"TS_ENABLE_METRICS", boolean(&r.metrics)},
		{"TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS", ignored},
		{"TS_HEALTHCHECK_ADDR_PORT", ignored}, // finish reads it: other variables say what it is for
		{"TS_HOSTNAME", text(&t.Hostname)},
		{"TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV", ignored}, // always done
		{"TS_KUBE_SECRET", text(&t.KubeSecret)},
		{"TS_LOCAL_ADDR_PORT", ignored}, // finish reads it, too
		{"TS_OUTBOUND_HTTP_PROXY_LISTEN", r.proxy},
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
	"TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT":              useTailnet,
	"TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR":                    useOperator,
	"TS_EGRESS_PROXIES_CONFIG_PATH":                           useOperator,
	"TS_INGRESS_PROXIES_CONFIG_PATH":                          useOperator,
	"EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS": useOperator,
	"TS_CLIENT_ID":                                            useKeys,
	"TS_ID_TOKEN":                                             useKeys,
	"TS_AUDIENCE":                                             useKeys,
}

// isEngines reports whether the engine itself reads the variable.
func isEngines(name string) bool {
	engine := []string{
		"TS_NO_LOGS_NO_SUPPORT",
		"TS_DISABLE_PORTMAPPER",
		"TS_FORCE_LINUX_BIND_TO_DEVICE",
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

// boolean leaves field as it is if the value is empty.
func boolean(field *bool) func(string) error {
	return func(v string) error {
		if v == "" {
			return nil
		}
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("invalid value %q: write true or false", v)
		}
		*field = b
		return nil
	}
}

func (r *reader) userspace(v string) error {
	userspace := true
	err := boolean(&userspace)(v)
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
	if v == "" {
		return nil
	}
	t := &r.cfg.Tailnet
	t.AuthKey = ""
	t.AuthKeyFile = ""
	return setSecret(v, &t.AuthKey, &t.AuthKeyFile)
}

func (r *reader) clientSecret(v string) error {
	return setSecret(v, &r.cfg.Tailnet.ClientSecret, &r.cfg.Tailnet.ClientSecretFile)
}

// setSecret sets value, or file if v has the form file:PATH.
func setSecret(v string, value *config.Secret, file *string) error {
	path, ok := strings.CutPrefix(v, "file:")
	switch {
	case ok && path == "":
		return errors.New("file: has no path; write file:PATH")
	case ok:
		*file = path
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
		return fmt.Errorf("invalid duration %q: write it with a unit, such as 60s", v)
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
