package tailnet

import (
	"context"
	"net/netip"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// running reports whether the node is on the tailnet now.
func (e *engine) running() bool { return e.lb.State() == ipn.Running }

// peerFor returns the peer that carries addr. The result is false when no peer
// does, and for the node's own addresses.
func (e *engine) peerFor(addr netip.Addr) (tailcfg.NodeView, bool) {
	p, ok := e.lb.PeerForIP(addr.Unmap())
	if !ok || p.IsSelf {
		return tailcfg.NodeView{}, false
	}
	return p.Node, true
}

// routers returns the peers that carry routes, except those that the control
// server reports as offline.
func (e *engine) routers() (list []tailcfg.NodeView) {
	nm := e.lb.NetMapWithPeers()
	if nm == nil {
		return nil
	}
	for _, p := range nm.Peers {
		if p.Addresses().Len() == 0 || p.AllowedIPs().Len() <= p.Addresses().Len() {
			continue
		}
		if online, ok := p.Online().GetOk(); ok && !online {
			continue
		}
		list = append(list, p)
	}
	return list
}

// resetSession discards the WireGuard session with the peer that carries addr.
func (e *engine) resetSession(addr netip.Addr) {
	if p, ok := e.peerFor(addr); ok {
		e.sys.Engine.Get().ResetDevicePeer(p.Key())
	}
}

// pingOnce sends one ping to addr and reports whether the answer came within d.
// Without an answer it always takes d.
func (e *engine) pingOnce(ctx context.Context, addr netip.Addr, kind tailcfg.PingType, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	res, err := e.lb.Ping(ctx, addr, kind, 0)
	if err == nil && res.Err == "" {
		return true
	}
	<-ctx.Done() // an error can come at once: do not spin
	return false
}

// ping sends pings to addr until one is answered. It returns the error of ctx
// when that ends first.
func (e *engine) ping(ctx context.Context, addr netip.Addr, kind tailcfg.PingType) error {
	for !e.pingOnce(ctx, addr, kind, pingEvery) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// callMeMaybe makes the peer look for paths to us now. A peer that knew this
// device before a restart trusts its old address for 6.5 s more, and would
// answer the handshake there. It looks for the new address when we ask it to,
// and the engine asks when it sends data and knows no path. A send of no packets
// is enough.
func (e *engine) callMeMaybe(peer key.NodePublic) {
	mc := e.sys.MagicSock.Get()
	//lint:ignore SA1019 deprecated for what is sent over the network; it is the form that ParseEndpoint reads
	if ep, err := mc.ParseEndpoint(peer.UntypedHexString()); err == nil {
		mc.Send(nil, ep, 0)
	}
}
