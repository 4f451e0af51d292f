// Package datapath is the road that every connection takes, and this file is
// the order:
//
//	accept → mux → httpproxy | socks5 | sni | forward → policy(name) → resolve → policy(address) → dial → relay
//
// The order is law. A name that is denied is never looked up, and the address
// that was judged is the address that is dialled, so DNS can't answer twice.
// The stages are packages below this one; they share words (package flow) and
// don't know one another.
package datapath

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/relay"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// Road walks requests from the front ends to their targets. Its fields must
// not change once it is in use.
type Road struct {
	// Ready waits until the tailnet is up and returns nil, or says why it
	// isn't. Nothing is dialled before: what the tailnet will route must not
	// go out directly because its routes are not known yet.
	Ready    func(ctx context.Context) error
	Resolver *resolve.Resolver
	// Routes reports of each address whether a peer carries it. When none is
	// carried it may wait for a route that was there a moment ago.
	Routes func(context.Context, []netip.Addr) []bool
	Dialer *dial.Dialer
	Relay  *relay.Relay
	Limit  *limit.Gate
	// Carrier says in words which peer carries the address and how it fares, for
	// a person who looks for what is broken; empty when none does.
	Carrier func(netip.Addr) string
	// Finished gets each flow's record once, when the flow has ended.
	Finished func(*flow.Record)

	policy atomic.Pointer[policy.Policy]
	live   liveFlows
	cut    atomic.Pointer[flow.Error]
}

// Cut gives the flows that fail from now on their cause: the gateway ends them.
func (r *Road) Cut(why string) {
	r.cut.Store(&flow.Error{Class: flow.Cut, Op: "drain", Err: errors.New(why), Hint: "the gateway was shutting down"})
}

// Policy returns the policy in force.
func (r *Road) Policy() *policy.Policy { return r.policy.Load() }

// SetPolicy replaces the policy for requests to come.
func (r *Road) SetPolicy(p *policy.Policy) { r.policy.Store(p) }

// Connect walks the whole road for a tunnel and returns the connection to its
// target, which the caller closes. It fills in rec as it goes. The error is a
// *flow.Error.
func (r *Road) Connect(ctx context.Context, rec *flow.Record) (net.Conn, error) {
	targets, err := r.Judge(ctx, rec)
	if err != nil {
		return nil, err
	}
	return r.Dial(ctx, rec, targets)
}

// Walk connects to a target by the road that clients take, and notes in t what
// each stage did. It is no flow: it is neither logged nor counted, nor held to
// the limits. It fills in rec as it goes; the caller closes the connection. The
// error is a *flow.Error. A nil t notes nothing.
func (r *Road) Walk(ctx context.Context, rec *flow.Record, t *Trace) (net.Conn, error) {
	targets, err := r.judge(ctx, rec, t)
	if err != nil {
		return nil, err
	}
	return r.dial(ctx, rec, targets)
}

// Judge is the road up to policy(address): it returns the addresses that rec's
// request may be sent to, at least one, or a *flow.Error.
func (r *Road) Judge(ctx context.Context, rec *flow.Record) ([]flow.Target, error) {
	r.live.note(rec)
	return r.judge(ctx, rec, nil)
}

