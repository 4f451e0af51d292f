// Package gateway builds a replica from its configuration, runs it and stops
// it. It wires the rooms together and holds no logic of its own.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pandoproxy/pando/internal/admin"
	"github.com/pandoproxy/pando/internal/auth"
	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/datapath/mux"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/relay"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/datapath/socks5"
	"github.com/pandoproxy/pando/internal/fleet"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/metrics"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// Options are what a replica gets beside its configuration.
type Options struct {
	Log     *slog.Logger // nil discards
	Version string       // for the metrics; empty means unknown
	// ResolvConf and HostsFile are the pod's own resolver files; empty means
	// those of /etc.
	ResolvConf, HostsFile string
}

// Gateway is one replica.
type Gateway struct {
	cfg    config.Config
	log    *slog.Logger
	proxy  []*net.TCPListener // at least one
	admin  *net.TCPListener   // nil without an admin port
	secret *fleet.Secret      // nil without a Kubernetes Secret
	node   *tailnet.Node

	road  *datapath.Road
	relay relay.Relay
	http  *httpproxy.Proxy
	mux   *mux.Mux

	metrics  *metrics.Metrics
	warm     chan struct{} // closed when the tailnet is up and its tunnels are warm
	draining atomic.Bool
}

// New builds a replica from a valid configuration: it binds the port and
// starts to join the tailnet. Call Run next, which also closes what New opened.
func New(ctx context.Context, cfg config.Config, opts Options) (_ *Gateway, err error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{cfg: cfg, log: opts.Log, warm: make(chan struct{})}
	authenticate, err := authenticator(cfg.Auth)
	if err != nil {
		return nil, err
	}
	// The port comes first: clients wait in its queue rather than be refused.
	if g.proxy, err = listen(ctx, cfg.Listen); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.release(ctx)
		}
	}()
	if cfg.Listen.Admin != "" {
		if g.admin, err = listenAt(ctx, "listen.admin", cfg.Listen.Admin, false); err != nil {
			return nil, err
		}
	}
	if g.node, err = g.join(ctx, cfg.Tailnet); err != nil {
		return nil, err
	}
	g.metrics = metrics.New(opts.Version, metrics.State{
		Ready: g.isReady, Up: g.node.Up, Draining: g.draining.Load, Tunnels: g.relay.Active,
	})
	g.road = &datapath.Road{
		Ready:  g.ready,
		Routes: g.node.AwaitRoute,
		Resolver: resolve.New(resolve.Options{
			Hosts:       hosts(cfg.Resolve),
			Tailnet:     g.tailnetDNS,
			QueryMagic:  g.node.QueryMagicDNS,
			DialTailnet: g.dialResolver,
			ResolvConf:  opts.ResolvConf, HostsFile: opts.HostsFile,
			Timeout: time.Duration(cfg.Resolve.Timeout),
			MinTTL:  time.Duration(cfg.Resolve.MinTTL), MaxTTL: time.Duration(cfg.Resolve.MaxTTL),
		}),
		Dialer:   &dial.Dialer{Tailnet: g.node.DialTCP, Timeout: time.Duration(cfg.Dial.Timeout)},
		Relay:    &g.relay,
		Finished: g.finished,
	}
	g.road.SetPolicy(g.policy(cfg.Policy))
	g.http = &httpproxy.Proxy{
		Road: g.road, Name: proxyName(cfg.Tailnet.Hostname), Authenticate: authenticate,
		HeaderTimeout: time.Duration(cfg.HTTP.HeaderTimeout), IdleTimeout: time.Duration(cfg.HTTP.IdleTimeout),
		MaxHeaderBytes: cfg.HTTP.MaxHeaderBytes,
	}
	socks := &socks5.Server{Road: g.road, Authenticate: authenticate}
	g.mux = &mux.Mux{HTTP: g.http.Serve, SOCKS5: socks.Serve, Log: opts.Log}
	return g, nil
}

// Node is the replica's device on the tailnet.
func (g *Gateway) Node() *tailnet.Node { return g.node }

// Addr is the address that the replica listens on.
func (g *Gateway) Addr() net.Addr { return g.proxy[0].Addr() }

// AdminAddr is the address of the admin port; nil when there is none.
func (g *Gateway) AdminAddr() net.Addr {
	if g.admin == nil {
		return nil
	}
	return g.admin.Addr()
}

// finished closes the books on a flow.
func (g *Gateway) finished(rec *flow.Record) {
	g.log.Info("flow", "flow", rec)
	g.metrics.Observe(rec)
}

