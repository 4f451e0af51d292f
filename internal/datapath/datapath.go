// Package datapath is the road: the order of stages that every connection
// passes. This file is the order:
//
//	accept → mux → httpproxy | socks | sni | forward → policy(name) → resolve → policy(address) → dial → relay
//
// The order is a security property. A name that the policy denies is never looked
// up, not even if an alias leads to it. The address that the policy judged is the
// address that is dialled, so a second answer of the DNS cannot replace it. The
// stages are packages below this one. They share packages flow, host and socket and
// do not import one another.
//
// A front calls Connect and then Tunnel, or Finish if Connect fails. A front that
// keeps connections to its targets calls Judge for each request, and Dial when it
// needs a new connection.
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
	"github.com/pandoproxy/pando/internal/socket"
)

// Road takes requests from the fronts to their targets. Its fields must not
// change once it is in use. All of them are required, and so is a policy.
type Road struct {
	// Ready waits until the tailnet is up and returns nil, or returns why it is
	// not. Nothing is dialled before: an address that the tailnet will route must
	// not be dialled directly because its route is not known yet.
	Ready    func(ctx context.Context) error
	Resolver *resolve.Resolver
	// Routes reports for each address whether a peer of the tailnet carries it.
	// If no peer carries any of them, it may wait for a route that has just
	// disappeared.
	Routes func(context.Context, []netip.Addr) []bool
	Dialer *dial.Dialer
	Relay  *relay.Relay
	Limit  *limit.Gate
	// CarrierText describes the peer that carries an address, and its state, for a
	// person who looks for a fault. It returns "" if no peer carries the address.
	CarrierText func(netip.Addr) string
	// Finished is called once for each flow, with its record, when it has ended.
	Finished func(*flow.Record)

	policy   atomic.Pointer[policy.Policy]
	live     liveFlows
	cutCause atomic.Pointer[flow.Error]
}

// SetCutCause makes why the cause of all flows that fail from now on: the
// gateway ends them.
func (r *Road) SetCutCause(why string) {
	r.cutCause.Store(&flow.Error{
		Class: flow.Cut,
		Op:    "drain",
		Hint:  "the replica was shutting down",
		Err:   errors.New(why),
	})
}

// Policy returns the policy in force.
func (r *Road) Policy() *policy.Policy { return r.policy.Load() }

// Connect takes a tunnel through all stages and returns the connection to its
// target. The caller closes it. Connect fills in rec at each stage. The error is
// a *flow.Error.
func (r *Road) Connect(ctx context.Context, rec *flow.Record) (net.Conn, error) {
	if m := r.Limit.Memory; m != nil { // a tunnel needs memory: refuse it before the dial
		if err := m.Take(rec.Client.Addr(), relay.FirstHeld); err != nil {
			return nil, err
		}
		defer m.Give(rec.Client.Addr(), relay.FirstHeld)
	}
	targets, err := r.Judge(ctx, rec)
	if err != nil {
		return nil, err
	}
	return r.Dial(ctx, rec, targets)
}

// Judge takes a flow through the stages before dial. It returns the addresses
// that the flow may use, at least one. The error is a *flow.Error.
func (r *Road) Judge(ctx context.Context, rec *flow.Record) ([]flow.Target, error) {
	r.live.update(rec)
	return r.targets(ctx, rec, nil)
}

// Dial connects to one of the targets that Judge returned for rec. The caller
// closes the connection. The error is a *flow.Error.
func (r *Road) Dial(ctx context.Context, rec *flow.Record, targets []flow.Target) (net.Conn, error) {
	client := rec.Client.Addr()
	if err := r.Limit.Dial(client); err != nil {
		return nil, err
	}
	defer r.Limit.Dialed(client)
	conn, err := r.reach(ctx, rec, targets)
	if err != nil {
		return nil, err
	}
	r.live.update(rec)
	return conn, nil
}

