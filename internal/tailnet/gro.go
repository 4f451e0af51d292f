package tailnet

import (
	"net/netip"
	"sync"

	"tailscale.com/net/packet"
	"tailscale.com/net/tstun"
	"tailscale.com/wgengine/filter"
	"tailscale.com/wgengine/netstack/gro"
)

// oneFlow keeps the packets of different flows out of one another's way where
// netstack joins packets of a batch (GRO).
//
// gVisor's GRO.Flush stops at the first packet of each of its buckets: when two
// flows share a bucket, the second one's packet stays where it is, and the
// library puts the GRO back into a pool that all nodes of the process share. So
// the packet comes late, or to the stack of another node, which answers with a
// reset. A GRO that sees one flow alone never holds more than one packet.
type oneFlow struct {
	next tstun.GROFilterFunc

	mu   sync.Mutex
	seen map[*gro.GRO]flowID // what is in the GROs in use, and in some that are not any more
}

type flowID struct{ src, dst netip.AddrPort }

// oneFlowMost bounds oneFlow.seen: what is not in it is flushed too often.
const oneFlowMost = 64

func (o *oneFlow) filter(p *packet.Parsed, t *tstun.Wrapper, g *gro.GRO) (filter.Response, *gro.GRO) {
	id := flowID{p.Src, p.Dst}
	if g != nil && !o.holds(g, id) {
		g.Flush()
		g = nil
	}
	fresh := g == nil
	res, g := o.next(p, t, g)
	if fresh && g != nil {
		o.note(g, id)
	}
	return res, g
}

func (o *oneFlow) holds(g *gro.GRO, id flowID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen[g] == id
}

func (o *oneFlow) note(g *gro.GRO, id flowID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil || len(o.seen) >= oneFlowMost {
		o.seen = map[*gro.GRO]flowID{}
	}
	o.seen[g] = id
}
