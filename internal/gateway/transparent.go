package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath/forward"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/mux"
	"github.com/pandoproxy/pando/internal/datapath/sni"
	"github.com/pandoproxy/pando/internal/dnsserver"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
	"github.com/pandoproxy/pando/internal/socket"
)

// port is a listener and what it is for.
type port struct {
	*net.TCPListener
	use mux.Role
}

// listenTransparent binds the ports for clients that know of no proxy.
func (g *Gateway) listenTransparent(ctx context.Context) error {
	cfg, peerTimeout := g.cfg, time.Duration(g.cfg.Tunnel.PeerTimeout)
	add := func(key, addr string, use mux.Role) error {
		ln, err := listenAt(ctx, key, addr, cfg.Listen.ReusePort, peerTimeout)
		if err == nil {
			g.ports = append(g.ports, port{ln, use})
		}
		return err
	}
	for i, p := range cfg.SNI {
		use := mux.Role{Front: &sni.Server{Road: g.road, Port: orPort(p.Port, 443), Timeout: time.Duration(cfg.HTTP.HeaderTimeout)}}
		if err := add(fmt.Sprintf("sni[%d].listen", i), p.Listen, use); err != nil {
			return err
		}
	}
	for i, p := range cfg.Web {
		web := g.newHTTP()
		web.Front = flow.Web
		web.Target = httpproxy.ByHost(orPort(p.Port, 80))
		g.web = append(g.web, web)
		if err := add(fmt.Sprintf("web[%d].listen", i), p.Listen, mux.Role{Front: web}); err != nil {
			return err
		}
	}
	for i, p := range cfg.Forward {
		host, portText, _ := net.SplitHostPort(p.Target)
		n, _ := strconv.ParseUint(portText, 10, 16)
		use := mux.Role{Front: &forward.Server{Road: g.road, Host: host, Port: uint16(n)}, TargetFirst: true}
		if err := add(fmt.Sprintf("forward[%d].listen", i), p.Listen, use); err != nil {
			return err
		}
	}
	if cfg.Listen.DNS != "" {
		pc, ln, err := dnsserver.Listen(ctx, socket.ListenConfig(cfg.Listen.ReusePort, 0), cfg.Listen.DNS)
		if err != nil {
			return fmt.Errorf("listen.dns: %w", err)
		}
		g.dnsPacket, g.dnsListener = pc, ln
	}
	return nil
}

func orPort(n, def int) uint16 {
	if n == 0 {
		n = def
	}
	return uint16(n)
}

// newHTTP returns an HTTP front that is a proxy until it is told otherwise.
func (g *Gateway) newHTTP() *httpproxy.Proxy {
	cfg := g.cfg
	return &httpproxy.Proxy{
		Road: g.road, Name: proxyName(cfg.Tailnet.Hostname),
		HeaderTimeout: time.Duration(cfg.HTTP.HeaderTimeout), IdleTimeout: time.Duration(cfg.HTTP.IdleTimeout),
		BodyTimeout: time.Duration(cfg.HTTP.BodyTimeout), SilenceTimeout: time.Duration(cfg.Tunnel.IdleTimeout),
		MaxHeaderBytes: cfg.HTTP.MaxHeaderBytes, MaxHeaders: cfg.HTTP.MaxHeaders,
	}
}

// servesDNS reports whether there is a DNS answerer.
func (g *Gateway) servesDNS() bool { return g.dnsPacket != nil }

// serveDNS answers cluster DNS until ctx ends.
func (g *Gateway) serveDNS(ctx context.Context) error {
	s := &dnsserver.Server{
		Zones: servedZones(g.cfg.DNS), TTL: time.Duration(g.cfg.DNS.TTL), Addrs: g.fleetAddrs, Enter: g.limit.Enter, Leave: g.limit.Leave,
		Lookup: g.lookupServed, Denied: func(name string) bool { return g.road.Policy().NobodyMay(name) },
		Answered: g.metrics.Answered, Dropped: func() { g.metrics.Refused(limit.Queries) }, Log: g.log,
	}
	if err := s.Serve(ctx, []net.PacketConn{g.dnsPacket}, []net.Listener{g.dnsListener}); err != nil && ctx.Err() == nil {
		return fmt.Errorf("listen.dns: %w", err)
	}
	return nil
}

func servedZones(c config.DNS) (list []dnsserver.Zone) {
	for _, z := range c.Zones {
		list = append(list, dnsserver.Zone{Suffix: strings.ToLower(z.Suffix), Fleet: z.Answer != "real"})
	}
	return list
}

func servedSuffixes(c config.DNS) (list []string) {
	for _, z := range c.Zones {
		list = append(list, strings.ToLower(z.Suffix))
	}
	return list
}

func (g *Gateway) lookupServed(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	if err := g.ready(ctx); err != nil {
		return nil, 0, err
	}
	a, err := g.road.Resolver.Lookup(ctx, host.Host{Name: name})
	if a.TTL == 0 {
		a.TTL = time.Duration(g.cfg.DNS.TTL) // of the host table
	}
	return a.Addrs, a.TTL, err
}

// fleet is where clients reach the fleet, as it was known last.
type fleetAddrs struct {
	addrs []netip.Addr
	err   error // why some of it is not known
}

// fleetEvery is how often names of the fleet are looked up again.
const fleetEvery = 5 * time.Second

// followFleet keeps the fleet's own addresses known until ctx ends.
func (g *Gateway) followFleet(ctx context.Context) {
	for ctx.Err() == nil && g.lookUpFleet(ctx) {
		sleep(ctx, fleetEvery)
	}
}

// lookUpFleet looks the fleet's addresses up, in the cluster's DNS alone, and
// reports whether they can change. What can't be looked up stays what it was.
func (g *Gateway) lookUpFleet(ctx context.Context) (names bool) {
	var list []netip.Addr
	var errs []error
	for _, f := range g.cfg.DNS.Fleet {
		h, err := host.Parse(f)
		switch {
		case err != nil:
		case h.Addr.IsValid():
			list = append(list, h.Addr)
		default:
			names = true
			var a []netip.Addr
			a, err = g.road.Resolver.LookupPod(ctx, h.Name)
			list = append(list, a...)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	err := errors.Join(errs...)
	if old := g.fleet.Load(); err != nil && old != nil {
		if old.err == nil {
			g.log.Warn("the fleet's own address can't be looked up: what was known goes on", "err", err)
		}
		list = old.addrs
	}
	g.fleet.Store(&fleetAddrs{list, err})
	return names
}

// fleetAddrs are the addresses where clients reach the fleet.
func (g *Gateway) fleetAddrs() ([]netip.Addr, error) {
	switch f := g.fleet.Load(); {
	case f == nil:
		return nil, errors.New("not looked up yet")
	case len(f.addrs) > 0:
		return f.addrs, nil
	default:
		return nil, f.err
	}
}

// isFleet reports whether a is the fleet's own address: a target there would lead
// back to us.
func (g *Gateway) isFleet(a netip.Addr) bool {
	f := g.fleet.Load()
	return f != nil && slices.Contains(f.addrs, a)
}
