package datapath

import (
	"net/netip"

	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
)

// Trace is what the stages of the road did with one request, for a person who
// asks why. What a request did not come to is nil. Flows are walked with none.
type Trace struct {
	Name   *policy.Verdict // of policy(name)
	Answer *resolve.Answer // without addresses when the lookup failed
	Addrs  []Judged        // of policy(address), in the order of the answer
}

// Judged is an address with the verdict on it.
type Judged struct {
	Addr netip.Addr
	policy.Verdict
}

func (t *Trace) named(v policy.Verdict) {
	if t != nil {
		t.Name = &v
	}
}

func (t *Trace) looked(a resolve.Answer) {
	if t != nil {
		t.Answer = &a
	}
}

func (t *Trace) judged(a netip.Addr, v policy.Verdict) {
	if t != nil {
		t.Addrs = append(t.Addrs, Judged{a, v})
	}
}