// tailnetDNS is the tailnet's DNS configuration, as far as it is used.
func (g *Gateway) tailnetDNS() (resolve.TailnetDNS, bool) {
	d, ok := g.node.DNS()
	if !g.cfg.Resolve.Tailnet {
		d = tailnet.DNS{}
	}
	return resolve.TailnetDNS(d), ok
}

// release closes what New opened, before Run.
func (g *Gateway) release(ctx context.Context) {
	closeAll(g.proxy)
	if g.admin != nil {
		g.admin.Close()
	}
	if g.secret != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := g.secret.Close(ctx); err != nil {
			g.log.Warn("state not saved", "err", err)
		}
	}
}

// Run serves until ctx ends, and then drains. When cut ends, the drain is
// over at once. Nothing that the replica started is alive when Run returns,
// or the error says what is.
func (g *Gateway) Run(ctx, cut context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	serving, failed := errgroup.WithContext(work)
	for _, ln := range g.proxy {
		serving.Go(func() error { return g.mux.Serve(work, ln) })
	}
	starting, stopStarting := context.WithCancel(work)
	defer stopStarting()
	serving.Go(func() error { return g.warmUp(starting) })
	closeAdmin := g.serveAdmin()
	g.log.Info("serving", "proxy", g.listening(), "mode", g.cfg.Tailnet.Mode)

	select {
	case <-ctx.Done():
	case <-cut.Done():
	case <-failed.Done(): // a part that can't go on: leave in good order
	}
	// The drain, in its order. It takes settle and timeout together at most,
	// from which the chart computes the grace period.
	//
	// 1. Settle: whoever sends us clients learns that we leave, and new
	//    connections are still served; for twice as long while they still come.
	g.draining.Store(true)
	begin, settle := time.Now(), time.Duration(g.cfg.Drain.Settle)
	g.log.Info("draining", "settle", settle.String(), "timeout", g.cfg.Drain.Timeout.String(), "tunnels", g.relay.Active())
	sleep(cut, settle)
	for time.Since(begin) < 2*settle && g.mux.Quiet() < settle/5 && cut.Err() == nil {
		sleep(cut, settle/50)
	}
	// 2. Close the port, and what has asked for nothing yet.
	stopStarting()
	closeAll(g.proxy)
	serveErr := serving.Wait()
	g.mux.Drain()
	g.http.Drain()
	// 3. Let work finish.
	patience, cancel := context.WithDeadline(cut, begin.Add(settle+time.Duration(g.cfg.Drain.Timeout)))
	defer cancel()
	waitErr := errors.Join(g.mux.Wait(patience), g.relay.Wait(patience))
	// 4. Cut what is left, and say why.
	end, cancelEnd := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancelEnd()
	if waitErr != nil {
		tunnels := g.relay.Cut(end, "the gateway is shutting down and the drain time is over")
		g.http.Cut()
		stop()
		g.log.Warn("drain time is over", "tunnels_cut", tunnels)
	}
	waitErr = errors.Join(g.mux.Wait(end), g.relay.Wait(end))
	g.http.Close()
	// 5. Leave the tailnet, and keep what it will be found by again.
	closeErr := g.node.Close()
	if g.secret != nil {
		closeErr = errors.Join(closeErr, g.secret.Close(end))
	}
	closeAdmin()
	g.log.Info("stopped")
	return errors.Join(serveErr, waitErr, closeErr)
}

// serveAdmin answers probes until the function that it returns is called.
func (g *Gateway) serveAdmin() (stop func()) {
	if g.admin == nil {
		return func() {}
	}
	s := &admin.Server{Checks: g.checks, OnTailnet: g.node.Up, Metrics: g.metrics.Handler()}
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.Serve(g.admin); !errors.Is(err, net.ErrClosed) {
			g.log.Error("admin port ended", "err", err)
		}
	})
	return func() { g.admin.Close(); done.Wait() }
}

// checks are the conditions under which the replica should be sent clients.
// The control server is none of them: traffic goes on without it.
func (g *Gateway) checks() []admin.Check {
	list := []admin.Check{{Name: "tailnet"}, {Name: "tunnels"}, {Name: "not-draining"}}
	list[0].Err = g.node.Err()
	select {
	case <-g.warm:
	default:
		list[1].Err = errors.New("not warm yet")
	}
	if g.draining.Load() {
		list[2].Err = errors.New("the replica is leaving")
	}
	return list
}

func (g *Gateway) isReady() bool {
	return !slices.ContainsFunc(g.checks(), func(c admin.Check) bool { return c.Err != nil })
}

func (g *Gateway) listening() []string {
	var list []string
	for _, ln := range g.proxy {
		list = append(list, ln.Addr().String())
	}
	return list
}

