// Package policy answers one question: may this client reach that target? It
// is pure: it uses no clock, no network and no log. There are two passes. Name
// judges before the name is looked up. It denies only if every address would be
// denied too. Address judges one address of the target. The address that passes
// is the one that is dialled.
//
// An address passes if three conditions hold. It is not forbidden for all clients
// (Forbidden). A peer of the tailnet carries it, or Direct allows the pod's own
// network for it. The first rule that matches allows it, or no rule matches and
// Default allows it.
package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Direct says which addresses may be dialled through the pod's own network if no
// peer of the tailnet routes them.
type Direct string

const (
	DirectNone   Direct = "none"   // none of them
	DirectPublic Direct = "public" // those on the public internet
	DirectAny    Direct = "any"    // all except the forbidden ones
)

// Mode says what a denial by a rule does.
type Mode string

const (
	Enforce Mode = "enforce" // it ends the flow
	Report  Mode = "report"  // it is logged, and the flow passes
)

// Rule is one entry of the list of rules. A rule matches if all of its fields
// match. An empty field matches everything.
//
// Some IPv6 addresses carry an IPv4 address inside (NAT64, 6to4, 4via6 and
// others). A rule that denies matches if its Prefixes contain either of the two. A
// rule that allows uses only the address itself: behind a translator, the address
// inside may be a different host.
type Rule struct {
	Name     string         // for the log; empty means "#" and its number, from 1
	From     []netip.Prefix // the client's address
	Names    []string       // the target's name: exact, or "*.suffix" for every name below suffix
	Prefixes []netip.Prefix // the target's address
	Ports    []PortRange    // the target's port
	Allow    bool
}

// Default says what happens to a request that no rule matches.
type Default string

const (
	Allow Default = "allow"
	Deny  Default = "deny"
)

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// Policy is a list of rules and the settings around it. The zero value has no
// rules, and allows only addresses that a peer of the tailnet routes.
type Policy struct {
	Direct Direct // empty means DirectNone
	Mode   Mode   // empty means Enforce
	Rules  []Rule
	// KeepOpen means that flows which another policy has allowed are not judged by
	// this one.
	KeepOpen bool
	// Default is for requests that no rule matches. Empty means Allow.
	Default Default
	// NotPublic are prefixes that DirectPublic does not open, in addition to those
	// that are not public for everybody.
	NotPublic []netip.Prefix

	// PrivateAnswers says what happens to private addresses of public names, except
	// those below the suffixes in PrivateZones. Empty means Allow.
	PrivateAnswers Default
	PrivateZones   []string

	// Own reports whether the replica itself listens on an address. Nil means
	// no address.
	Own func(netip.AddrPort) bool
	// Near reports whether an address is in a network of this host: DirectPublic
	// does not open it. Nil means no address.
	Near func(netip.Addr) bool
}

// Query is the request that is judged.
type Query struct {
	Client netip.Addr
	Name   string // lower case, no trailing dot; empty when the client gave an address
	Also   string // the name that a search domain made of Name; empty if none did, and before the lookup
	Port   uint16

	// Aliases are the names to which CNAMEs led from Name to the address. They are
	// lower case, without the trailing dot. Alias judges each of them.
	Aliases []string
	// PublicName is the name that has the address, if it is one of the public DNS.
	// It is empty if the name is known to be private.
	PublicName string
}

// Verdict is the outcome of a pass.
type Verdict struct {
	Deny    bool
	Reason  Reason
	Rule    string // the rule that decided; empty if none matched
	Alias   string // the name of Query.Aliases that Rule denies; empty if it is another
	Tailnet bool   // set by Address: the address is dialled through the tailnet, otherwise directly
}

// Reason says why a verdict denies.
type Reason uint8

const (
	NoReason      Reason = iota
	ByRule               // a rule denies it
	ByDefault            // no rule matches it, and Default is Deny
	PrivateAnswer        // a public name has a private address, and PrivateAnswers is Deny
	Forbidden            // no client may reach this address through a proxy
	NotRouted            // no peer routes the address, and Direct does not allow it
)