// Probe connects to a target through the same stages as a flow, but it is not a
// flow: it is not logged, not counted and not limited. It fills in rec at each
// stage, and t, unless t is nil, with what each stage decided. The caller closes
// the connection. The error is a *flow.Error.
func (r *Road) Probe(ctx context.Context, rec *flow.Record, t *Trace) (net.Conn, error) {
	targets, err := r.targets(ctx, rec, t)
	if err != nil {
		return nil, err
	}
	return r.reach(ctx, rec, targets)
}

// targets is the order of the stages up to policy(address).
func (r *Road) targets(ctx context.Context, rec *flow.Record, t *Trace) ([]flow.Target, error) {
	h, err := host.Parse(rec.Host)
	if err != nil {
		return nil, err
	}
	p := r.policy.Load()
	q := policy.Query{Client: rec.Client.Addr(), Name: h.Name, Port: rec.Port}
	if err := judgeName(p, q, rec, t); err != nil {
		return nil, err
	}
	if err := r.Ready(ctx); err != nil {
		return nil, err
	}
	answer, err := r.lookUp(ctx, h, rec, t, judgeAlias(p, q, rec, t))
	if err != nil {
		return nil, err
	}
	q.Also = answer.Name
	q.Aliases = answer.Aliases
	q.PublicName = answer.PublicName
	r.live.edit(rec, func(f *liveFlow) {
		f.query = q
		f.judged = p
	})
	return judgeAddresses(p, q, answer.Addrs, r.Routes(ctx, answer.Addrs), rec, t)
}

// judgeName is the stage policy(name).
func judgeName(p *policy.Policy, q policy.Query, rec *flow.Record, t *Trace) error {
	v := p.Name(q)
	t.setName(v)
	if v.Final(p.Mode) {
		rec.Rule = v.Rule
		return denial(v, rec.Host)
	}
	if v.Deny {
		rec.Report = reportOf(v)
	}
	return nil
}

// judgeAlias returns the judge of the names to which aliases lead. It belongs to
// the stage policy(name), and runs within the stage resolve.
func judgeAlias(p *policy.Policy, q policy.Query, rec *flow.Record, t *Trace) resolve.Judge {
	return func(alias string) error {
		v := p.Alias(q, alias)
		t.addAlias(alias, v)
		if v.Final(p.Mode) {
			rec.Rule = v.Rule
			return denial(v, alias)
		}
		if v.Deny && rec.Report == "" {
			rec.Report = reportOf(v)
		}
		return nil
	}
}

// lookUp is the stage resolve.
func (r *Road) lookUp(ctx context.Context, h host.Host, rec *flow.Record, t *Trace, judge resolve.Judge) (resolve.Answer, error) {
	start := time.Now()
	answer, err := r.Resolver.LookupJudged(ctx, rec.Client.Addr(), h, judge)
	rec.Source = answer.Source
	if !h.Addr.IsValid() {
		rec.Resolve = time.Since(start)
	}
	t.setAnswer(answer)
	return answer, err
}

