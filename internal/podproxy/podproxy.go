// Package podproxy chooses the HTTP proxy through which a replica itself reaches the
// control server, the relays and the OAuth service: the one that HTTPS_PROXY,
// HTTP_PROXY and NO_PROXY of its environment name, in upper or lower case. Flows of
// clients never use it. A proxy that leads back to the replica's own fleet is not used:
// the replica would need itself to join its tailnet.
//
// The order of things: New; Check, before the replica joins; Follow, while it runs.
package podproxy

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/pandoproxy/pando/internal/flow"
)

// followEvery is how often Follow looks at what the proxies' names lead to.
const followEvery = 30 * time.Second

// Options say which proxies there are, and what is known of the replica's own fleet.
type Options struct {
	// Environ is the environment of the process, of the form of os.Environ.
	Environ []string
	// Own reports whether a connection to an address leads back to this replica or to
	// its fleet. Nil means that none does.
	Own func(netip.AddrPort) bool
	// Fleet are addresses of the fleet, and names of them.
	Fleet []string
	// Name is this replica's name in the fields Via and Proxy-Status of its own proxy.
	Name string
	// Lookup returns the addresses of a name as the engine would look it up. Nil means
	// the resolver of the pod.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// HostsFile is the pod's own; empty means /etc/hosts.
	HostsFile string
	Log       *slog.Logger // nil discards
}

// Proxy chooses the proxy for a request of the replica itself. A nil *Proxy chooses
// none. Its methods may be called concurrently, except Check and Follow.
type Proxy struct {
	opts    Options
	log     *slog.Logger
	choose  func(*url.URL) (*url.URL, error)
	vars    map[string]*variable // by the scheme of the request
	faults  []fault
	checked bool        // Check has run
	looped  atomic.Bool // a replica of the own fleet has answered as the proxy
}

// variable is a variable that names a proxy.
type variable struct {
	name string   // as it is set: HTTPS_PROXY or https_proxy
	full *url.URL // with the user and the password
	bare *url.URL // without them, for what is logged
	own  atomic.Bool
}

// fault is a variable that cannot be used.
type fault struct {
	name string
	err  error
}

// New returns the proxies of the environment; nil if it has none.
func New(o Options) *Proxy {
	env := map[string]string{}
	for _, kv := range o.Environ {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = strings.TrimSpace(value)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{opts: o, log: o.Log, vars: map[string]*variable{}}
	var c httpproxy.Config
	_, c.NoProxy = lookup(env, "no_proxy")
	for scheme, into := range map[string]*string{"http": &c.HTTPProxy, "https": &c.HTTPSProxy} {
		name, value := lookup(env, scheme+"_proxy")
		if value == "" {
			continue
		}
		v, err := parse(name, value)
		if err != nil {
			p.faults = append(p.faults, fault{name, err})
			continue
		}
		p.vars[scheme] = v
		*into = v.full.String()
	}
	if len(p.vars)+len(p.faults) == 0 {
		return nil
	}
	p.choose = c.ProxyFunc()
	return p
}

// lookup returns a variable that is set in lower or in upper case, in this order, as
// the library does (golang.org/x/net/http/httpproxy).
func lookup(env map[string]string, lower string) (name, value string) {
	upper := strings.ToUpper(lower)
	if env[lower] != "" {
		return lower, env[lower]
	}
	return upper, env[upper]
}

// parse reads the URL of a proxy. Without a scheme it is http, as everywhere. The error
// does not show the value, which may hold a password.
func parse(name, value string) (*variable, error) {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("not a URL: write http://host:port, with user:password@ before the host if the proxy needs it")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the scheme is not supported: write the http:// or https:// URL of an HTTP proxy")
	}
	if n, err := strconv.ParseUint(port(u), 10, 16); err != nil || n == 0 {
		return nil, errors.New("the port is not valid: write http://host:port")
	}
	full := &url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host}
	return &variable{name: name, full: full, bare: &url.URL{Scheme: u.Scheme, Host: u.Host}}, nil
}

// port returns the port of a proxy.
func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// For returns the proxy for a request for u; nil means none. The result has the user
// and the password only for a request that is not encrypted: the others get them from
// Prepare or Authorization, because the engine logs the URLs of proxies.
func (p *Proxy) For(u *url.URL) (*url.URL, error) {
	if p == nil || p.looped.Load() {
		return nil, nil
	}
	found, err := p.choose(u)
	v := p.vars[u.Scheme]
	switch {
	case found == nil || err != nil || v == nil || v.own.Load():
		return nil, err
	case u.Scheme == "http":
		return v.full, nil
	}
	return v.bare, nil
}

// Authorization returns the value of Proxy-Authorization for a proxy that For has
// returned; empty means that it needs none.
func (p *Proxy) Authorization(proxy *url.URL) string {
	if p == nil {
		return ""
	}
	for _, v := range p.vars {
		if v.full.User != nil && *v.bare == (url.URL{Scheme: proxy.Scheme, Host: proxy.Host}) {
			password, _ := v.full.User.Password()
			return "Basic " + base64.StdEncoding.EncodeToString([]byte(v.full.User.Username()+":"+password))
		}
	}
	return ""
}

// Prepare sets what t sends to a proxy with a CONNECT, and has p look at the answers.
// The caller sets t.Proxy.
func (p *Proxy) Prepare(t *http.Transport) {
	if p == nil {
		return
	}
	t.GetProxyConnectHeader = func(_ context.Context, proxy *url.URL, _ string) (http.Header, error) {
		h := http.Header{}
		if p.opts.Name != "" {
			h.Set("Via", "1.1 "+p.opts.Name) // a replica refuses what has its own name
		}
		if v := p.Authorization(proxy); v != "" {
			h.Set("Proxy-Authorization", v)
		}
		return h, nil
	}
	t.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, _ *http.Request, res *http.Response) error {
		p.look(proxy, res)
		return nil
	}
}

// Transport returns a transport of the replica itself, which uses the proxy. The caller
// closes its idle connections.
func (p *Proxy) Transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = func(r *http.Request) (*url.URL, error) { return p.For(r.URL) }
	p.Prepare(t)
	return t
}

// Check finds out which proxies lead back to the own fleet, as far as that can be
// known, and logs what it finds when it is new. It takes a few seconds at most.
func (p *Proxy) Check(ctx context.Context) {
	if p == nil {
		return
	}
	if !p.checked {
		for _, f := range p.faults {
			p.log.Warn("proxy variable ignored", "variable", f.name, "err", f.err)
		}
	}
	know := p.newKnowledge(ctx)
	for _, scheme := range []string{"https", "http"} {
		v := p.vars[scheme]
		if v == nil {
			continue
		}
		own, sure := know.leadsBack(ctx, v.bare)
		if !sure {
			own = v.own.Load()
		}
		was := v.own.Swap(own)
		switch {
		case p.checked && was == own:
		case own:
			p.log.Warn("proxy variable leads back to this fleet", "variable", v.name, "proxy", v.bare.String(), "effect", "the replica connects without it")
		default:
			p.log.Info("reaching the control server through a proxy", "variable", v.name, "proxy", v.bare.String())
		}
	}
	p.checked = true
}

// Follow calls Check again and again until ctx ends.
func (p *Proxy) Follow(ctx context.Context) {
	if p == nil || len(p.vars) == 0 {
		return
	}
	for flow.Sleep(ctx.Done(), followEvery) {
		p.Check(ctx)
	}
}
