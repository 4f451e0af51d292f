// Package gateway builds a replica from its configuration, runs it and stops
// it. It connects the other packages with one another. Its own are the order of
// start and drain, the conditions of readiness, what a reload of the
// configuration changes, and which addresses lead back to the replica itself.
//
// The order of things: New, which binds the ports; then Run, which joins the
// tailnet, serves, and drains when its context ends.
package gateway

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pandoproxy/pando/internal/auth"
	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/config/authorities"
	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/secure"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/target"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/mux"
	"github.com/pandoproxy/pando/internal/datapath/relay"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/datapath/socks"
	"github.com/pandoproxy/pando/internal/device"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/gateway/settings"
	"github.com/pandoproxy/pando/internal/memory"
	"github.com/pandoproxy/pando/internal/metrics"
	"github.com/pandoproxy/pando/internal/own"
	"github.com/pandoproxy/pando/internal/probe"
	"github.com/pandoproxy/pando/internal/watch"
)

// Options are what a replica needs besides its configuration.
type Options struct {
	Log     *slog.Logger   // nil discards
	Level   *slog.LevelVar // level of Log, which log.level changes; nil if it cannot change
	Version string         // for the metrics and the status; empty means unknown
	Environ []string       // as os.Environ returns it: its proxy variables are used; nil means none

	// Load reads the configuration again. It is called when one of Files has
	// changed, and for each value from Hangup (SIGHUP). When it returns an
	// error, the configuration is not used. Nil means that the configuration
	// never changes.
	Load   func() (config.Config, error)
	Files  []string
	Hangup <-chan os.Signal

	// ResolvConf and HostsFile are the pod's own resolver files. Empty means
	// those in /etc.
	ResolvConf string
	HostsFile  string
}

// Gateway is one replica.
type Gateway struct {
	cfg     config.Config // as it was at the start
	opts    Options
	log     *slog.Logger
	started time.Time

	device  *device.Device
	road    *datapath.Road
	proxies []*httpproxy.Proxy // that of the proxy port, then one for each of cfg.Web
	mux     *mux.Mux
	ports   *ports

	metrics  *metrics.Metrics
	finished *finishedFlows
	users    *auth.Guard // nil when clients need no password
	fleet    *own.Fleet
	prober   *probe.Prober
	watcher  *watch.Watcher
	reloads  reloads

	draining atomic.Bool
}

// New builds a replica from a valid configuration and binds its ports. Call
// Run next, which closes what New has opened.
func New(ctx context.Context, cfg config.Config, opts Options) (*Gateway, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{
		cfg:     cfg,
		opts:    opts,
		log:     opts.Log,
		started: time.Now(),
	}
	users, err := loadUsers(cfg.Auth)
	if err != nil {
		return nil, err
	}
	roots, err := authorities.Load(cfg.HTTP.CAFile)
	if err != nil {
		return nil, fmt.Errorf("http.caFile: %w", err)
	}
	g.reloads.applied = cfg
	// The parts below get functions that read fields of g which are still nil here,
	// such as g.road in FollowDNS and g.ports in the policy. So no constructor calls
	// them: only Run starts what does.
	g.watcher = g.newWatcher()
	g.metrics = metrics.New(opts.Version, g.metricsState())
	if users != nil {
		g.users = auth.NewGuard(users, func() { g.metrics.Refused(limit.Guesses) })
	}
	g.finished = newFinishedFlows(g.metrics, g.log, cfg.Log)
	g.device = g.newDevice()
	g.road = g.newRoad()
	g.fleet = own.NewFleet(cfg.DNS.Fleet, cfg.Listen.Replicas, g.road.Resolver.LookupPod, g.log)
	g.prober = g.newProber()
	g.proxies = newProxies(cfg, g.road, g.metrics)
	g.proxies[0].Authenticate = authenticator(g.users)
	if cfg.HTTP.OriginTLS {
		g.proxies[0].Secure = secure.New(roots)
	}
	g.mux = g.newMux()

	// The ports come last, so that there is nothing else to close after an error.
	// From here on a client waits in a port's queue until Run accepts it, where it
	// would be refused before.
	ports, err := g.openPorts(ctx)
	if err != nil {
		return nil, err
	}
	g.ports = ports
	return g, nil
}

