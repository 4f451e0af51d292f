// Package stock reads the environment of the stock tailscale/tailscale container,
// TS_*, as its containerboot does (tailscale.com/cmd/containerboot/settings.go), and
// makes a configuration of it. With it Pando can run in place of that container,
// with the same manifest.
//
// It differs where the stock container causes trouble: TS_ACCEPT_DNS unset means
// true, routes are accepted without --accept-routes, and tailnet peers may not
// connect to the replica unless --shields-up=false is set. docs/stock.md lists all
// variables.
package stock

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pandoproxy/pando/internal/config"
)

// Detect reports whether environ, of the form of os.Environ, is meant for the stock
// container: it sets one of its variables.
func Detect(environ []string) bool {
	return slices.ContainsFunc(environ, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return newReader(nil).isVariable(name) || refused[name] != ""
	})
}

// Note is a sentence for the log on what was made of the variables.
type Note struct {
	Text string
	// Warning says that a person should look: a value was not understood, and another
	// one is used. Without it, the note says what differs from the stock container or
	// was ignored.
	Warning bool
}

// Load returns the configuration that TS_*, the file and PANDO_* make, in this
// order: the later ones win. An empty file name means no file. notes are for the log.
// For err, see config.Load; mistakes in TS_* are reported first, without the others.
func Load(file string, environ []string) (c config.Config, notes []Note, err error) {
	base, notes, err := FromEnv(environ)
	if err != nil {
		return base, notes, err
	}
	c, err = config.LoadOver(base, file, environ, nil)
	return c, append(notes, defaultNotes(c)...), err
}

// FromEnv returns the configuration that TS_* alone make. It is not validated. A
// boolean or a duration that cannot be read counts as not set, as in the stock
// container, and is noted with a warning. The error joins all other mistakes, each with
// its variable; with an error, the configuration must not be used.
func FromEnv(environ []string) (c config.Config, notes []Note, err error) {
	r := newReader(environ)
	for _, v := range r.variables() {
		if value, ok := r.env[v.name]; ok {
			if err := v.set(value); err != nil {
				r.errs = append(r.errs, fmt.Errorf("%s: %w", v.name, err))
			}
		}
	}
	r.others()
	r.finish()
	return r.cfg, r.notes, errors.Join(r.errs...)
}

// defaultNotes returns notes on what the users of c, a configuration that began as
// FromEnv's, may not expect.
func defaultNotes(c config.Config) []Note {
	var notes []Note
	add := func(text string) { notes = append(notes, Note{Text: text}) }
	if c.Policy.Direct == "public" {
		add("policy.direct is public, as in the stock proxy: internet addresses are dialled through the pod's own network; set PANDO_POLICY_DIRECT=none to refuse them")
	}
	if c.Listen.Proxy == config.Default().Listen.Proxy {
		add("the proxies listen on " + c.Listen.Proxy + "; set TS_OUTBOUND_HTTP_PROXY_LISTEN or TS_SOCKS5_SERVER to change that")
	}
	return notes
}

// reader makes a configuration from variables.
type reader struct {
	cfg     config.Config
	env     map[string]string
	proxies []string // listen addresses of the proxies
	metrics bool
	health  bool
	notes   []Note
	errs    []error
}

// newReader returns a reader that has not applied any variable yet.
func newReader(environ []string) *reader {
	r := &reader{cfg: config.Default(), env: map[string]string{}}
	r.cfg.Listen.Admin = ""
	r.cfg.Policy.Direct = "public"
	r.cfg.HTTP.OriginTLS = true
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		r.env[name] = value
	}
	if r.env["KUBERNETES_SERVICE_HOST"] != "" {
		r.cfg.Tailnet.KubeSecret = "tailscale"
	}
	return r
}

func (r *reader) note(format string, args ...any) {
	r.notes = append(r.notes, Note{Text: fmt.Sprintf(format, args...)})
}

func (r *reader) warn(format string, args ...any) {
	r.notes = append(r.notes, Note{Text: fmt.Sprintf(format, args...), Warning: true})
}

func (r *reader) isVariable(name string) bool {
	return slices.ContainsFunc(r.variables(), func(v variable) bool { return v.name == name })
}