func (r Reason) String() string {
	switch r {
	case ByRule:
		return "rule"
	case ByDefault:
		return "default"
	case PrivateAnswer:
		return "private answer"
	case Forbidden:
		return "forbidden address"
	case NotRouted:
		return "not routed"
	}
	return ""
}

// Final reports whether v denies the flow in mode m. Report mode turns off the
// rules, and nothing else: it reaches no address that no rule could open.
func (v Verdict) Final(m Mode) bool {
	return v.Deny && (m != Report || v.Reason != ByRule && v.Reason != ByDefault)
}

// Name judges a request before its name is looked up. It denies if the first rule
// that can match denies every address, or if Default is Deny and no rule can allow
// any. In all other cases it leaves the decision to Address.
func (p *Policy) Name(q Query) Verdict {
	decided := true // by the rule at hand, for every address
	for i := range p.Rules {
		r := &p.Rules[i]
		switch {
		case !r.matchesRequest(q):
		case r.Allow:
			return Verdict{}
		case !coversAll(r.Prefixes):
			decided = false
		case decided:
			return Verdict{Deny: true, Reason: ByRule, Rule: p.label(i)}
		default: // no later rule is reached, and none so far allows
			return p.withoutAllow()
		}
	}
	return p.withoutAllow()
}

// withoutAllow is the verdict on a name that no rule allows, and that no single
// rule denies.
func (p *Policy) withoutAllow() Verdict {
	if p.Default == Deny {
		return Verdict{Deny: true, Reason: ByDefault}
	}
	return Verdict{}
}

// Alias judges a name to which an alias of the request's name leads, before it is
// looked up. It denies if a rule that names it denies every address. In all other
// cases it leaves the decision to Address, with the name in Query.Aliases.
//
// A client that may use a name may use its aliases: only the first name must be
// allowed. But no rule that names an alias may deny it. A rule without Names that
// denies does not concern aliases: the last rule of a list of what is allowed would
// deny them all. A rule without Names that allows does concern them, because the
// client may reach that name directly too.
func (p *Policy) Alias(q Query, alias string) Verdict {
	i := p.aliasRule(q, alias, nil)
	if i < 0 || p.Rules[i].Allow || !coversAll(p.Rules[i].Prefixes) {
		return Verdict{}
	}
	return Verdict{
		Deny:   true,
		Reason: ByRule,
		Rule:   p.label(i),
		Alias:  alias,
	}
}

// aliasRule returns the index of the rule that decides about an alias and an
// address, given by its spellings. Nil spellings stand for an address that is not
// known yet. It returns -1 if no rule decides.
func (p *Policy) aliasRule(q Query, alias string, all []netip.Addr) int {
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.concernsAlias(alias) && r.matchesClientAndPort(q) && (all == nil || r.matchesAddress(all)) {
			return i
		}
	}
	return -1
}

// concernsAlias reports whether the rule is one about the aliases of names, and
// matches this one.
func (r *Rule) concernsAlias(alias string) bool {
	return matchName(r.Names, alias) && (r.Allow || len(r.Names) > 0)
}

// NobodyMay reports whether the policy denies name to every client, on every port
// and for every address.
func (p *Policy) NobodyMay(name string) bool {
	return p.deniesAll(p.Default == Deny, func(r *Rule) bool { return matchName(r.Names, name) })
}

// NobodyMayAlias is NobodyMay for a name to which an alias leads.
func (p *Policy) NobodyMayAlias(alias string) bool {
	return p.deniesAll(false, func(r *Rule) bool { return r.concernsAlias(alias) })
}

