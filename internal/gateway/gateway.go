// Package gateway builds a replica from its configuration, runs it and stops
// it. It wires the rooms together and holds no logic of its own.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pandoproxy/pando/internal/admin"
	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/mux"
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
	cfg   config.Config
	log   *slog.Logger
	proxy []*net.TCPListener // at least one
	admin []*net.TCPListener // none without an admin port

	joined chan struct{} // closed when secret and node are set
	secret *fleet.Secret // nil without a Kubernetes Secret
	node   *tailnet.Node

	road  *datapath.Road
	relay relay.Relay
	limit limit.Gate
	http  *httpproxy.Proxy
	mux   *mux.Mux

	metrics  *metrics.Metrics
	warm     chan struct{} // closed when the tailnet is up and its tunnels are warm
	draining atomic.Bool
}

// New builds a replica from a valid configuration and binds its ports. Call
// Run next, which joins the tailnet, and closes what New opened.
func New(ctx context.Context, cfg config.Config, opts Options) (_ *Gateway, err error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{cfg: cfg, log: opts.Log, joined: make(chan struct{}), warm: make(chan struct{})}
	authenticate, err := authenticator(cfg.Auth)
	if err != nil {
		return nil, err
	}
	// The port comes first: clients wait in its queue rather than be refused.
	if g.proxy, err = listen(ctx, cfg.Listen, time.Duration(cfg.Tunnel.PeerTimeout)); err != nil {
		return nil, err
	}
	if g.admin, err = listenAdmin(ctx, cfg.Listen); err != nil {
		closeAll(g.proxy)
		return nil, err
	}
	g.metrics = metrics.New(opts.Version, metrics.State{
		Ready: g.isReady, Up: g.onTailnet, Draining: g.draining.Load, Tunnels: g.relay.Active,
	})
	g.limit.Set(limits(cfg.Limits))
	g.road = &datapath.Road{
		Ready:  g.ready,
		Routes: func(ctx context.Context, a netip.Addr) bool { return g.node.AwaitRoute(ctx, a) },
		Resolver: resolve.New(resolve.Options{
			Hosts:       hosts(cfg.Resolve),
			Tailnet:     g.tailnetDNS,
			QueryMagic:  g.queryMagicDNS,
			DialTailnet: g.dialResolver,
			ResolvConf:  opts.ResolvConf, HostsFile: opts.HostsFile,
			Timeout: time.Duration(cfg.Resolve.Timeout),
			MinTTL:  time.Duration(cfg.Resolve.MinTTL), MaxTTL: time.Duration(cfg.Resolve.MaxTTL),
		}),
		Dialer:   &dial.Dialer{Tailnet: g.dialTailnet, Direct: direct(time.Duration(cfg.Tunnel.PeerTimeout)), Timeout: time.Duration(cfg.Dial.Timeout), Attempts: cfg.Dial.Attempts},
		Relay:    &g.relay,
		Limit:    &g.limit,
		Carrier:  func(a netip.Addr) string { return g.node.Carrier(a) },
		Finished: g.finished,
	}
	g.road.SetPolicy(g.policy(cfg.Policy))
	g.http = &httpproxy.Proxy{
		Road: g.road, Name: proxyName(cfg.Tailnet.Hostname), Authenticate: authenticate,
		HeaderTimeout: time.Duration(cfg.HTTP.HeaderTimeout), IdleTimeout: time.Duration(cfg.HTTP.IdleTimeout),
		BodyTimeout: time.Duration(cfg.HTTP.BodyTimeout), SilenceTimeout: time.Duration(cfg.Tunnel.IdleTimeout),
		MaxHeaderBytes: cfg.HTTP.MaxHeaderBytes, MaxHeaders: cfg.HTTP.MaxHeaders,
	}
	socks := &socks5.Server{Road: g.road, Authenticate: authenticate}
	g.mux = &mux.Mux{HTTP: g.http, SOCKS5: socks, Enter: g.limit.Enter, Leave: g.limit.Leave, Log: opts.Log}
	return g, nil
}

// Node is the replica's device on the tailnet; nil until Wait has returned nil.
func (g *Gateway) Node() *tailnet.Node { return g.node }

// Addr is the address that the replica listens on.
func (g *Gateway) Addr() net.Addr { return g.proxy[0].Addr() }

// AdminAddr is the address of the admin port; nil when there is none.
func (g *Gateway) AdminAddr() net.Addr {
	if len(g.admin) == 0 {
		return nil
	}
	return g.admin[0].Addr()
}

// finished closes the books on a flow.
func (g *Gateway) finished(rec *flow.Record) {
	g.log.Info("flow", "flow", rec)
	g.metrics.Observe(rec)
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
	serving.Go(func() error { return g.start(starting) })
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
	begin, settle, longest := time.Now(), time.Duration(g.cfg.Drain.Settle), time.Duration(g.cfg.Drain.Settle+g.cfg.Drain.Timeout)
	if failed.Err() != nil && !g.hasJoined() {
		settle = 0 // nobody was served
	}
	g.log.Info("draining", "settle", settle.String(), "timeout", g.cfg.Drain.Timeout.String(), "tunnels", g.relay.Active())
	sleep(cut, settle)
	for time.Since(begin) < min(2*settle, longest) && g.mux.Quiet() < settle/5 && cut.Err() == nil {
		sleep(cut, settle/50)
	}
	// 2. Close the port, and what has asked for nothing yet.
	stopStarting()
	closeAll(g.proxy)
	serveErr := serving.Wait()
	g.mux.Drain()
	g.http.Drain()
	// 3. Let work finish.
	patience, cancel := context.WithDeadline(cut, begin.Add(longest))
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
	closeErr := g.leave(ctx)
	closeAdmin()
	g.log.Info("stopped")
	return errors.Join(serveErr, waitErr, closeErr)
}

// serveAdmin answers probes until the function that it returns is called.
func (g *Gateway) serveAdmin() (stop func()) {
	s := &admin.Server{Checks: g.checks, OnTailnet: g.onTailnet, Metrics: g.metrics.Handler()}
	var done sync.WaitGroup
	for _, ln := range g.admin {
		done.Go(func() {
			if err := s.Serve(ln); !errors.Is(err, net.ErrClosed) {
				g.log.Error("admin port ended", "err", err)
			}
		})
	}
	return func() { closeAll(g.admin); done.Wait() }
}

// checks are the conditions under which the replica should be sent clients.
// The control server is none of them: traffic goes on without it.
func (g *Gateway) checks() []admin.Check {
	list := []admin.Check{{Name: "tailnet"}, {Name: "tunnels"}, {Name: "not-draining"}}
	list[0].Err = g.tailnetErr()
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

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
