package gateway

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/device"
	"github.com/pandoproxy/pando/internal/dnsserver"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// serveDNS answers the queries that cluster DNS forwards, until ctx ends. It
// returns nil at once without listen.dns.
func (g *Gateway) serveDNS(ctx context.Context) error {
	if g.ports.dnsPackets == nil {
		return nil
	}
	ttl := time.Duration(g.cfg.DNS.TTL)
	s := &dnsserver.Server{
		Zones:    servedZones(g.cfg.DNS),
		TTL:      ttl,
		Addrs:    g.fleet.Addrs,
		Enter:    g.road.Limit.Enter,
		Leave:    g.road.Limit.Leave,
		Lookup:   lookupServed(g.device, g.road, ttl),
		Records:  recordsServed(g.device, g.road),
		Denied:   func(name string) bool { return g.road.Policy().NobodyMay(name) },
		Answered: g.metrics.Answered,
		Begin:    limit.NewQueries(g.metrics.Refused).Enter,
		Panicked: g.finished.panics.Caught,
		Log:      g.log,
	}
	err := s.Serve(ctx, []net.PacketConn{g.ports.dnsPackets}, []net.Listener{g.ports.dnsStreams})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("listen.dns: %w", err)
	}
	return nil
}

// lookupServed returns a function that resolves a name of a served zone. It
// returns the addresses and how long they may be kept: ttl for those from the host
// table.
func lookupServed(d *device.Device, r *datapath.Road, ttl time.Duration) func(context.Context, netip.Addr, string) ([]netip.Addr, time.Duration, error) {
	return func(ctx context.Context, client netip.Addr, name string) ([]netip.Addr, time.Duration, error) {
		if err := d.Ready(ctx); err != nil {
			return nil, 0, err
		}
		a, err := r.Resolver.LookupJudged(ctx, client, host.Host{Name: name}, judgeAlias(r))
		if a.TTL == 0 {
			a.TTL = ttl
		}
		return a.Addrs, a.TTL, err
	}
}

// recordsServed returns a function that asks for other records of a name of a served
// zone.
func recordsServed(d *device.Device, r *datapath.Road) func(context.Context, netip.Addr, string, uint16) ([]dns.RR, bool, error) {
	return func(ctx context.Context, client netip.Addr, name string, qtype uint16) ([]dns.RR, bool, error) {
		if err := d.Ready(ctx); err != nil {
			return nil, false, err
		}
		return r.Resolver.Records(ctx, client, name, qtype, judgeAlias(r))
	}
}

// judgeAlias returns what denies the aliases that no client may use.
func judgeAlias(r *datapath.Road) resolve.Judge {
	return func(alias string) error {
		if r.Policy().NobodyMayAlias(alias) {
			return &flow.Error{Class: flow.Denied, Op: "policy", Target: alias}
		}
		return nil
	}
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
