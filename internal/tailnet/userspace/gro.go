package userspace

import (
	"net/netip"
	"sync"

	"tailscale.com/net/packet"
	"tailscale.com/net/tstun"
	"tailscale.com/wgengine/filter"
	"tailscale.com/wgengine/netstack/gro"
)

// OneFlow makes sure that netstack joins only packets of the same flow into one
// batch (GRO).
//
// gVisor's GRO.Flush stops at the first packet of each of its buckets. When two
// flows share a bucket, the second flow's packet stays there, and the library
// puts the GRO back into a pool that all nodes of the process share. So the
// packet arrives late, or at the stack of another node, which answers with a
// reset. A GRO that sees only one flow never holds more than one packet.
type OneFlow struct {
	Next tstun.GROFilterFunc // netstack's own filter

	mu   sync.Mutex
	seen map[*gro.GRO]flowID // the flow in each GRO in use, and in some that are no longer used
}

type flowID struct{ src, dst netip.AddrPort }

// flowsKept bounds OneFlow.seen. A GRO that is missing there is only flushed more
// often than necessary.
const flowsKept = 64

// Filter is a tstun.GROFilterFunc.
func (o *OneFlow) Filter(p *packet.Parsed, t *tstun.Wrapper, g *gro.GRO) (filter.Response, *gro.GRO) {
	id := flowID{p.Src, p.Dst}
	if g != nil && !o.holds(g, id) {
		g.Flush()
		g = nil
	}
	fresh := g == nil
	res, g := o.Next(p, t, g)
	if fresh && g != nil {
		o.remember(g, id)
	}
	return res, g
}

// holds reports whether g holds packets of the flow id.
func (o *OneFlow) holds(g *gro.GRO, id flowID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen[g] == id
}

// remember records that g holds packets of the flow id.
func (o *OneFlow) remember(g *gro.GRO, id flowID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil || len(o.seen) >= flowsKept {
		o.seen = map[*gro.GRO]flowID{}
	}
	o.seen[g] = id
}