// warmTime bounds the warming of the tunnels: a route whose peer is down must
// not keep the others from being used. It leaves room for a second handshake.
const warmTime = 6 * time.Second

// warmUp waits for the tailnet and makes its first handshakes. Its error ends
// the replica.
func (g *Gateway) warmUp(ctx context.Context) error {
	if t := time.Duration(g.cfg.Tailnet.BootTimeout); t > 0 {
		boot, cancel := context.WithTimeout(ctx, t)
		defer cancel()
		if err := g.node.Wait(boot); err != nil && ctx.Err() == nil {
			return fmt.Errorf("tailnet.bootTimeout: not on the tailnet after %v: %w", t, err)
		}
	}
	if g.node.Wait(ctx) != nil {
		return nil // stopped before
	}
	if g.secret != nil {
		g.secret.SetDevice(g.node.ID(), g.node.Name()+".", g.node.Addrs())
		if g.cfg.Tailnet.AuthOnce {
			g.secret.DropAuthKey()
		}
	}
	start := time.Now()
	g.awaitResolvers(ctx)
	ctx, cancel := context.WithTimeout(ctx, warmTime)
	defer cancel()
	if err := g.node.Warm(ctx); err != nil {
		g.log.Warn("tunnels are not all warm", "err", err)
	}
	g.log.Info("on the tailnet", "name", g.node.Name(), "addrs", g.node.Addrs(), "warm_ms", time.Since(start).Milliseconds())
	close(g.warm)
	return nil
}

// routeTime bounds the wait for the routes that a replica should find. A
// subnet router looks for a control server that was away every half minute.
const routeTime = time.Minute

