// Package policy answers one question: may this client reach that target? It
// is pure: no clock, no network, no log. It knows two passes. Name judges
// before the name is looked up, and denies only what no address could save.
// Address judges one address of the target; the address that passed is the one
// that is dialled.
//
// An address passes when it is not forbidden for everyone (Forbidden), when
// something may carry it (a peer of the tailnet, or the host's own network as
// far as Direct goes), and when the first rule that matches allows it. With no
// matching rule it is allowed.
package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Direct says which addresses that no peer routes may be dialled through the
// host's own network.
type Direct string

const (
	DirectNone   Direct = "none"   // none of them
	DirectPublic Direct = "public" // those on the public internet
	DirectAny    Direct = "any"    // all but the forbidden ones
)

// Mode says what becomes of a denial.
type Mode string

const (
	Enforce Mode = "enforce" // it is final
	Report  Mode = "report"  // it is logged, and the flow passes
)

// Rule is one line of the list. An empty field matches everything; a rule
// matches when all of its fields do.
//
// A rule that denies looks inside IPv6 addresses that carry an IPv4 address
// (NAT64, 6to4, 4via6 and the like): it matches when its Prefixes have either.
// One that allows goes by the address itself, for what is inside may be a
// different host on the other side of a translator.
type Rule struct {
	Name     string         // for the log; empty means its number
	From     []netip.Prefix // the client's address
	Names    []string       // the target's name: exact, or "*.suffix" for every name below suffix
	Prefixes []netip.Prefix // the target's address
	Ports    []PortRange    // the target's port
	Allow    bool
}

// PortRange is First to Last, both included.
type PortRange struct{ First, Last uint16 }

// Policy is the whole of it. The zero value enforces no rules and lets through
// only what the tailnet routes.
type Policy struct {
	Direct Direct // empty means DirectNone
	Mode   Mode   // empty means Enforce
	Rules  []Rule

	// Own reports whether the gateway itself listens on an address. Nil means
	// that it never does.
	Own func(netip.AddrPort) bool
}

// Query is what is judged.
type Query struct {
	Client netip.Addr
	Name   string // lower case, no trailing dot; empty when the client gave an address
	Also   string // the name that search domains made of it; empty when it is the same, and until it is known
	Port   uint16
}

// Verdict is the outcome of a pass.
type Verdict struct {
	Deny    bool
	Reason  Reason
	Rule    string // the rule that decided; empty when none matched
	Tailnet bool   // of Address: it goes through the tailnet, else directly
}

// Reason says what denied.
type Reason uint8

const (
	NoReason  Reason = iota
	ByRule           // a rule denies it
	Forbidden        // nobody may reach this address through a proxy
	NotRouted        // no peer routes it, and Direct doesn't let it go directly
)

func (r Reason) String() string {
	switch r {
	case ByRule:
		return "rule"
	case Forbidden:
		return "forbidden address"
	case NotRouted:
		return "not routed"
	}
	return ""
}

// Final reports whether a denial stands even in report mode.
func (v Verdict) Final(m Mode) bool { return v.Deny && (m != Report || v.Reason == Forbidden) }

// Name judges before the name is resolved. It denies only when the first rule
// that could match denies whatever the address turns out to be; everything
// else is left to Address.
func (p *Policy) Name(q Query) Verdict {
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.matchesRequest(q) {
			continue
		}
		if r.Allow || !coversAll(r.Prefixes) {
			return Verdict{}
		}
		return Verdict{Deny: true, Reason: ByRule, Rule: p.label(i)}
	}
	return Verdict{}
}

// NobodyMay reports whether the policy denies name to every client on every
// port, whatever its address.
func (p *Policy) NobodyMay(name string) bool {
	if p.Mode == Report {
		return false
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		switch {
		case !matchName(r.Names, name):
		case r.Allow:
			return false // to somebody, somewhere
		case len(r.From) == 0 && len(r.Ports) == 0 && coversAll(r.Prefixes):
			return true
		}
	}
	return false
}

// Address judges one address of the target by the whole list. routed says
// whether a peer of the tailnet carries it.
func (p *Policy) Address(q Query, addr netip.Addr, routed bool) Verdict {
	v := Verdict{Tailnet: routed}
	addr = addr.Unmap().WithZone("") // no prefix contains an address with a zone
	all := spellings(addr)
	if p.forbidden(all, q.Port) {
		v.Deny, v.Reason = true, Forbidden
		return v
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.matchesRequest(q) || !r.matchesAddress(all) {
			continue
		}
		v.Rule = p.label(i)
		if !r.Allow {
			v.Deny, v.Reason = true, ByRule
			return v
		}
		break
	}
	if !routed && !p.mayDirect(addr) {
		v.Deny, v.Reason = true, NotRouted
	}
	return v
}

func (p *Policy) mayDirect(addr netip.Addr) bool {
	switch p.Direct {
	case DirectAny:
		return true
	case DirectPublic:
		return Public(addr)
	}
	return false
}

func (p *Policy) label(i int) string {
	if n := p.Rules[i].Name; n != "" {
		return n
	}
	return "#" + strconv.Itoa(i+1)
}

// matchesRequest reports whether the rule fits all that is known before the
// target's address is.
func (r *Rule) matchesRequest(q Query) bool {
	return matchPrefix(r.From, q.Client.Unmap().WithZone("")) && (matchName(r.Names, q.Name) || matchName(r.Names, q.Also)) && matchPort(r.Ports, q.Port)
}

// matchesAddress reports whether the rule fits an address, given by its
// spellings.
func (r *Rule) matchesAddress(all []netip.Addr) bool {
	if r.Allow {
		all = all[:1]
	}
	return slices.ContainsFunc(all, func(a netip.Addr) bool { return matchPrefix(r.Prefixes, a) })
}

func matchPrefix(list []netip.Prefix, a netip.Addr) bool {
	if len(list) == 0 {
		return true
	}
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func matchPort(list []PortRange, port uint16) bool {
	if len(list) == 0 {
		return true
	}
	for _, r := range list {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}

func matchName(list []string, name string) bool {
	if len(list) == 0 {
		return true
	}
	for _, pattern := range list {
		if suffix, ok := strings.CutPrefix(pattern, "*."); ok {
			if rest, ok := strings.CutSuffix(name, suffix); ok && len(rest) > 1 && rest[len(rest)-1] == '.' {
				return true
			}
		} else if name == pattern {
			return name != ""
		}
	}
	return false
}

// coversAll reports whether the prefixes leave no address out.
func coversAll(list []netip.Prefix) bool {
	if len(list) == 0 {
		return true
	}
	var v4, v6 bool
	for _, p := range list {
		if p.Bits() == 0 {
			v4, v6 = v4 || p.Addr().Is4(), v6 || p.Addr().Is6()
		}
	}
	return v4 && v6
}
