package session

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
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
	pingEvery = 250 * time.Millisecond // for the answer to one ping, before the next is sent
	// pathDelay is the time before discovery, and between discovery and the
	// handshake.
	pathDelay = 150 * time.Millisecond
	// handshakeTime bounds one handshake and a ping in it. It is enough for half
	// around the world and back through a relay, twice. WireGuard itself tries
	// again after 5 s.
	handshakeTime = 1200 * time.Millisecond
)

// Warm makes a WireGuard handshake with every peer that is online and carries a
// route, so that the first connection through each does not wait for one. That
// wait can be long: a handshake whose first message is lost, because no path is
// known yet, is tried again only after 5 s.
//
// Warm returns nil when all peers have answered. When ctx ends first, the error
// names a peer that did not answer. Call it once, after the node is up.
func (p *Peers) Warm(ctx context.Context, log *slog.Logger) error {
	var g errgroup.Group
	forgetPaths := sync.OnceFunc(p.Sys.MagicSock.Get().Rebind)
	for _, peer := range p.routers() {
		addr := peer.Addresses().At(0).Addr()
		name := peer.ComputedName()
		g.Go(func() error {
			// First a path, in both directions. By then the peer must have heard
			// of us from the control server: the engine sends call-me-maybe only
			// once in 5 s.
			tstime.Sleep(ctx, pathDelay)
			p.callMeMaybe(peer.Key())
			if err := p.ping(ctx, addr, tailcfg.PingDisco); err != nil {
				return fmt.Errorf("peer %s (%v) does not answer discovery: %w", name, addr, err)
			}
			// Then the handshake, which has one attempt. A peer that has just
			// learned of us answers discovery a moment before its WireGuard
			// knows our key.
			tstime.Sleep(ctx, pathDelay)
			if err := p.handshake(ctx, log, addr, peer.Key(), forgetPaths); err != nil {
				return fmt.Errorf("peer %s (%v) does not answer the WireGuard handshake: %w", name, addr, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// handshake pings a peer inside WireGuard until it answers.
//
// A peer that does not answer may still trust the address that this device had
// before a restart: when it was asked to look for a new address, it did not know
// us yet. So handshake asks again and starts the handshake again. The engine
// asks only when it does not know a path, so forgetPaths comes first. That
// forgets the paths to all peers and therefore runs once.
func (p *Peers) handshake(ctx context.Context, log *slog.Logger, addr netip.Addr, peer key.NodePublic, forgetPaths func()) error {
	for {
		try, cancel := context.WithTimeout(ctx, handshakeTime)
		err := p.ping(try, addr, tailcfg.PingTSMP)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		log.Debug("peer does not answer in WireGuard; trying again", "peer", addr.String())
		forgetPaths()
		p.callMeMaybe(peer)
		p.Reset(addr)
		tstime.Sleep(ctx, pathDelay)
	}
}

// Leftovers drops what the kernel still sends for connections of a predecessor
// with the same address, such as the one before a container restart. Before
// Warm such a packet would start a handshake that is lost, because the peer
// still looks for us at the old place. The zero value drops.
type Leftovers struct {
	released atomic.Bool // by Warm or the first connection of our own
}

// Release lets all packets pass from now on.
func (l *Leftovers) Release() { l.released.Store(true) }

// Filter is a tstun.FilterFunc for outbound packets.
func (l *Leftovers) Filter(p *packet.Parsed, _ *tstun.Wrapper) filter.Response {
	switch {
	case p.IPProto != ipproto.TCP || l.released.Load():
		return filter.Accept
	case p.TCPFlags&packet.TCPSyn != 0: // a connection of ours that did not wait for Warm
		l.Release()
		return filter.Accept
	}
	return filter.DropSilently
}
