package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/admin"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/metrics"
	"github.com/pandoproxy/pando/internal/status"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// upkeepEvery is how often the slow things are looked at.
const upkeepEvery = time.Minute

// expiryWarning is how long before the device's key expires the log warns, once
// a day.
const expiryWarning = 14 * 24 * time.Hour

// endIdle ends idle tunnels, until ctx ends.
func (g *Gateway) endIdle(ctx context.Context) {
	idle := time.Duration(g.cfg.Tunnel.IdleTimeout)
	for idle > 0 && ctx.Err() == nil {
		g.relay.EndIdle(idle, time.Now())
		sleep(ctx, max(min(upkeepEvery, idle/4), 10*time.Millisecond))
	}
}

// upkeep looks after what changes slowly, from when the replica has joined until
// ctx ends: who this device is, and the end of its key.
func (g *Gateway) upkeep(ctx context.Context) {
	select {
	case <-g.warm:
	case <-ctx.Done():
	}
	var warned time.Time
	for ; ctx.Err() == nil; sleep(ctx, upkeepEvery) {
		if !g.onTailnet() {
			continue
		}
		g.saveDevice()
		if e := g.node.Status().KeyExpiry; !e.IsZero() && time.Until(e) < expiryWarning && time.Since(warned) > 24*time.Hour {
			warned = time.Now()
			g.log.Warn("the device's key expires: it will log in again with its auth key, if that is good by then; or disable key expiry for this device", "at", e.UTC().Format(time.RFC3339), "in", time.Until(e).Round(time.Hour).String())
		}
	}
}

// saveDevice writes who this device is into its Secret, if it has one.
func (g *Gateway) saveDevice() {
	if g.secret != nil {
		g.secret.SetDevice(g.node.ID(), g.node.Name()+".", g.node.Addrs())
	}
}

