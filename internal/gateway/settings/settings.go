// Package settings turns the words of a valid configuration into those of the packages
// that work by it. Gateway calls it at the start and after each reload. It parses and
// checks nothing: package config does.
package settings

import (
	"net/netip"
	"strings"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/own"
)

// Policy returns the policy of a valid configuration. isOwn reports whether an address is
// the replica's own.
func Policy(cfg *config.Config, isOwn func(netip.AddrPort) bool) *policy.Policy {
	c := cfg.Policy
	p := &policy.Policy{
		PrivateAnswers: policy.Default(cfg.Resolve.PrivateAnswers),
		Direct:         policy.Direct(c.Direct),
		Mode:           policy.Mode(c.Mode),
		Default:        policy.Default(c.Default),
		KeepOpen:       c.KeepOpen,
		NotPublic:      c.NotPublic,
		Own:            isOwn,
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

// Limits returns the limits of a valid configuration.
func Limits(c config.Limits) limit.Limits {
	return limit.Limits{
		Connections: c.Connections,
		PerClient:   c.PerClient,
		Dials:       c.Dials,
		Rate:        c.Rate.Connections,
		Bytes:       c.Rate.Bytes,
	}
}

// Hosts returns the host table of a valid configuration.
func Hosts(c config.Resolve) map[string][]netip.Addr {
	m := map[string][]netip.Addr{}
	for name, addrs := range c.Hosts {
		name = strings.ToLower(name)
		m[name] = append(m[name], addrs...)
	}
	return m
}

// Zones returns the zones of a valid configuration, by suffix.
func Zones(c config.Resolve) map[string]resolve.Zone {
	m := map[string]resolve.Zone{}
	for _, z := range c.Zones {
		m[strings.ToLower(z.Suffix)] = resolve.Zone{Servers: z.Servers, Direct: z.Direct}
	}
	return m
}