// judgeAddresses is the stage policy(address). It returns the addresses that
// pass. If none passes, the error is the first denial.
func judgeAddresses(p *policy.Policy, q policy.Query, addrs []netip.Addr, routed []bool, rec *flow.Record, t *Trace) ([]flow.Target, error) {
	var targets []flow.Target
	var denied error
	for i, a := range addrs {
		v := p.Address(q, a, routed[i])
		t.addAddr(a, v)
		if v.Final(p.Mode) {
			if denied == nil {
				rec.Rule = v.Rule
				denied = denial(v, a.String())
			}
			continue
		}
		if v.Deny && rec.Report == "" {
			rec.Report = reportOf(v)
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

// reportOf says why a flow would have been denied without report mode.
func reportOf(v policy.Verdict) string {
	if v.Rule == "" {
		return v.Reason.String()
	}
	return v.Reason.String() + " " + v.Rule
}

// reach is the stage dial.
func (r *Road) reach(ctx context.Context, rec *flow.Record, targets []flow.Target) (net.Conn, error) {
	start := time.Now()
	conn, target, err := r.Dialer.Dial(ctx, targets)
	rec.Dial = time.Since(start)
	rec.Addr = target.Addr
	rec.Path = target.Path
	if err != nil {
		return nil, r.withCarrier(rec, err)
	}
	return conn, nil
}

// withCarrier adds the peer that carries rec's target to the cause in err, if the
// target did not answer: the peer may be why. The cause is for the log and for
// explain; the hint goes to clients, which need not know the address and the peer.
// It does not change err itself, which others may hold.
func (r *Road) withCarrier(rec *flow.Record, err error) error {
	fe, ok := errors.AsType[*flow.Error](err)
	if !ok || rec.Path != flow.Tailnet || fe.Class != flow.Timeout && fe.Class != flow.Unreachable {
		return err
	}
	addr := rec.Addr.Addr()
	carrier := r.CarrierText(addr)
	if carrier == "" {
		carrier = "no peer routes it any more"
	}
	more := *fe
	more.Err = &carried{fe.Err, addr.String() + ": " + carrier}
	return &more
}

// carried is an error with the peer that carries its target.
type carried struct {
	cause error // nil if the class says it all
	text  string
}

func (e *carried) Error() string {
	if e.cause == nil {
		return e.text
	}
	return e.cause.Error() + "; " + e.text
}

func (e *carried) Unwrap() error { return e.cause }

// Tunnel takes over both connections and the client's place in Limit. It relays
// until both directions have ended, and then finishes rec and calls Limit.Leave.
// It returns at once.
func (r *Road) Tunnel(rec *flow.Record, p flow.Pair) {
	r.live.update(rec)
	p.Owner = rec.Client.Addr()
	if m := r.Limit.Memory; m != nil && m.Greedy(p.Owner) {
		socket.Shrink(p.Client, scarceBuffer)
		socket.Shrink(p.Target, scarceBuffer)
	}
	moved, end := r.Relay.Start(p, func(res relay.Result) {
		defer r.Limit.Leave(rec.Client.Addr())
		rec.Up = res.Up
		rec.Down = res.Down
		rec.Err = r.withCarrier(rec, res.Err)
		r.Finish(rec)
	})
	r.live.edit(rec, func(f *liveFlow) { f.moved = moved })
	r.revocable(rec, end)
}

// scarceBuffer is how many bytes a tunnel receives ahead if memory is scarce when
// it begins, or if its client holds much.
const scarceBuffer = 32 << 10

// Finish ends a flow: it completes rec and passes it to Finished.
func (r *Road) Finish(rec *flow.Record) {
	rec.Total = time.Since(rec.Start)
	if cause := r.cutCause.Load(); cause != nil && rec.Err != nil && flow.ClassOf(rec.Err) != flow.Cut {
		rec.Err = cause
	}
	r.live.remove(rec)
	r.Finished(rec)
}

// denial turns a verdict into the error for the client. target is the name or
// the address that was judged.
func denial(v policy.Verdict, target string) error {
	e := &flow.Error{Class: flow.Denied, Op: "policy", Target: target}
	switch v.Reason {
	case policy.ByRule:
		e.Hint = "rule " + v.Rule + " of Pando's policy denies it"
		e.Err = errors.New("denied by rule " + v.Rule)
		if v.Alias != "" {
			e.Hint = "the name is an alias (CNAME) of another one, which rule " + v.Rule + " of Pando's policy denies"
			e.Err = errors.New("denied by rule " + v.Rule + ", which matches the alias " + v.Alias)
		}
	case policy.ByDefault:
		e.Hint = "no rule of Pando's policy allows it"
		e.Err = errors.New("no rule allows it, and policy.default is deny")
	case policy.PrivateAnswer:
		e.Hint = "this public name has a private address, which resolve.privateAnswers denies; if that is meant, add its zone to resolve.privateZones"
		e.Err = errors.New("a private address of a public name")
	case policy.Forbidden:
		e.Hint = "Pando never connects to loopback, link-local, metadata and multicast addresses, and never to itself; if the client means an address of its own, add it to the client's NO_PROXY"
		e.Err = errors.New("forbidden address")
	case policy.NotRouted:
		e.Class = flow.NoRoute
		e.Hint = "no tailnet peer routes the target's address: advertise and approve a route for it, or allow it directly with policy.direct"
		e.Err = errors.New("no tailnet peer routes it")
	}
	return e
}