// others looks at the variables that are set and not honoured: it refuses those that
// ask for something that Pando cannot do, and notes those that it does not know.
func (r *reader) others() {
	for _, name := range slices.Sorted(maps.Keys(r.env)) {
		value := r.env[name]
		switch {
		case value == "" || r.isVariable(name):
		case refused[name] != "":
			if r.asksFor(name, value) {
				r.errs = append(r.errs, fmt.Errorf("%s: not supported; %s", name, refused[name]))
			}
		case slices.Contains(engineBooleans, name):
			// The engine would end the process without a word when it reads the value.
			if _, err := strconv.ParseBool(value); err != nil {
				r.errs = append(r.errs, fmt.Errorf("%s: invalid value %q: write true or false", name, value))
			}
		case strings.HasPrefix(name, "TS_") && !config.ServiceVariable(name) && !isEngines(name):
			r.note("%s is not known and is ignored", name)
		}
	}
}

// asksFor reports whether the value of a refused variable asks for what the variable
// stands for.
func (r *reader) asksFor(name, value string) bool {
	on, err := strconv.ParseBool(value)
	if slices.Contains(refusedBooleans, name) {
		r.boolean(name, &on)(value)
		return on
	}
	return err != nil || on
}

// finish settles what depends on more than one variable.
func (r *reader) finish() {
	t := &r.cfg.Tailnet
	name := deviceName(t.Hostname)
	switch {
	case name == "" && t.Hostname != "":
		r.note("the device name %q has no letter and no digit; the host's name is used instead", t.Hostname)
	case name != t.Hostname:
		r.note("the device name %q is not valid; %s is used instead", t.Hostname, name)
	}
	t.Hostname = name
	if t.KubeSecret != "" {
		t.StateDir = "" // the stock container, too, keeps the device's keys in the Secret then
	}
	t.Ephemeral = t.KubeSecret == "" && t.StateDir == "" // as a tailscaled with its state in memory
	if len(r.proxies) > 0 {
		r.cfg.Listen.Proxy = r.proxies[0]
		r.cfg.Listen.Also = r.proxies[1:]
	}
	r.finishAdmin()
}

func (r *reader) finishAdmin() {
	listen := &r.cfg.Listen
	old := r.env["TS_HEALTHCHECK_ADDR_PORT"]
	switch {
	case old != "" && r.health:
		r.errs = append(r.errs, errors.New("TS_HEALTHCHECK_ADDR_PORT: set together with TS_ENABLE_HEALTH_CHECK; keep TS_ENABLE_HEALTH_CHECK, with TS_LOCAL_ADDR_PORT"))
	case r.metrics || r.health:
		listen.Admin = r.localAddr()
		if old != "" && !sameAddr(old, listen.Admin) {
			listen.AdminAlso = []string{old}
		}
	case old != "":
		listen.Admin = old
	}
}

// localAddr returns TS_LOCAL_ADDR_PORT, or its default. "$(POD_IP):9002" lacks the
// brackets if the pod's address is IPv6; localAddr adds them.
func (r *reader) localAddr() string {
	a := r.env["TS_LOCAL_ADDR_PORT"]
	if a == "" {
		return "[::]:9002"
	}
	for ip := range strings.SplitSeq(r.env["POD_IPS"]+","+r.env["POD_IP"], ",") {
		if port, ok := strings.CutPrefix(a, ip+":"); ok && strings.Contains(ip, ":") {
			return "[" + ip + "]:" + port
		}
	}
	return a
}

// sameAddr reports whether two variables name the same listen address.
func sameAddr(a, b string) bool {
	x := config.ParseListen(a)
	return a == b || x.IsValid() && x == config.ParseListen(b)
}

// deviceName turns a host name into a valid device name, by the rule of Tailscale
// (tailscale.com/util/dnsname.SanitizeHostname), which the control server applies
// for the stock container. It returns "" if nothing of the name is left.
func deviceName(name string) string {
	for _, suffix := range []string{".local", ".localdomain", ".lan"} {
		name = strings.TrimSuffix(name, suffix)
	}
	name = name[:min(len(name), 63)]
	isOther := func(r rune) bool { return !strings.ContainsRune(alphanumeric, r) }
	return strings.ToLower(strings.Map(func(r rune) rune {
		switch {
		case strings.ContainsRune(" .@_", r):
			return '-'
		case r != '-' && isOther(r):
			return -1
		}
		return r
	}, strings.TrimFunc(name, isOther)))
}

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
