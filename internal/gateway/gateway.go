// Package gateway builds a replica from its configuration, runs it and stops
// it. It wires the rooms together and holds no logic of its own.
package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pandoproxy/pando/internal/auth"
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
	Log     *slog.Logger   // nil discards
	Level   *slog.LevelVar // of Log, for log.level to change; nil if it can't
	Version string         // for the metrics and the status; empty means unknown

	// Load reads the configuration again: when a file of Files changes, or
	// something comes from Hangup (SIGHUP). Nil means that it never changes.
	Load   func() (config.Config, error)
	Files  []string
	Hangup <-chan os.Signal

	// ResolvConf and HostsFile are the pod's own resolver files; empty means
	// those of /etc.
	ResolvConf, HostsFile string
}

// Gateway is one replica.
type Gateway struct {
	cfg     config.Config // as it was at the start
	opts    Options
	started time.Time
	log     *slog.Logger
	proxy   []*net.TCPListener // at least one
	admin   []*net.TCPListener // none without an admin port
	ports   []port             // proxy, and the transparent fronts

	dnsPacket   net.PacketConn // nil without a DNS answerer
	dnsListener net.Listener

	joined chan struct{} // closed when secret and node are set
	secret *fleet.Secret // nil without a Kubernetes Secret
	node   *tailnet.Node

	road  *datapath.Road
	relay relay.Relay
	limit limit.Gate
	http  *httpproxy.Proxy
	web   []*httpproxy.Proxy // for clients that know of no proxy
	mux   *mux.Mux

	metrics  *metrics.Metrics
	warm     chan struct{} // closed when the tailnet is up and its tunnels are warm
	routed   chan struct{} // closed then, once the routes are there that should be, or were waited for
	draining atomic.Bool

	fleet     atomic.Pointer[fleetAddrs]
	users     atomic.Pointer[auth.Users] // who must give a password; never nil once somebody must
	sample    atomic.Int64               // one of so many flows that ended well is logged
	endedWell atomic.Int64
	reload    reload
	probes    probes
}

// New builds a replica from a valid configuration and binds its ports. Call
// Run next, which joins the tailnet, and closes what New opened.
func New(ctx context.Context, cfg config.Config, opts Options) (_ *Gateway, err error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{cfg: cfg, log: opts.Log, joined: make(chan struct{}), warm: make(chan struct{}), routed: make(chan struct{})}
	g.opts, g.reload.applied, g.started = opts, cfg, time.Now()
	g.reload.seen, _ = fingerprint(g.watched()) // without one, the file is read again
	g.sample.Store(int64(cfg.Log.Sample))
	users, err := loadUsers(cfg.Auth)
	if err != nil {
		return nil, err
	}
	var authenticate func(user, password string) bool
	if users != nil {
		g.users.Store(users)
		authenticate = func(user, password string) bool { return g.users.Load().Verify(user, password) }
	}
	// The port comes first: clients wait in its queue rather than be refused.
	if g.proxy, err = listen(ctx, cfg.Listen, time.Duration(cfg.Tunnel.PeerTimeout)); err != nil {
		return nil, err
	}
	if g.admin, err = listenAdmin(ctx, cfg.Listen); err != nil {
		closeAll(g.proxy)
		return nil, err
	}
	g.metrics = metrics.New(opts.Version, g.metricsState())
	g.limit.Refused = g.metrics.Refused
	g.limit.Set(limits(cfg.Limits))
	g.road = &datapath.Road{
		Ready:  g.ready,
		Routes: func(ctx context.Context, list []netip.Addr) []bool { return g.node.AwaitRoutes(ctx, list) },
		Resolver: resolve.New(resolve.Options{
			Hosts:       hosts(cfg.Resolve),
			Zones:       zones(cfg.Resolve),
			Served:      servedSuffixes(cfg.DNS),
			Tailnet:     g.tailnetDNS,
			QueryMagic:  g.queryMagicDNS,
			DialTailnet: g.dialResolver,
			DialGlobal:  g.dialGlobal,
			ResolvConf:  opts.ResolvConf, HostsFile: opts.HostsFile,
			Timeout: time.Duration(cfg.Resolve.Timeout),
			MinTTL:  time.Duration(cfg.Resolve.MinTTL), MaxTTL: time.Duration(cfg.Resolve.MaxTTL),
			Looked: g.metrics.Looked,
		}),
		Dialer:   &dial.Dialer{Tailnet: g.dialTailnet, Direct: direct(time.Duration(cfg.Tunnel.PeerTimeout)), Timeout: time.Duration(cfg.Dial.Timeout), Attempts: cfg.Dial.Attempts},
		Relay:    &g.relay,
		Limit:    &g.limit,
		Carrier:  g.carrierSays,
		Finished: g.finished,
	}
	g.road.SetPolicy(g.policy(cfg.Policy))
	g.http = g.newHTTP()
	g.http.Authenticate = authenticate
	socks := &socks5.Server{Road: g.road, Authenticate: authenticate}
	g.mux = &mux.Mux{HTTP: g.http, SOCKS5: socks, Enter: g.limit.Enter, Leave: g.limit.Leave, Silent: func() { g.metrics.Refused(limit.FirstByte) }, Log: opts.Log}
	for _, ln := range g.proxy {
		g.ports = append(g.ports, port{ln, mux.Role{}})
	}
	if err := g.listenTransparent(ctx); err != nil {
		g.closePorts()
		closeAll(g.admin)
		return nil, err
	}
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

// finished closes the books on a flow. Those that ended well are logged by
// sample, the others always.
func (g *Gateway) finished(rec *flow.Record) {
	g.metrics.Observe(rec)
	if n := g.sample.Load(); n > 1 && rec.Err == nil && rec.Report == "" && g.endedWell.Add(1)%n != 1 {
		return
	}
	g.log.Info("flow", "flow", rec)
}

// Run serves until ctx ends, and then drains. When cut ends, the drain is
// over at once. Nothing that the replica started is alive when Run returns,
// or the error says what is.
func (g *Gateway) Run(ctx, cut context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup // what goes on during a drain
	defer beside.Wait()
	defer stop()
	beside.Go(func() { g.endIdle(work) })
	serving, failed := errgroup.WithContext(work)
	for _, p := range g.ports {
		serving.Go(func() error { return g.mux.Serve(work, p.TCPListener, p.use) })
	}
	starting, stopStarting := context.WithCancel(work)
	defer stopStarting()
	serving.Go(func() error { return g.start(starting) })
	serving.Go(func() error { g.watchConfig(starting); return nil })
	serving.Go(func() error { g.upkeep(starting); return nil })
	serving.Go(func() error { g.followDNS(starting); return nil })
	serving.Go(func() error { g.followFleet(starting); return nil })
	serving.Go(func() error { g.probe(starting); return nil })
	if g.servesDNS() {
		serving.Go(func() error { return g.serveDNS(starting) })
	}
	closeAdmin := g.serveAdmin()
	g.log.Info("serving", "proxy", g.listening(), "mode", g.cfg.Tailnet.Mode)

	select {
	case <-ctx.Done():
	case <-cut.Done():
	case <-failed.Done(): // a part that can't go on: leave in good order
	}
	return g.drain(ctx, cut, drainParts{stop: stop, stopStarting: stopStarting, serving: serving, closeAdmin: closeAdmin, failed: failed.Err() != nil})
}

func (g *Gateway) listening() []string {
	var list []string
	for _, p := range g.ports {
		list = append(list, p.Addr().String())
	}
	return list
}

func (g *Gateway) closePorts() {
	for _, p := range g.ports {
		p.Close()
	}
}
