package tailnet

import (
	"context"
	"net/netip"
	"time"

	"tailscale.com/tstime"
)

// A route that disappears often comes back: a control server that restarts
// reports a subnet router as offline until the router has connected again.
const (
	routeMemory = time.Minute           // how long a lost route is expected to come back
	routeWait   = 5 * time.Second       // how long one caller waits for it
	routePoll   = 50 * time.Millisecond // between two looks
	routesKept  = 4096                  // most addresses remembered

	// routeWaitBack replaces routeWait for routeMemory after the connection to
	// the control server came back: a subnet router looks for a control server
	// that was away every half minute.
	routeWaitBack = 30 * time.Second
)

// Routes reports whether a peer of the tailnet carries addr. None does in the wrong
// tailnet.
func (n *Node) Routes(addr netip.Addr) bool {
	_, ok := n.peers.Carrier(addr)
	return ok && n.checkTailnet() == nil
}

// AwaitRoute is AwaitRoutes for one address.
func (n *Node) AwaitRoute(ctx context.Context, addr netip.Addr) bool {
	return n.AwaitRoutes(ctx, []netip.Addr{addr})[0]
}

// AwaitRoutes returns Routes for each of addrs, in the same order. If none of
// them is routed but one was in the last minute, it first waits for a route: for
// 5 s at most, or 30 s in the minute after a control-server outage, and no longer
// than ctx.
func (n *Node) AwaitRoutes(ctx context.Context, addrs []netip.Addr) []bool {
	routed, any, lost := n.lookUpRoutes(addrs)
	if any || !lost {
		return routed
	}
	n.log.Debug("route is gone; waiting for its return", "addrs", addrs)
	for begin := time.Now(); !any && time.Since(begin) < n.routeWait() && ctx.Err() == nil; {
		tstime.Sleep(ctx, routePoll)
		routed, any, _ = n.lookUpRoutes(addrs)
	}
	return routed
}

// routeWait returns how long AwaitRoutes waits for a lost route now.
func (n *Node) routeWait() time.Duration {
	if time.Since(n.control.Returned()) < routeMemory {
		return routeWaitBack
	}
	return routeWait
}

// lookUpRoutes looks at each of addrs and remembers those that are routed. any
// reports whether one is routed, lost whether one was in the last minute and is
// not now.
func (n *Node) lookUpRoutes(addrs []netip.Addr) (routed []bool, any, lost bool) {
	routed = make([]bool, len(addrs))
	for i, addr := range addrs {
		addr = addr.Unmap()
		last, known := n.routed.Get(addr)
		routed[i] = n.Routes(addr)
		if !routed[i] {
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
