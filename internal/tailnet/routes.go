package tailnet

import (
	"context"
	"net/netip"
	"time"

	"tailscale.com/tstime"
)

// Routes reports whether a peer of the tailnet carries addr.
func (n *Node) Routes(addr netip.Addr) bool { return n.routes(addr.Unmap()) }

func (n *Node) routes(addr netip.Addr) bool {
	p, ok := n.lb.PeerForIP(addr)
	return ok && !p.IsSelf
}

// A route that vanishes often comes back: a control server that restarts knows
// a subnet router as offline until that has found it again.
const (
	routeMemory = time.Minute     // how long a lost route is hoped for
	routeWait   = 5 * time.Second // how long one caller waits for it
	routesKept  = 4096            // addresses remembered

	// routeWaitBack is routeWait when we are back at the control server for less than
	// routeMemory: a subnet router looks for one that was away every half minute.
	routeWaitBack = 30 * time.Second
)

// AwaitRoute is AwaitRoutes for one address.
func (n *Node) AwaitRoute(ctx context.Context, addr netip.Addr) bool {
	return n.AwaitRoutes(ctx, []netip.Addr{addr})[0]
}

// AwaitRoutes is Routes for each of addrs, except that it waits a moment, when
// none is routed, for a route which one had in the last minute and has lost.
func (n *Node) AwaitRoutes(ctx context.Context, addrs []netip.Addr) []bool {
	routed, any, lost := n.routesOf(addrs)
	if any || !lost {
		return routed
	}
	n.log.Debug("a route is gone; waiting for it", "addrs", addrs)
	for begin := time.Now(); !any && time.Since(begin) < n.patience() && ctx.Err() == nil; {
		tstime.Sleep(ctx, 50*time.Millisecond)
		routed, any, _ = n.routesOf(addrs)
	}
	return routed
}

// patience is how long a lost route is waited for now.
func (n *Node) patience() time.Duration {
	if back := n.controlBack.Load(); back != nil && time.Since(*back) < routeMemory {
		return routeWaitBack
	}
	return routeWait
}

// routesOf looks at each of addrs, and remembers those that are routed. any says
// that one is, lost that one was not long ago.
func (n *Node) routesOf(addrs []netip.Addr) (routed []bool, any, lost bool) {
	routed = make([]bool, len(addrs))
	for i, addr := range addrs {
		addr = addr.Unmap()
		last, known := n.routed.Get(addr)
		if routed[i] = n.routes(addr); !routed[i] {
			lost = lost || known && time.Since(last) <= routeMemory
			continue
		}
		any = true
		if time.Since(last) > routeMemory/4 {
			n.routed.Add(addr, time.Now())
		}
	}
	return routed, any, lost
}
