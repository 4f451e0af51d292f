package tailnet

import (
	"net"
	"net/netip"
	"slices"

	"tailscale.com/net/tsaddr"
	"tailscale.com/types/nettype"
)

// inboundTCP decides who serves a flow that a peer opens to dst: the handler of
// Options first. The engine by itself would forward a flow to this node's own
// address in userspace mode to the host's loopback, where the peer then looks
// like a local process. Package inbound keeps them apart. Intercept with a nil
// handler refuses the flow.
func (n *Node) inboundTCP(src, dst netip.AddrPort) (handler func(net.Conn), intercept bool) {
	if n.checkTailnet() != nil {
		return nil, true
	}
	if n.opts.ServeTCP != nil {
		handler, intercept = n.opts.ServeTCP(src, dst)
		if intercept {
			return handler, true
		}
	}
	if n.opts.Mode == Userspace && slices.Contains(n.Addrs(), dst.Addr()) {
		return n.host.TCP(src, dst.Port()), true
	}
	return nil, isHostsOwn(dst.Addr())
}

// inboundUDP is inboundTCP for UDP.
func (n *Node) inboundUDP(src, dst netip.AddrPort) (handler func(nettype.ConnPacketConn), intercept bool) {
	if n.checkTailnet() != nil {
		return nil, true
	}
	if n.opts.ServeUDP != nil {
		serve, intercept := n.opts.ServeUDP(src, dst)
		if intercept && serve != nil {
			return func(c nettype.ConnPacketConn) { serve(c) }, true
		}
		if intercept {
			return nil, true
		}
	}
	if n.opts.Mode == Userspace && slices.Contains(n.Addrs(), dst.Addr()) {
		if serve := n.host.UDP(src, dst.Port()); serve != nil {
			return func(c nettype.ConnPacketConn) { serve(c) }, true
		}
		return nil, true
	}
	return nil, isHostsOwn(dst.Addr())
}

// isHostsOwn reports whether a, or the IPv4 address behind the 4via6 address a,
// is an address at which only this host's own processes may arrive.
func isHostsOwn(a netip.Addr) bool {
	if tsaddr.IsViaPrefix(netip.PrefixFrom(a, a.BitLen())) {
		a = tsaddr.UnmapVia(a)
	}
	a = a.Unmap()
	return a.IsLoopback() || a.IsUnspecified()
}
