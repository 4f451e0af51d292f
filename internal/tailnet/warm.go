package tailnet

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"tailscale.com/tailcfg"
)

// pingEvery is how long one ping has before the next.
const pingEvery = 250 * time.Millisecond

// Warm makes a WireGuard handshake with every peer that is online and carries
// a route, so that the first connection through each does not pay for it: a
// handshake whose first message is lost, because no path is known yet, is
// tried again only after 5 s. It returns nil when all have answered, or what
// did not answer before ctx ended. Call it once the node is up.
func (n *Node) Warm(ctx context.Context) error {
	nm := n.lb.NetMapWithPeers()
	if nm == nil {
		return ErrNotUp
	}
	var g errgroup.Group
	for _, p := range nm.Peers {
		if p.Addresses().Len() == 0 || p.AllowedIPs().Len() <= p.Addresses().Len() {
			continue
		}
		if online, ok := p.Online().GetOk(); ok && !online {
			continue
		}
		addr, name := p.Addresses().At(0).Addr(), p.ComputedName()
		g.Go(func() error {
			// First a path: discovery pings go out on all of them. Then the
			// handshake, which has one try on the best.
			for _, kind := range []tailcfg.PingType{tailcfg.PingDisco, tailcfg.PingTSMP} {
				if err := n.ping(ctx, addr, kind); err != nil {
					return fmt.Errorf("peer %s (%v) does not answer %s pings: %w", name, addr, kind, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// ping sends pings until one is answered.
func (n *Node) ping(ctx context.Context, addr netip.Addr, kind tailcfg.PingType) error {
	for {
		try, cancel := context.WithTimeout(ctx, pingEvery)
		res, err := n.lb.Ping(try, addr, kind, 0)
		if err == nil && res.Err == "" {
			cancel()
			return nil
		}
		<-try.Done() // an error may come at once; don't spin
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
