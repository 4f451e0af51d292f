// Package session keeps WireGuard sessions with peers that carry routes. It makes
// them before they are needed, checks them, and replaces those that a peer has
// lost.
package session

import (
	"context"
	"net/netip"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnlocal"
	"tailscale.com/tailcfg"
	"tailscale.com/tsd"
	"tailscale.com/types/key"
)

// Peers reaches the peers of a node through the parts of its engine.
type Peers struct {
	Backend *ipnlocal.LocalBackend
	Sys     *tsd.System
}

// Running reports whether the node is on the tailnet now.
func (p *Peers) Running() bool { return p.Backend.State() == ipn.Running }

// Carrier returns the peer that carries addr. The result is false when no peer
// does, and for the node's own addresses.
func (p *Peers) Carrier(addr netip.Addr) (tailcfg.NodeView, bool) {
	match, ok := p.Backend.PeerForIP(addr.Unmap())
	if !ok || match.IsSelf {
		return tailcfg.NodeView{}, false
	}
	return match.Node, true
}

// routers returns the peers that carry routes, except those that the control
// server reports as offline.
func (p *Peers) routers() (list []tailcfg.NodeView) {
	nm := p.Backend.NetMapWithPeers()
	if nm == nil {
		return nil
	}
	for _, peer := range nm.Peers {
		if peer.Addresses().Len() == 0 || peer.AllowedIPs().Len() <= peer.Addresses().Len() {
			continue
		}
		if online, ok := peer.Online().GetOk(); ok && !online {
			continue
		}
		list = append(list, peer)
	}
	return list
}

// Reset discards the WireGuard session with the peer that carries addr. The next
// packet to that peer starts a new session. Without such a peer it does nothing.
func (p *Peers) Reset(addr netip.Addr) {
	if peer, ok := p.Carrier(addr); ok {
		p.Sys.Engine.Get().ResetDevicePeer(peer.Key())
	}
}

// pingOnce sends one ping to addr and reports whether the answer came within d.
// Without an answer it always takes d.
func (p *Peers) pingOnce(ctx context.Context, addr netip.Addr, kind tailcfg.PingType, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	res, err := p.Backend.Ping(ctx, addr, kind, 0)
	if err == nil && res.Err == "" {
		return true
	}
	<-ctx.Done() // an error can come at once: do not spin
	return false
}

// ping sends pings to addr until one is answered. It returns the error of ctx
// when that ends first.
func (p *Peers) ping(ctx context.Context, addr netip.Addr, kind tailcfg.PingType) error {
	for !p.pingOnce(ctx, addr, kind, pingEvery) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// callMeMaybe makes the peer look for paths to us now. A peer that knew this
// device before a restart trusts its old address for 6.5 s more, and would
// answer the handshake there. It looks for the new address when we ask it to,
// and the engine asks when it sends data and does not know a path. A send of no
// packets is enough.
func (p *Peers) callMeMaybe(peer key.NodePublic) {
	mc := p.Sys.MagicSock.Get()
	//lint:ignore SA1019 deprecated for what is sent over the network; it is the form that ParseEndpoint reads
	if ep, err := mc.ParseEndpoint(peer.UntypedHexString()); err == nil {
		mc.Send(nil, ep, 0)
	}
}
