package tailnet

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"tailscale.com/net/packet"
	"tailscale.com/net/tstun"
	"tailscale.com/tailcfg"
	"tailscale.com/tstime"
	"tailscale.com/types/ipproto"
	"tailscale.com/types/key"
	"tailscale.com/wgengine/filter"
)

const (
	pingEvery = 250 * time.Millisecond // how long one ping has before the next
	settle    = 150 * time.Millisecond // before discovery, and between it and the handshake
	// handshakeTime is how long one handshake may take, and a ping in it: half around
	// the world and back by way of a relay, twice. WireGuard itself tries again
	// after 5 s.
	handshakeTime = 1200 * time.Millisecond
)

// Warm makes a WireGuard handshake with every peer that is online and carries
// a route, so that the first connection through each does not pay for it: a
// handshake whose first message is lost, because no path is known yet, is
// tried again only after 5 s. It returns nil when all have answered, or what
// did not answer before ctx ended. Call it once the node is up.
func (n *Node) Warm(ctx context.Context) error {
	if !n.Up() {
		return ErrNotUp
	}
	defer n.spoken.Store(true)
	var g errgroup.Group
	forgetPaths := sync.OnceFunc(n.sys.MagicSock.Get().Rebind)
	for _, p := range n.routers() {
		addr, name := p.Addresses().At(0).Addr(), p.ComputedName()
		g.Go(func() error {
			// First a path, in both directions. The peer has to have heard of us
			// from the control server by then: the engine says call-me-maybe once
			// in 5 s.
			tstime.Sleep(ctx, settle)
			n.callMeMaybe(p.Key())
			if err := n.ping(ctx, addr, tailcfg.PingDisco); err != nil {
				return fmt.Errorf("peer %s (%v) does not answer discovery: %w", name, addr, err)
			}
			// Then the handshake, which has one try. A peer that has just
			// learned of us answers discovery a moment before its WireGuard
			// knows our key.
			tstime.Sleep(ctx, settle)
			if err := n.handshake(ctx, addr, p.Key(), forgetPaths); err != nil {
				return fmt.Errorf("peer %s (%v) does not answer the WireGuard handshake: %w", name, addr, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// handshake pings a peer inside of WireGuard until it answers. One that does not
// may still trust the address that this device had before a restart: it did not
// know us yet when it was told to look for a new one. So it is told again, for which
// the engine has to forget the paths that it knows (once, for they are those to all
// peers), and the handshake is begun anew.
func (n *Node) handshake(ctx context.Context, addr netip.Addr, peer key.NodePublic, forgetPaths func()) error {
	for {
		try, cancel := context.WithTimeout(ctx, handshakeTime)
		err := n.ping(try, addr, tailcfg.PingTSMP)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		n.log.Debug("no answer in WireGuard: paths and handshake are begun anew", "peer", addr.String())
		forgetPaths()
		n.callMeMaybe(peer)
		n.ResetSession(addr)
		tstime.Sleep(ctx, settle)
	}
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

// callMeMaybe has the peer look for paths to us now. One that knew this device
// before a restart still trusts its old address for 6.5 s and would answer the
// handshake there; it asks for the new one only when it is told to, which the
// engine does when it sends data and knows no path. A send of no packets is
// all that it takes.
func (n *Node) callMeMaybe(peer key.NodePublic) {
	mc := n.sys.MagicSock.Get()
	//lint:ignore SA1019 deprecated for what goes over the wire; it is the form that ParseEndpoint reads
	if ep, err := mc.ParseEndpoint(peer.UntypedHexString()); err == nil {
		mc.Send(nil, ep, 0)
	}
}

// dropLeftovers holds back what the kernel still sends for connections of a
// predecessor that had the same address, as a restarted container's does:
// before Warm it would begin a handshake that is lost, because the peer looks
// for us at the old place still.
func (n *Node) dropLeftovers(p *packet.Parsed, _ *tstun.Wrapper) filter.Response {
	switch {
	case p.IPProto != ipproto.TCP || n.spoken.Load():
		return filter.Accept
	case p.TCPFlags&packet.TCPSyn != 0: // our own: nobody waited for Warm
		n.spoken.Store(true)
		return filter.Accept
	}
	return filter.DropSilently
}
