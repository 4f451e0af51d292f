package gateway

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/own"
	"github.com/pandoproxy/pando/internal/podproxy"
	"github.com/pandoproxy/pando/internal/socket"
)

// policy returns the policy of a valid configuration.
func (g *Gateway) policy(cfg *config.Config) *policy.Policy {
	c := cfg.Policy
	p := &policy.Policy{
		PrivateAnswers: policy.Default(cfg.Resolve.PrivateAnswers),
		Direct:         policy.Direct(c.Direct),
		Mode:           policy.Mode(c.Mode),
		Default:        policy.Default(c.Default),
		KeepOpen:       c.KeepOpen,
		NotPublic:      c.NotPublic,
		Own:            g.own,
		Near:           own.Near,
	}
	for _, suffix := range cfg.Resolve.PrivateZones {
		p.PrivateZones = append(p.PrivateZones, strings.ToLower(suffix))
	}
	for _, r := range c.Rules {
		rule := policy.Rule{
			Name:     r.Name,
			From:     r.From,
			Prefixes: r.Prefixes,
			Allow:    r.Action == "allow",
		}
		for _, name := range r.Names {
			rule.Names = append(rule.Names, strings.ToLower(name))
		}
		for _, ports := range r.Ports {
			rule.Ports = append(rule.Ports, policy.PortRange(ports))
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

func limits(c config.Limits) limit.Limits {
	return limit.Limits{
		Connections: c.Connections,
		PerClient:   c.PerClient,
		Dials:       c.Dials,
		Rate:        c.Rate.Connections,
		Bytes:       c.Rate.Bytes,
	}
}

// direct returns the dialer of the host's own network. Peers that acknowledge
// nothing for peerTimeout are gone; zero leaves that to the kernel.
func direct(peerTimeout time.Duration) dial.Func {
	userTimeout := socket.UserTimeout(peerTimeout)
	d := net.Dialer{
		Control: func(network, addr string, c syscall.RawConn) error {
			return errors.Join(userTimeout(network, addr, c), socket.BoundUnsent(c))
		},
		KeepAliveConfig: socket.KeepAlive(peerTimeout),
	}
	return func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", addr.String())
	}
}

// hosts returns the host table of a valid configuration.
func hosts(c config.Resolve) map[string][]netip.Addr {
	m := map[string][]netip.Addr{}
	for name, addrs := range c.Hosts {
		name = strings.ToLower(name)
		m[name] = append(m[name], addrs...)
	}
	return m
}

// zones returns the zones of a valid configuration, by suffix.
func zones(c config.Resolve) map[string]resolve.Zone {
	m := map[string]resolve.Zone{}
	for _, z := range c.Zones {
		m[strings.ToLower(z.Suffix)] = resolve.Zone{Servers: z.Servers, Direct: z.Direct}
	}
	return m
}

// served returns the road of a port of sni or web, whose target port is defaultPort
// unless p has one.
func served(road *datapath.Road, cfg config.Config, p config.FrontPort, defaultPort int) *datapath.Served {
	s := &datapath.Served{Road: road, Port: uint16(cmp.Or(p.Port, defaultPort))}
	if p.AnyPort {
		s.Port = 0
	}
	for _, name := range p.Serves {
		s.Names = append(s.Names, strings.ToLower(name))
	}
	if len(s.Names) == 0 {
		for _, suffix := range servedSuffixes(cfg.DNS) {
			s.Names = append(s.Names, suffix, "*."+suffix)
		}
	}
	return s
}

// podProxy returns the proxy that the replica's own environment names.
func podProxy(cfg config.Config, o Options, own func(netip.AddrPort) bool) *podproxy.Proxy {
	p := podproxy.Options{
		Environ:   o.Environ,
		Own:       own,
		Name:      proxyName(cfg.Tailnet.Hostname),
		HostsFile: o.HostsFile,
		Log:       o.Log,
	}
	for _, h := range slices.Concat(cfg.Listen.Replicas, cfg.DNS.Fleet) {
		p.Fleet = append(p.Fleet, h.String())
	}
	return podproxy.New(p)
}

// proxyName returns the replica's name in Via and Proxy-Status. Each replica has a
// name of its own, so that a request that comes back can be distinguished from one
// that passes another fleet. It begins with a letter, as a token of RFC 9651 does.
func proxyName(hostname string) string {
	if hostname == "" {
		hostname, _ = os.Hostname()
	}
	if hostname == "" || hostname[0] >= '0' && hostname[0] <= '9' {
		return "pando-" + hostname
	}
	return hostname
}
