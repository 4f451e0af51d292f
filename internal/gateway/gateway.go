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
	"strings"
	"sync"
	"time"

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
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// Options are what a replica gets beside its configuration.
type Options struct {
	Log *slog.Logger // nil discards
	// ResolvConf and HostsFile are the pod's own resolver files; empty means
	// those of /etc.
	ResolvConf, HostsFile string
}

// Gateway is one replica.
type Gateway struct {
	cfg  config.Config
	log  *slog.Logger
	ln   *net.TCPListener
	node *tailnet.Node

	road  *datapath.Road
	relay relay.Relay
	http  *httpproxy.Proxy
	mux   *mux.Mux

	warm chan struct{} // closed when the tailnet is up and its tunnels are warm
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
	if g.ln, err = listen(ctx, cfg.Listen); err != nil {
		return nil, err
	}
	if g.node, err = join(ctx, cfg.Tailnet, opts.Log); err != nil {
		g.ln.Close()
		return nil, err
	}
	g.road = &datapath.Road{
		Ready:  g.ready,
		Routes: g.node.Routes,
		Resolver: resolve.New(resolve.Options{
			Hosts:       hosts(cfg.Resolve),
			Tailnet:     func() (resolve.TailnetDNS, bool) { d, ok := g.node.DNS(); return resolve.TailnetDNS(d), ok },
			QueryMagic:  g.node.QueryMagicDNS,
			DialTailnet: g.dialResolver,
			ResolvConf:  opts.ResolvConf, HostsFile: opts.HostsFile,
			Timeout: time.Duration(cfg.Resolve.Timeout),
			MinTTL:  time.Duration(cfg.Resolve.MinTTL), MaxTTL: time.Duration(cfg.Resolve.MaxTTL),
		}),
		Dialer: &dial.Dialer{Tailnet: g.node.DialTCP, Timeout: time.Duration(cfg.Dial.Timeout)},
		Relay:  &g.relay,
		Log:    opts.Log,
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
func (g *Gateway) Addr() net.Addr { return g.ln.Addr() }

// Run serves until ctx ends, and then drains. When cut ends, the drain is
// over at once. Nothing that the replica started is alive when Run returns,
// or the error says what is.
func (g *Gateway) Run(ctx, cut context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var serving sync.WaitGroup
	var serveErr error
	serving.Go(func() { serveErr = g.mux.Serve(work, g.ln) })
	starting, stopStarting := context.WithCancel(work)
	defer stopStarting()
	serving.Go(func() { g.warmUp(starting) })
	g.log.Info("serving", "proxy", g.ln.Addr().String(), "mode", g.cfg.Tailnet.Mode)

	select {
	case <-ctx.Done():
	case <-cut.Done():
	}
	// The drain, in its order. Its times are in the configuration, and the
	// chart's grace period is computed from them.
	//
	// 1. Settle: whoever sends us clients learns that we leave, and new
	//    connections are still served.
	g.log.Info("draining", "settle", g.cfg.Drain.Settle.String(), "timeout", g.cfg.Drain.Timeout.String(), "tunnels", g.relay.Active())
	sleep(cut, time.Duration(g.cfg.Drain.Settle))
	// 2. Close the port, and what has asked for nothing yet.
	stopStarting()
	g.ln.Close()
	serving.Wait()
	g.mux.Drain()
	g.http.Drain()
	// 3. Let work finish.
	patience, cancel := context.WithTimeout(cut, time.Duration(g.cfg.Drain.Timeout))
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
	// 5. Leave the tailnet.
	closeErr := g.node.Close()
	g.log.Info("stopped")
	return errors.Join(serveErr, waitErr, closeErr)
}

// warmTime bounds the warming of the tunnels: a route whose peer is down must
// not keep the others from being used. It leaves room for a second handshake.
const warmTime = 6 * time.Second

// warmUp waits for the tailnet and makes its first handshakes.
func (g *Gateway) warmUp(ctx context.Context) {
	if g.node.Wait(ctx) != nil {
		return // stopped before
	}
	ctx, cancel := context.WithTimeout(ctx, warmTime)
	defer cancel()
	start := time.Now()
	if err := g.node.Warm(ctx); err != nil {
		g.log.Warn("tunnels are not all warm", "err", err)
	}
	g.log.Info("on the tailnet", "name", g.node.Name(), "addrs", g.node.Addrs(), "warm_ms", time.Since(start).Milliseconds())
	close(g.warm)
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
	if err == nil && !g.node.Up() {
		err = tailnet.ErrNotUp
	}
	if err != nil {
		return &flow.Error{Class: flow.NotReady, Op: "tailnet", Hint: "the gateway is not on its tailnet; try again, and look at its log if it stays so", Err: err}
	}
	return nil
}

// dialResolver connects to a resolver of the tailnet, through the tunnel alone.
func (g *Gateway) dialResolver(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	if strings.HasPrefix(network, "udp") {
		return g.node.DialUDP(ctx, addr)
	}
	return g.node.DialTCP(ctx, addr)
}

// join starts the tailnet engine.
func join(ctx context.Context, c config.Tailnet, log *slog.Logger) (*tailnet.Node, error) {
	key, err := c.ReadAuthKey()
	if err != nil {
		return nil, err
	}
	store := tailnet.MemoryStore()
	if c.StateDir != "" {
		if store, err = tailnet.DirStore(c.StateDir); err != nil {
			return nil, fmt.Errorf("tailnet.stateDir: %w", err)
		}
	}
	return tailnet.Start(ctx, tailnet.Options{
		Mode: tailnet.Mode(c.Mode), Hostname: c.Hostname, ControlURL: c.ControlURL, AuthKey: key.Reveal(),
		Tags: c.Tags, Ephemeral: c.Ephemeral, IgnoreRoutes: !c.AcceptRoutes,
		Store: store, Port: uint16(c.Port), TUNName: c.TUN, Logger: log,
	})
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
	listen := g.ln.Addr().(*net.TCPAddr).AddrPort()
	if a.Port() != listen.Port() {
		return false
	}
	if ip := listen.Addr().Unmap(); !ip.IsUnspecified() {
		return a.Addr() == ip
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

// proxyName is the replica's name in Via: its own, so that a request that
// comes back is told from one that passes a second gateway.
func proxyName(hostname string) string {
	if hostname == "" {
		return "pando"
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
