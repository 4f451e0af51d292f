package gateway

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/admin"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/device"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/metrics"
	"github.com/pandoproxy/pando/internal/status"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// serveAdmin serves the admin port until the function that it returns is
// called.
func (g *Gateway) serveAdmin() (stop func()) {
	s := &admin.Server{
		Checks:    g.checks,
		OnTailnet: g.device.Up,
		Metrics:   g.metrics.Handler(func() (string, error) { return engineMetrics(g.device) }),
		Status:    g.status,
		Explain:   g.explainer(),
		Profiles:  g.cfg.Listen.Pprof,
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
	checks := g.checks()
	list, total := g.road.Flows(flows)
	device := g.device.Status()
	return status.Replica{
		Version:       g.opts.Version,
		Mode:          g.cfg.Tailnet.Mode,
		Started:       g.started,
		Listen:        g.ports.addrs(),
		Ready:         ready(checks),
		Checks:        checks,
		Configuration: g.reloads.state(),
		Tailnet:       deviceStatus(device, g.device.SessionsMended()),
		Peers:         peers(device),
		Zones:         g.zones(),
		Resolvers:     g.resolvers(),
		Limits:        limitStatus(g.road.Limit),
		FlowsTotal:    total,
		Flows:         append([]flow.Record{}, list...),
	}
}

func deviceStatus(t tailnet.Status, sessionsMended int64) status.Device {
	s := status.Device{
		ID:               t.ID,
		Name:             t.Name,
		Addrs:            t.Addrs,
		State:            t.State,
		Up:               t.Up,
		ControlConnected: t.Control,
		HomeRelay:        t.Home,
		Health:           t.Health,
		SessionsMended:   sessionsMended,
	}
	if !t.KeyExpiry.IsZero() {
		s.KeyExpiry = &t.KeyExpiry
	}
	if !t.HomeHeard.IsZero() {
		s.HomeHeard = &t.HomeHeard
	}
	if t.ClockAhead != nil {
		ahead := t.ClockAhead.Seconds()
		s.ClockAhead = &ahead
	}
	return s
}

func peers(t tailnet.Status) []status.Peer {
	list := []status.Peer{} // not nil: null in JSON
	for _, p := range t.Peers {
		list = append(list, peerStatus(p))
	}
	return list
}

func peerStatus(p tailnet.Peer) status.Peer {
	peer := status.Peer{
		Name:     p.Name,
		Addrs:    p.Addrs,
		Routes:   p.Routes,
		Online:   p.Online,
		Path:     p.Path.String(),
		Received: p.Rx,
		Sent:     p.Tx,
	}
	if !p.LastHandshake.IsZero() {
		peer.LastHandshake = &p.LastHandshake
	}
	return peer
}

// zones returns the zones with resolvers of their own, by suffix. It leaves out
// those of addresses, for which no client asks.
func (g *Gateway) zones() []status.Zone {
	list := []status.Zone{}
	for suffix, z := range g.road.Resolver.Zones() {
		if !strings.HasSuffix(suffix, ".arpa") {
			list = append(list, status.Zone{Suffix: suffix, Resolvers: z.Servers})
		}
	}
	slices.SortFunc(list, func(a, b status.Zone) int { return strings.Compare(a.Suffix, b.Suffix) })
	return list
}

func (g *Gateway) resolvers() []status.Resolver {
	list := []status.Resolver{}
	for _, h := range g.road.Resolver.Health() {
		list = append(list, status.Resolver(h))
	}
	return list
}

func limitStatus(gate *limit.Gate) []status.Limit {
	connections, clients := gate.Connections()
	limits := gate.Limits()
	return []status.Limit{
		{
			Name: string(limit.Connections),
			Now:  connections,
			Most: limits.Connections,
		},
		{
			Name: string(limit.PerClient),
			Now:  clients,
			Most: limits.PerClient,
			Note: "now: number of clients",
		},
		{
			Name: string(limit.Dials),
			Now:  gate.Dials(),
			Most: limits.Dials,
		},
	}
}

// metricsState returns the functions that the metrics call at each scrape.
func (g *Gateway) metricsState() metrics.State {
	return metrics.State{
		Ready:         func() bool { return ready(g.checks()) },
		Draining:      g.draining.Load,
		RestartNeeded: g.reloads.restartNeeded,
		Tunnels:       func() int { return g.road.Relay.Active() },
		Connections:   func() (int, int) { return g.road.Limit.Connections() },
		Dials:         func() int { return g.road.Limit.Dials() },
		Flows:         func() map[string]int { return g.road.Active() },
		ProbesFailing: func() int { return g.prober.Failing() },
		Tailnet:       func() metrics.Tailnet { return tailnetMetrics(g.device) },
	}
}

func tailnetMetrics(d *device.Device) metrics.Tailnet {
	t := d.Status()
	m := metrics.Tailnet{
		Up:             t.Up,
		Control:        t.Control,
		KeyExpiry:      t.KeyExpiry,
		SessionsMended: d.SessionsMended(),
		Peers:          len(t.Peers),
	}
	for _, p := range t.Peers {
		if len(p.Routes) == 0 {
			continue
		}
		m.Routes += len(p.Routes)
		switch p.Path.Kind {
		case tailnet.Direct:
			m.Direct++
		case tailnet.Relay:
			m.Relayed++
		default:
			m.Unused++
		}
		if age := time.Since(p.LastHandshake); !p.LastHandshake.IsZero() && p.Online && age > m.HandshakeAge {
			m.HandshakeAge = age
		}
	}
	return m
}

// engineMetrics returns the engine's own metrics; empty before it runs.
func engineMetrics(d *device.Device) (string, error) {
	var b strings.Builder
	if err := d.WriteMetrics(&b); err != nil {
		return "", fmt.Errorf("engine metrics: %w", err)
	}
	return b.String(), nil
}
