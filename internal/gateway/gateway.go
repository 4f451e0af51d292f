// Package gateway builds a replica from its configuration, runs it and stops
// it. It wires the rooms together and holds no logic of its own.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
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

// release closes what New opened, before Run.
func (g *Gateway) release(ctx context.Context) {
	closeAll(g.proxy)
	if g.admin != nil {
		g.admin.Close()
	}
	if err := g.closeSecret(ctx); err != nil {
		g.log.Warn("state not saved", "err", err)
	}
}

// closeSecret saves what is left of the device's state.
func (g *Gateway) closeSecret(ctx context.Context) error {
	if g.secret == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return g.secret.Close(ctx)
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
	closeErr = errors.Join(closeErr, g.closeSecret(ctx))
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

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