// serveAdmin answers probes until the function that it returns is called.
func (g *Gateway) serveAdmin() (stop func()) {
	s := &admin.Server{
		Checks: g.checks, OnTailnet: g.onTailnet, Metrics: g.metrics.Handler(g.writeEngineMetrics),
		Status: g.status, Explain: g.explainer(), Profiles: g.cfg.Listen.Pprof,
	}
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
func (g *Gateway) checks() []status.Check {
	list := []status.Check{{Name: status.OnTailnet, Err: g.tailnetErr()}, {Name: "tunnels"}, {Name: status.NotDraining}, {Name: "configuration", Note: g.configState()}, {Name: "routes", Note: g.missingRoute()}}
	if list[0].Err == nil && !g.node.Status().Control {
		list[0].Note = "the control server is away; what is known goes on"
	}
	select {
	case <-g.warm:
	default:
		list[1].Err = errors.New("not warm yet")
	}
	select {
	case <-g.routed:
	default: // it is waited for
		if routes := &list[4]; list[1].Err == nil && routes.Note != "" {
			routes.Err = errors.New(routes.Note)
		} else if list[1].Err == nil {
			list[1].Err = errors.New("not warm yet: routes came late")
		}
	}
	if g.draining.Load() {
		list[2].Err = errors.New("the replica is leaving")
	}
	return append(list, g.probeChecks()...)
}

// missingRoute says which resolver of the tailnet nobody routes; empty when each
// is routed.
func (g *Gateway) missingRoute() string {
	if !g.onTailnet() || !g.cfg.Tailnet.AcceptRoutes || !g.cfg.Resolve.Tailnet {
		return ""
	}
	if a := g.unroutedResolver(); a.IsValid() {
		return fmt.Sprintf("no peer routes %v, a resolver of the tailnet's split DNS", a)
	}
	return ""
}

func (g *Gateway) isReady() bool {
	return !slices.ContainsFunc(g.checks(), func(c status.Check) bool { return c.Err != nil })
}

// status is everything that a person asks of a replica; at most so many flows.
func (g *Gateway) status(flows int) status.Replica {
	list, total := g.road.Flows(flows)
	connections, clients := g.limit.Connections()
	limits := g.limit.Limits()
	s := status.Replica{
		Version: g.opts.Version, Mode: g.cfg.Tailnet.Mode, Started: g.started, Listen: g.listening(),
		Ready: g.isReady(), Checks: g.checks(), Configuration: g.configState(),
		Limits: []status.Limit{
			{Name: string(limit.Connections), Now: connections, Most: limits.Connections},
			{Name: string(limit.PerClient), Now: clients, Most: limits.PerClient, Note: "now: how many clients there are"},
			{Name: string(limit.Dials), Now: g.limit.Dials(), Most: limits.Dials},
		},
		Peers: []status.Peer{}, Zones: []status.Zone{}, Resolvers: []status.Resolver{},
		FlowsTotal: total, Flows: append([]flow.Record{}, list...),
	}
	if !g.hasJoined() {
		s.Tailnet.State = "reading the device's state"
		return s
	}
	t := g.node.Status()
	s.Tailnet = status.Device{
		ID: t.ID, Name: t.Name, Addrs: t.Addrs, State: t.State, Up: t.Up, ControlConnected: t.Control,
		HomeRelay: t.Home, Health: t.Health, SessionsMended: g.node.SessionsMended(),
	}
	if !t.KeyExpiry.IsZero() {
		s.Tailnet.KeyExpiry = &t.KeyExpiry
	}
	if !t.HomeHeard.IsZero() {
		s.Tailnet.HomeHeard = &t.HomeHeard
	}
	if t.ClockAhead != nil {
		ahead := t.ClockAhead.Seconds()
		s.Tailnet.ClockAhead = &ahead
	}
	for _, p := range t.Peers {
		s.Peers = append(s.Peers, peerStatus(p))
	}
	for suffix, z := range g.road.Resolver.Zones() {
		if !strings.HasSuffix(suffix, ".arpa") { // of addresses: nobody asks for these here
			s.Zones = append(s.Zones, status.Zone{Suffix: suffix, Resolvers: z.Servers})
		}
	}
	slices.SortFunc(s.Zones, func(a, b status.Zone) int { return strings.Compare(a.Suffix, b.Suffix) })
	for _, h := range g.road.Resolver.Health() {
		s.Resolvers = append(s.Resolvers, status.Resolver(h))
	}
	return s
}

func peerStatus(p tailnet.Peer) status.Peer {
	peer := status.Peer{Name: p.Name, Addrs: p.Addrs, Routes: p.Routes, Online: p.Online, Path: p.Path.String(), Received: p.Rx, Sent: p.Tx}
	if !p.LastHandshake.IsZero() {
		peer.LastHandshake = &p.LastHandshake
	}
	return peer
}

// metricsState is what the metrics ask at each scrape.
func (g *Gateway) metricsState() metrics.State {
	return metrics.State{
		Ready: g.isReady, Draining: g.draining.Load, Tunnels: g.relay.Active,
		Connections: func() (int, int) { return g.limit.Connections() }, Dials: g.limit.Dials,
		Flows:         func() map[string]int { return g.road.Active() },
		ProbesFailing: g.probesFailing,
		RestartNeeded: func() bool {
			g.reload.mu.Lock()
			defer g.reload.mu.Unlock()
			return len(g.reload.restart) > 0
		},
		Tailnet: func() metrics.Tailnet {
			if !g.hasJoined() {
				return metrics.Tailnet{}
			}
			t := g.node.Status()
			m := metrics.Tailnet{Up: t.Up, Control: t.Control, KeyExpiry: t.KeyExpiry, SessionsMended: g.node.SessionsMended(), Peers: len(t.Peers)}
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
		},
	}
}

// writeEngineMetrics returns the engine's own metrics.
func (g *Gateway) writeEngineMetrics() (string, error) {
	if !g.hasJoined() {
		return "", nil
	}
	var b strings.Builder
	if err := g.node.WriteMetrics(&b); err != nil {
		return "", fmt.Errorf("engine metrics: %w", err)
	}
	return b.String(), nil
}
