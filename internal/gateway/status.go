package gateway

import (
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/admin"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/metrics"
	"github.com/pandoproxy/pando/internal/probe"
	"github.com/pandoproxy/pando/internal/status"
)

// gatherEvery is the shortest time between two gatherings of the metrics. A test
// changes it.
var gatherEvery = time.Second

// serveAdmin serves the admin port until the function that it returns is
// called.
func (g *Gateway) serveAdmin() (stop func()) {
	s := &admin.Server{
		Checks:    func() []status.Check { return g.look().publicChecks() },
		OnTailnet: g.device.Up,
		Metrics:   g.metrics.Handler(g.device.EngineMetrics, gatherEvery),
		Status:    g.status,
		Explain:   g.explainer(),
		Profiles:  g.cfg.Listen.Pprof,
		Panicked:  g.finished.panics.Caught,
	}
	var done sync.WaitGroup
	for _, ln := range g.ports.admin {
		done.Go(func() {
			if err := s.Serve(ln); !errors.Is(err, net.ErrClosed) {
				g.log.Error("admin port failed", "err", err)
			}
		})
	}
	return func() {
		g.ports.closeAdmin()
		done.Wait()
	}
}

// status returns the state of the replica, with at most the given number of
// flows.
func (g *Gateway) status(flows int) status.Replica {
	now := g.look()
	device, peers := now.device.Report()
	list, total := g.road.Flows(flows)
	return status.Replica{
		Version:       g.opts.Version,
		Mode:          g.cfg.Tailnet.Mode,
		Started:       g.started,
		Listen:        g.ports.addrs(),
		Ready:         ready(now.checks),
		Checks:        now.checks,
		Configuration: now.configuration,
		Tailnet:       device,
		Peers:         peers,
		Zones:         zoneStatus(g.road.Resolver),
		Resolvers:     resolverStatus(g.road.Resolver),
		Limits:        limitStatus(g.road.Limit),
		FlowsTotal:    total,
		Flows:         append([]flow.Record{}, list...),
	}
}

// zoneStatus returns the zones with resolvers of their own, by suffix. It leaves
// out the zones of addresses: no client asks for them.
func zoneStatus(r *resolve.Resolver) []status.Zone {
	list := []status.Zone{}
	for suffix, z := range r.Zones() {
		if !strings.HasSuffix(suffix, ".arpa") {
			list = append(list, status.Zone{Suffix: suffix, Resolvers: z.Servers})
		}
	}
	slices.SortFunc(list, func(a, b status.Zone) int { return strings.Compare(a.Suffix, b.Suffix) })
	return list
}

func resolverStatus(r *resolve.Resolver) []status.Resolver {
	list := []status.Resolver{}
	for _, h := range r.Health() {
		list = append(list, status.Resolver(h))
	}
	return list
}

func limitStatus(gate *limit.Gate) []status.Limit {
	connections, clients := gate.Connections()
	limits := gate.Limits()
	use := gate.Memory.Use()
	return []status.Limit{
		{Name: string(limit.Connections), Now: connections, Most: limits.Connections},
		{
			Name: string(limit.PerClient),
			Now:  clients,
			Most: limits.PerClient,
			Note: "now: number of clients",
		},
		{Name: string(limit.Dials), Now: gate.Dials(), Most: limits.Dials},
		{
			Name: string(limit.Memory),
			Now:  int(use.Held >> 20),
			Most: int(use.Whole >> 20),
			Note: "MiB held for clients",
		},
	}
}

// metricsState returns the functions that the metrics call at each scrape.
func (g *Gateway) metricsState() metrics.State {
	return metrics.State{
		Readiness: func() (bool, int) {
			checks := g.checks()
			return ready(checks), probe.Failing(checks)
		},
		Draining:      g.draining.Load,
		RestartNeeded: g.reloads.restartNeeded,
		Tunnels:       func() int { return g.road.Relay.Active() },
		Connections:   func() (int, int) { return g.road.Limit.Connections() },
		Dials:         func() int { return g.road.Limit.Dials() },
		Memory: func() (int64, int64) {
			use := g.road.Limit.Memory.Use()
			return use.Held, use.Whole
		},
		Flows:   func() map[string]int { return g.road.Active() },
		Tailnet: func() metrics.Tailnet { return g.device.Metrics() },
	}
}