// deniesAll reports whether the first of the rules that match denies everything. If
// no rule matches, it returns without.
func (p *Policy) deniesAll(without bool, matches func(*Rule) bool) bool {
	if p.Mode == Report {
		return false
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		switch {
		case !matches(r):
		case r.Allow:
			return false // to some client, for some address
		case len(r.From) == 0 && len(r.Ports) == 0 && coversAll(r.Prefixes):
			return true
		}
	}
	return without
}

// Address judges one address of the target. routed says whether a peer of the
// tailnet carries it.
func (p *Policy) Address(q Query, addr netip.Addr, routed bool) Verdict {
	v := Verdict{Tailnet: routed}
	all := spellings(addr)
	if p.forbidden(all, q.Port) {
		v.Deny = true
		v.Reason = Forbidden
		return v
	}
	if q.PublicName != "" && p.PrivateAnswers == Deny && !p.mayBePrivate(q.PublicName) && !p.public(all) {
		v.Deny = true
		v.Reason = PrivateAnswer
		return v
	}
	deny := p.byRule(q, all, &v)
	reachable := routed || p.mayDirect(all)
	switch {
	case deny && (reachable || p.Mode != Report):
		v.Deny = true
		v.Reason = ByRule
		if v.Rule == "" {
			v.Reason = ByDefault
		}
	case !reachable: // in report mode also what a rule denies
		v.Deny = true
		v.Reason = NotRouted
		v.Alias = ""
	}
	return v
}

// byRule reports whether a rule or Default denies an address, given by its
// spellings, to q. It sets v.Rule and v.Alias.
func (p *Policy) byRule(q Query, all []netip.Addr, v *Verdict) (deny bool) {
	for _, alias := range q.Aliases {
		i := p.aliasRule(q, alias, all)
		if i >= 0 && !p.Rules[i].Allow {
			v.Rule = p.label(i)
			v.Alias = alias
			return true
		}
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.matchesRequest(q) && r.matchesAddress(all) {
			v.Rule = p.label(i)
			return !r.Allow
		}
	}
	return p.Default == Deny
}

// mayBePrivate reports whether name is in one of PrivateZones.
func (p *Policy) mayBePrivate(name string) bool {
	return slices.ContainsFunc(p.PrivateZones, func(suffix string) bool {
		return name == suffix || strings.HasSuffix(name, "."+suffix)
	})
}

// mayDirect reports whether Direct allows an address, given by its spellings.
func (p *Policy) mayDirect(all []netip.Addr) bool {
	switch p.Direct {
	case DirectAny:
		return true
	case DirectPublic:
		return p.public(all)
	}
	return false
}

func (p *Policy) label(i int) string {
	if n := p.Rules[i].Name; n != "" {
		return n
	}
	return "#" + strconv.Itoa(i+1)
}

// matchesRequest reports whether the rule matches q in all fields but Prefixes.
func (r *Rule) matchesRequest(q Query) bool {
	return (matchName(r.Names, q.Name) || matchName(r.Names, q.Also)) && r.matchesClientAndPort(q)
}

func (r *Rule) matchesClientAndPort(q Query) bool {
	return matchPrefix(r.From, q.Client.Unmap().WithZone("")) && matchPort(r.Ports, q.Port)
}

// matchesAddress reports whether the rule's Prefixes match an address, given by
// its spellings.
func (r *Rule) matchesAddress(all []netip.Addr) bool {
	if r.Allow {
		all = all[:1]
	}
	return slices.ContainsFunc(all, func(a netip.Addr) bool { return matchPrefix(r.Prefixes, a) })
}

func matchPrefix(list []netip.Prefix, a netip.Addr) bool {
	return len(list) == 0 || matchAny(list, a)
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

// coversAll reports whether list contains every address.
func coversAll(list []netip.Prefix) bool {
	if len(list) == 0 {
		return true
	}
	var v4, v6 bool
	for _, p := range list {
		if p.Bits() > 0 {
			continue
		}
		if p.Addr().Is4() {
			v4 = true
		} else {
			v6 = true
		}
	}
	return v4 && v6
}