func (r *Road) judge(ctx context.Context, rec *flow.Record, t *Trace) ([]flow.Target, error) {
	host, err := host.Parse(rec.Host)
	if err != nil {
		return nil, err
	}
	p := r.policy.Load()
	q := policy.Query{Client: rec.Client.Addr(), Name: host.Name, Port: rec.Port}
	v := p.Name(q)
	t.named(v)
	if v.Deny {
		if v.Final(p.Mode) {
			rec.Rule = v.Rule
			return nil, denial(v, rec.Host)
		}
		rec.Report = v.Reason.String() + " " + v.Rule
	}
	if err := r.Ready(ctx); err != nil {
		return nil, err
	}

	start := time.Now()
	answer, err := r.Resolver.Lookup(ctx, host)
	if rec.Source = answer.Source; !host.Addr.IsValid() {
		rec.Resolve = time.Since(start)
	}
	t.looked(answer)
	if err != nil {
		return nil, err
	}

	q.Also = answer.Name
	var targets []flow.Target
	var denied error
	routed := r.Routes(ctx, answer.Addrs)
	for i, a := range answer.Addrs {
		v := p.Address(q, a, routed[i])
		t.judged(a, v)
		if v.Final(p.Mode) {
			if denied == nil {
				rec.Rule, denied = v.Rule, denial(v, a.String())
			}
			continue
		}
		if v.Deny && rec.Report == "" {
			rec.Report = v.Reason.String() + " " + v.Rule
		}
		target := flow.Target{Addr: netip.AddrPortFrom(a, rec.Port), Path: flow.Direct}
		if v.Tailnet {
			target.Path = flow.Tailnet
		}
		if len(targets) == 0 {
			rec.Rule = v.Rule
		}
		targets = append(targets, target)
	}
	if len(targets) == 0 {
		return nil, denied
	}
	return targets, nil
}

// Dial connects to one of targets, which Judge returned for rec.
func (r *Road) Dial(ctx context.Context, rec *flow.Record, targets []flow.Target) (net.Conn, error) {
	if err := r.Limit.Dial(); err != nil {
		return nil, err
	}
	defer r.Limit.Dialed()
	conn, err := r.dial(ctx, rec, targets)
	if err == nil {
		r.live.note(rec)
	}
	return conn, err
}

func (r *Road) dial(ctx context.Context, rec *flow.Record, targets []flow.Target) (net.Conn, error) {
	start := time.Now()
	conn, target, err := r.Dialer.Dial(ctx, targets)
	rec.Dial, rec.Addr, rec.Path = time.Since(start), target.Addr, target.Path
	if err != nil {
		return nil, r.blame(rec, err)
	}
	return conn, nil
}

// blame names the peer that carries a target of the tailnet which does not
// answer, for it may be that peer that is gone.
func (r *Road) blame(rec *flow.Record, err error) error {
	if fe, ok := errors.AsType[*flow.Error](err); ok && (fe.Class == flow.Timeout || fe.Class == flow.Unreachable) && rec.Path == flow.Tailnet {
		who := r.Carrier(rec.Addr.Addr())
		if who == "" {
			who = "no peer routes it any more"
		}
		fe.Hint += "; " + rec.Addr.Addr().String() + ": " + who
	}
	return err
}

// Tunnel takes both connections, relays until both directions have ended, and
// then finishes rec and leaves the client's place in Limit, which it takes over.
// It returns at once.
func (r *Road) Tunnel(rec *flow.Record, p flow.Pair) {
	r.live.note(rec)
	moved := r.Relay.Start(p, func(res relay.Result) {
		rec.Up, rec.Down, rec.Err = res.Up, res.Down, r.blame(rec, res.Err)
		r.Finish(rec)
		r.Limit.Leave(rec.Client.Addr())
	})
	r.live.count(rec, moved)
}

// Finish closes the books on a flow.
func (r *Road) Finish(rec *flow.Record) {
	rec.Total = time.Since(rec.Start)
	if cut := r.cut.Load(); cut != nil && rec.Err != nil && flow.ClassOf(rec.Err) != flow.Cut {
		rec.Err = cut
	}
	r.live.forget(rec)
	r.Finished(rec)
}

// denial turns a verdict into the error that the client is told.
func denial(v policy.Verdict, target string) error {
	e := &flow.Error{Class: flow.Denied, Op: "policy", Target: target}
	switch v.Reason {
	case policy.ByRule:
		e.Hint = "rule " + v.Rule + " of the gateway's policy denies it"
		e.Err = errors.New("denied by rule " + v.Rule)
	case policy.Forbidden:
		e.Hint = "loopback, link-local, metadata and multicast addresses, and the gateway itself, are never reachable through it"
		e.Err = errors.New("forbidden address")
	case policy.NotRouted:
		e.Class = flow.NoRoute
		e.Hint = "no peer of the tailnet routes " + target + ": advertise and approve a route for it, or let it go directly with policy.direct"
		e.Err = errors.New("no peer routes it")
	}
	return e
}