func (g *Gateway) newDevice() *device.Device {
	return device.New(device.Options{
		Config:      g.cfg.Tailnet,
		PeerTimeout: time.Duration(g.cfg.Tunnel.PeerTimeout),
		UseDNS:      g.cfg.Resolve.Tailnet,
		FollowDNS:   func() { g.road.Resolver.Follow() },
		Proxy:       podProxy(g.cfg, g.opts, g.own),
		Log:         g.log,
	})
}

func (g *Gateway) newRoad() *datapath.Road {
	cfg := g.cfg
	gate := &limit.Gate{Refused: g.metrics.Refused, Memory: &limit.Budget{Refused: g.metrics.Refused}}
	gate.Set(settings.Limits(cfg.Limits))
	gate.Memory.Set(memory.Size(cfg.Limits.Memory))
	road := &datapath.Road{
		Ready:  g.device.Ready,
		Routes: g.device.AwaitRoutes,
		Resolver: resolve.New(resolve.Options{
			Hosts:       settings.Hosts(cfg.Resolve),
			Zones:       settings.Zones(cfg.Resolve),
			Served:      servedSuffixes(cfg.DNS),
			Tailnet:     g.device.DNS,
			QueryMagic:  g.device.QueryMagicDNS,
			DialTailnet: g.device.DialResolver,
			DialGlobal:  g.device.DialGlobal,
			ResolvConf:  g.opts.ResolvConf,
			HostsFile:   g.opts.HostsFile,
			Timeout:     time.Duration(cfg.Resolve.Timeout),
			MinTTL:      time.Duration(cfg.Resolve.MinTTL),
			MaxTTL:      time.Duration(cfg.Resolve.MaxTTL),
			Looked:      g.metrics.Looked,
			Enter:       limit.NewLookups(g.metrics.Refused, gate.Memory).Enter,
		}),
		Dialer: &dial.Dialer{
			Tailnet:  g.device.DialTailnet,
			Direct:   direct(time.Duration(cfg.Tunnel.PeerTimeout)),
			Timeout:  time.Duration(cfg.Dial.Timeout),
			Attempts: cfg.Dial.Attempts,
			Most:     func() int { return gate.Limits().Dials },
			Refused:  func() { g.metrics.Refused(limit.Target) },
		},
		Relay:       &relay.Relay{Account: gate.Memory.Add, Pace: gate.PaceBytes, Panicked: g.finished.panics.Caught},
		Limit:       gate,
		CarrierText: g.device.CarrierText,
		Finished:    g.finished.add,
	}
	road.SetPolicy(settings.Policy(&cfg, g.own))
	return road
}

// newProxies returns the proxy of the proxy port, and then one for each web
// port.
func newProxies(cfg config.Config, road *datapath.Road, m *metrics.Metrics) []*httpproxy.Proxy {
	list := []*httpproxy.Proxy{newProxy(cfg, road, m)}
	for _, p := range cfg.Web {
		web := newProxy(cfg, road, m)
		web.Road = served(road, cfg, p, 80)
		web.Front = flow.Web
		web.Target = target.ByHost(uint16(cmp.Or(p.Port, 80)))
		list = append(list, web)
	}
	return list
}

func newProxy(cfg config.Config, road *datapath.Road, m *metrics.Metrics) *httpproxy.Proxy {
	return &httpproxy.Proxy{
		Road:           road,
		Memory:         road.Limit.Memory,
		Pace:           road.Limit.PaceBytes,
		Name:           proxyName(cfg.Tailnet.Hostname),
		HeaderTimeout:  time.Duration(cfg.HTTP.HeaderTimeout),
		IdleTimeout:    time.Duration(cfg.HTTP.IdleTimeout),
		BodyTimeout:    time.Duration(cfg.HTTP.BodyTimeout),
		SilenceTimeout: time.Duration(cfg.Tunnel.IdleTimeout),
		MaxHeaderBytes: cfg.HTTP.MaxHeaderBytes,
		MaxHeaders:     cfg.HTTP.MaxHeaders,
		Reuse:          origin.Reuse(cfg.HTTP.Reuse),
		Released:       m.OriginReleased,

		DroppedTrailers: m.TrailersDropped,
	}
}

