package datapath

import (
	"errors"

	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/flow"
)

// SetPolicy replaces the policy. It judges the live flows again, unless p.KeepOpen
// is set, and ends those that p denies. It returns how many these are.
func (r *Road) SetPolicy(p *policy.Policy) (ended int) {
	r.policy.Store(p)
	for _, f := range r.live.revocable() {
		if r.revoke(f) {
			ended++
		}
	}
	return ended
}

// Serving tells the road that rec has a connection to its target, as rec.Addr and
// rec.Path say. end ends the flow because of a *flow.Error. The road may call it
// from another goroutine, even just after Finish. A front that tunnels need not
// call Serving: Tunnel does.
func (r *Road) Serving(rec *flow.Record, end func(error)) {
	r.live.update(rec)
	r.revocable(rec, end)
}

// revocable makes a flow known to SetPolicy. If the policy has changed since the
// flow was judged, SetPolicy may have passed it over, so it is judged again here.
func (r *Road) revocable(rec *flow.Record, end func(error)) {
	var f liveFlow
	r.live.edit(rec, func(live *liveFlow) {
		live.end = end
		f = *live
	})
	if f.judged != nil && f.judged != r.policy.Load() {
		r.revoke(f)
	}
}

// revocable returns the flows that can be ended.
func (l *liveFlows) revocable() (list []liveFlow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.m {
		if f.end != nil && f.judged != nil {
			list = append(list, *f)
		}
	}
	return list
}

// revoke judges a flow by the policy in force, without any lock, and ends it if it
// is denied now. It reports whether it is. The names of an alias are those of the
// lookup that the flow began with.
func (r *Road) revoke(f liveFlow) bool {
	p := r.policy.Load()
	if p.KeepOpen {
		return false
	}
	v := p.Address(f.query, f.Addr.Addr(), f.Path == flow.Tailnet)
	if !v.Final(p.Mode) {
		return false
	}
	var cause error = errors.New("policy.direct does not allow a direct connection any more")
	if v.Reason != policy.NotRouted {
		cause = errors.Unwrap(denial(v, f.Host))
	}
	f.end(&flow.Error{
		Class:  flow.Denied,
		Op:     "revoke",
		Target: f.Host,
		Hint:   "Pando's policy has changed and denies this target now",
		Err:    cause,
	})
	return true
}
