package gateway

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/socket"
)

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

func limits(c config.Limits) limit.Limits {
	return limit.Limits{Connections: c.Connections, PerClient: c.PerClient, Dials: c.Dials}
}

// direct returns the dialer of the host's own network.
func direct(peerTimeout time.Duration) dial.Func {
	d := net.Dialer{Control: socket.UserTimeout(peerTimeout), KeepAliveConfig: socket.KeepAlive(peerTimeout)}
	return func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", addr.String())
	}
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

func zones(c config.Resolve) map[string]resolve.Zone {
	m := map[string]resolve.Zone{}
	for _, z := range c.Zones {
		m[strings.ToLower(z.Suffix)] = resolve.Zone{Servers: z.Servers, Direct: z.Direct}
	}
	return m
}

// proxyName is the replica's name in Via and Proxy-Status: its own, so that a
// request that comes back is told from one that passes a second gateway.
func proxyName(hostname string) string {
	if hostname == "" {
		hostname, _ = os.Hostname()
	}
	if hostname == "" || hostname[0] >= '0' && hostname[0] <= '9' { // a token of RFC 9651 begins with a letter
		return "pando-" + hostname
	}
	return hostname
}