func (g *Gateway) newMux() *mux.Mux {
	return &mux.Mux{
		HTTP:   g.proxies[0],
		SOCKS5: &socks.Server{Road: g.road, Authenticate: authenticator(g.users)},
		SOCKS4: &socks.Server{Road: g.road, Authenticate: authenticator(g.users), Version4: true},
		Enter:  g.road.Limit.Enter,
		Leave:  g.road.Limit.Leave,
		Pace:   g.road.Limit.Pace,
		Answer: g.road.Limit.Answer,
		Silent: func() { g.metrics.Refused(limit.FirstByte) },
		Log:    g.log,

		EnterSender:   g.road.Limit.EnterSender,
		HeaderTimeout: time.Duration(g.cfg.HTTP.HeaderTimeout),
		Panicked:      g.finished.panics.Caught,
	}
}

func (g *Gateway) newKeeper() *memory.Keeper {
	k := &memory.Keeper{Gate: g.road.Limit, Log: g.log}
	k.Holders = append(k.Holders, g.road.Relay.Measure)
	for _, p := range g.proxies {
		k.Holders = append(k.Holders, p.Measure)
	}
	return k
}

func (g *Gateway) newProber() *probe.Prober {
	targets := map[string]config.Target{}
	for _, t := range g.cfg.Probe.Targets {
		targets[t.String()] = t
	}
	return &probe.Prober{
		Targets:   slices.Collect(maps.Keys(targets)),
		Interval:  time.Duration(g.cfg.Probe.Interval),
		Failures:  g.cfg.Probe.Failures,
		Successes: g.cfg.Probe.Successes,
		Ready:     g.device.Wait,
		Connect:   probeBy(g.road, targets),
		Log:       g.log,
	}
}

// Device is the replica's device on the tailnet.
func (g *Gateway) Device() *device.Device { return g.device }

// Addr is the address that the replica listens on.
func (g *Gateway) Addr() net.Addr { return g.ports.fronts[0].Addr() }

// AdminAddr is the address of the admin port; nil when there is none.
func (g *Gateway) AdminAddr() net.Addr {
	if len(g.ports.admin) == 0 {
		return nil
	}
	return g.ports.admin[0].Addr()
}

// Wait returns nil once the replica is on its tailnet with warm WireGuard sessions,
// while Run runs. When ctx ends first, the error says what the replica is waiting for.
func (g *Gateway) Wait(ctx context.Context) error { return g.device.Wait(ctx) }

// Run serves until ctx ends, or until a part of the replica fails, and then
// drains. When cut ends, the drain ends at once. Nothing that the replica started
// is alive when Run returns, or the error says what is. The error is otherwise
// that of the part that failed. It is nil when everything ended in order, even if
// work was cut.
func (g *Gateway) Run(ctx, cut context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	work = flow.WithPanics(work, g.finished.panics.Caught)
	var duringDrain sync.WaitGroup // what continues during the drain
	defer duringDrain.Wait()
	defer stop()
	duringDrain.Go(func() { g.newKeeper().Run(work) })
	duringDrain.Go(func() {
		g.road.Relay.Expire(work, time.Duration(g.cfg.Tunnel.IdleTimeout), time.Duration(g.cfg.Tunnel.MaxLife))
	})

	serving, failed := errgroup.WithContext(work)
	for _, p := range g.ports.fronts {
		serving.Go(func() error { return g.mux.Serve(work, p.TCPListener, p.role) })
	}
	beforeDrain, stopBeforeDrain := context.WithCancel(work)
	defer stopBeforeDrain()
	serving.Go(func() error { return g.device.Run(beforeDrain) })
	serving.Go(func() error { return g.serveDNS(beforeDrain) })
	for _, run := range []func(context.Context){g.watcher.Run, g.fleet.Follow, g.prober.Run} {
		serving.Go(func() error {
			run(beforeDrain)
			return nil
		})
	}
	closeAdmin := g.serveAdmin()
	g.log.Info("serving", "proxy", g.ports.addrs(), "mode", g.cfg.Tailnet.Mode)

	select {
	case <-ctx.Done():
	case <-cut.Done():
	case <-failed.Done(): // a part has ended with an error: stop the others in order
	}
	return g.drain(ctx, cut, drainParts{
		stop:            stop,
		stopBeforeDrain: stopBeforeDrain,
		serving:         serving,
		closeAdmin:      closeAdmin,
		failed:          failed.Err() != nil,
	})
}