// awaitResolvers waits for routes to the private resolvers that the tailnet's
// split DNS names: it means them to be there. A control server that has itself
// just started may not know yet that the subnet router is.
func (g *Gateway) awaitResolvers(ctx context.Context) {
	if !g.cfg.Tailnet.AcceptRoutes || !g.cfg.Resolve.Tailnet {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, routeTime)
	defer cancel()
	for missing := g.unroutedResolver(); missing.IsValid(); missing = g.unroutedResolver() {
		if ctx.Err() != nil {
			g.log.Warn("no peer routes a resolver of the tailnet's split DNS", "resolver", missing.String())
			return
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// unroutedResolver returns a private resolver of the tailnet that no peer
// routes; the zero Addr when there is none.
func (g *Gateway) unroutedResolver() netip.Addr {
	d, _ := g.node.DNS()
	for _, servers := range d.Routes {
		for _, s := range servers {
			ap, err := netip.ParseAddrPort(s)
			if a, aerr := netip.ParseAddr(s); aerr == nil {
				ap, err = netip.AddrPortFrom(a, 53), nil
			}
			if err == nil && ap.Addr().IsPrivate() && !g.node.Routes(ap.Addr()) {
				return ap.Addr()
			}
		}
	}
	return netip.Addr{}
}

// Wait returns nil once the replica is on its tailnet with warm tunnels, while
// it runs. The error says what it is waiting for.
func (g *Gateway) Wait(ctx context.Context) error {
	if err := g.node.Wait(ctx); err != nil {
		return err
	}
	select {
	case <-g.warm:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("warming tunnels: %w", ctx.Err())
	}
}

// ready lets a request wait for the tailnet, for a bounded time.
func (g *Gateway) ready(ctx context.Context) error {
	var err error
	select {
	case <-g.warm:
	default:
		wait, cancel := context.WithTimeout(ctx, time.Duration(g.cfg.Tailnet.StartTimeout))
		err = g.Wait(wait)
		cancel()
	}
	if err == nil {
		err = g.node.Err()
	}
	if err != nil {
		return &flow.Error{Class: flow.NotReady, Op: "tailnet", Hint: "the gateway is not on its tailnet; try again, and look at its log if it stays so", Err: err}
	}
	return nil
}

// dialResolver connects to a resolver of the tailnet, through the tunnel alone.
func (g *Gateway) dialResolver(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	g.node.AwaitRoute(ctx, addr.Addr()) // without one the dial says so
	if strings.HasPrefix(network, "udp") {
		return g.node.DialUDP(ctx, addr)
	}
	return g.node.DialTCP(ctx, addr)
}

// oauthSecret is what the secrets of OAuth clients begin with. They may stand
// wherever an auth key does, as with the stock client.
const oauthSecret = "tskey-client-"

// join starts the tailnet engine, with the state and the key that it needs.
func (g *Gateway) join(ctx context.Context, c config.Tailnet) (*tailnet.Node, error) {
	key, err := c.ReadAuthKey()
	if err != nil {
		return nil, err
	}
	o := tailnet.Options{
		Mode: tailnet.Mode(c.Mode), Hostname: c.Hostname, ControlURL: c.ControlURL, AuthKey: key.Reveal(),
		Tags: c.Tags, Ephemeral: c.Ephemeral, IgnoreRoutes: !c.AcceptRoutes, AdvertiseRoutes: prefixes(c.AdvertiseRoutes),
		ShieldsUp: c.ShieldsUp && len(c.AdvertiseRoutes) == 0, Port: uint16(c.Port), TUNName: c.TUN, Logger: g.log,
	}
	client, err := c.ReadClientSecret()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(o.AuthKey, oauthSecret) {
		client, o.AuthKey = key, ""
	}
	if client != "" {
		if len(c.Tags) == 0 {
			return nil, errors.New("tailnet.tags: an OAuth client mints keys for tags alone; give at least one, such as tag:k8s")
		}
		oauth, err := tailnet.NewOAuthClient(client.Reveal(), c.Tags)
		if err != nil {
			return nil, fmt.Errorf("tailnet.clientSecret: %w", err)
		}
		o.MintKey = oauth.Mint
	}
	switch {
	case c.KubeSecret != "":
		if g.secret, err = fleet.Open(ctx, c.KubeSecret, g.log); err != nil {
			return nil, fmt.Errorf("tailnet.kubeSecret: %w", err)
		}
		o.Store = g.secret
		if o.AuthKey == "" && o.MintKey == nil {
			o.AuthKey = g.secret.AuthKey()
		}
	case c.StateDir != "":
		if o.Store, err = tailnet.DirStore(c.StateDir); err != nil {
			return nil, fmt.Errorf("tailnet.stateDir: %w", err)
		}
	}
	return tailnet.Start(ctx, o)
}

// policy turns the configuration's policy, which is valid, into the one that judges.
func (g *Gateway) policy(c config.Policy) *policy.Policy {
	p := &policy.Policy{Direct: policy.Direct(c.Direct), Mode: policy.Mode(c.Mode), Own: g.own}
	for _, r := range c.Rules {
		rule := policy.Rule{Name: r.Name, From: prefixes(r.From), Prefixes: prefixes(r.Prefixes), Allow: r.Action == "allow"}
		for _, n := range r.Names {
			rule.Names = append(rule.Names, strings.ToLower(n))
		}
		for _, s := range r.Ports {
			first, last, _ := config.ParsePorts(s)
			rule.Ports = append(rule.Ports, policy.PortRange{First: first, Last: last})
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

func prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		p, _ := config.ParsePrefix(s)
		out = append(out, p)
	}
	return out
}

// own reports whether a is one of our listeners: our port, on an address of
// this host or on our tailnet address.
func (g *Gateway) own(a netip.AddrPort) bool {
	port := false
	for _, ln := range append([]*net.TCPListener{g.admin}, g.proxy...) {
		if ln == nil {
			continue
		}
		listen := ln.Addr().(*net.TCPAddr).AddrPort()
		if a.Port() != listen.Port() {
			continue
		}
		ip := listen.Addr().Unmap()
		if a.Addr() == ip {
			return true
		}
		port = port || ip.IsUnspecified()
	}
	if !port {
		return false
	}
	for _, own := range g.node.Addrs() {
		if a.Addr() == own {
			return true
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true // can't tell: our own port is not worth the risk of a loop
	}
	for _, i := range addrs {
		if n, ok := i.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a.Addr() {
				return true
			}
		}
	}
	return false
}

func hosts(c config.Resolve) map[string][]netip.Addr {
	m := map[string][]netip.Addr{}
	for name, list := range c.Hosts {
		for _, s := range list {
			a, _ := netip.ParseAddr(s)
			m[strings.ToLower(name)] = append(m[strings.ToLower(name)], a.Unmap())
		}
	}
	return m
}

func authenticator(c config.Auth) (func(user, password string) bool, error) {
	if c.UsersFile == "" {
		return nil, nil
	}
	users, err := auth.Load(c.UsersFile)
	if err != nil {
		return nil, fmt.Errorf("auth.usersFile: %w", err)
	}
	return users.Verify, nil
}

// proxyName is the replica's name in Via and Proxy-Status: its own, so that a
// request that comes back is told from one that passes a second gateway.
func proxyName(hostname string) string {
	if hostname == "" {
		hostname, _ = os.Hostname()
	}
	if hostname == "" || hostname[0] >= '0' && hostname[0] <= '9' { // a token of RFC 9651 begins with a letter
		return "pando-" + hostname
	}
	return hostname
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
