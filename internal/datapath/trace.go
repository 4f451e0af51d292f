package datapath

import (
	"net/netip"

	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
)

// Trace records what the stages of the road decided about one request. Package
// explain shows it. A field is nil if the request ended before its stage. The
// methods do nothing on a nil Trace: flows have none.
type Trace struct {
	Name    *policy.Verdict // of policy(name)
	Aliases []JudgedAlias   // of policy(name) during resolve, in order
	Answer  *resolve.Answer // of resolve; without addresses if the lookup failed
	Addrs   []Judged        // of policy(address), in the order of Answer
}

// JudgedAlias is a name to which an alias leads, and the verdict on it.
type JudgedAlias struct {
	Name string
	policy.Verdict
}

// Judged is an address and the verdict on it.
type Judged struct {
	Addr netip.Addr
	policy.Verdict
}

func (t *Trace) setName(v policy.Verdict) {
	if t != nil {
		t.Name = &v
	}
}

func (t *Trace) addAlias(name string, v policy.Verdict) {
	if t != nil {
		t.Aliases = append(t.Aliases, JudgedAlias{name, v})
	}
}

func (t *Trace) setAnswer(a resolve.Answer) {
	if t != nil {
		t.Answer = &a
	}
}

func (t *Trace) addAddr(a netip.Addr, v policy.Verdict) {
	if t != nil {
		t.Addrs = append(t.Addrs, Judged{a, v})
	}
}
