package tailnet

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tailscale.com/net/tsaddr"
	"tailscale.com/types/nettype"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// inboundTCP decides who serves a flow that a peer opens to dst: the handler of
// Options first. The engine by itself would forward a flow to this node's own
// address in userspace mode to the host's loopback, where the peer then looks
// like a local process. toHost keeps them apart. Intercept with a nil
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
		return n.toHost(src, dst.Port()), true
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
		return n.packetsToHost(src, dst.Port()), true
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

// takenWithin is how long the engine may take to start a handler that it got.
const takenWithin = 10 * time.Second

// toHost connects a peer, whose address is src, to a port of this host's
// loopback. It returns the handler for the peer's connection, or nil if nothing
// listens there: the engine then refuses the peer. It connects before the engine
// accepts the peer. If the engine does not start the handler, the connection is
// closed.
func (n *Node) toHost(src netip.AddrPort, port uint16) func(net.Conn) {
	host, forget := n.dialHost("tcp", src, port)
	if host == nil {
		return nil
	}
	end := func() {
		host.Close()
		forget()
	}
	unused := time.AfterFunc(takenWithin, end)
	return func(c net.Conn) {
		defer flow.CatchIn(n.ctx, new(error))
		unused.Stop()
		defer end()
		defer c.Close()
		var copies sync.WaitGroup
		copies.Go(func() { n.copyAndEnd(host, c) })
		copies.Go(func() { n.copyAndEnd(c, host) })
		copies.Wait()
	}
}

// dialHost connects to a port of this host's loopback for a peer. It returns nil if
// that fails. The caller calls forget when the connection has ended.
func (n *Node) dialHost(network string, src netip.AddrPort, port uint16) (host net.Conn, forget func()) {
	host, forget, err := socket.DialForwarded(n.ctx, network, port, src)
	if err != nil {
		n.log.Debug("peer reached no listener", "peer", src.String(), "port", port, "network", network, "err", err)
		return nil, nil
	}
	return host, forget
}

const (
	// maxPacket is how long a datagram between a peer and this host may be, in bytes.
	// No DNS client asks for a longer answer.
	maxPacket = 16 << 10
	// packetsIdle is how long a peer's port keeps its port of this host after the last
	// datagram in one of the directions.
	packetsIdle = 30 * time.Second
	// maxPacketFlows bounds how many ports of peers have one at a time.
	maxPacketFlows = 256
)

// packetsToHost is toHost for UDP.
func (n *Node) packetsToHost(src netip.AddrPort, port uint16) func(nettype.ConnPacketConn) {
	if n.packetFlows.Add(1) > maxPacketFlows {
		n.packetFlows.Add(-1)
		return nil
	}
	host, forget := n.dialHost("udp", src, port)
	if host == nil {
		n.packetFlows.Add(-1)
		return nil
	}
	return func(c nettype.ConnPacketConn) {
		defer flow.CatchIn(n.ctx, new(error))
		defer n.packetFlows.Add(-1)
		defer forget()
		end := func() {
			host.Close()
			c.Close()
		}
		defer end()
		var copies sync.WaitGroup
		copies.Go(func() { n.copyPackets(host, c, end) })
		copies.Go(func() { n.copyPackets(c, host, end) })
		copies.Wait()
	}
}

// copyPackets copies datagrams of at most maxPacket bytes until src ends, or sends
// none for packetsIdle. Then it calls end.
func (n *Node) copyPackets(dst, src net.Conn, end func()) {
	defer flow.CatchIn(n.ctx, new(error))
	defer end()
	b := make([]byte, maxPacket)
	for {
		src.SetReadDeadline(time.Now().Add(packetsIdle))
		size, err := src.Read(b)
		if err != nil {
			return
		}
		if _, err := dst.Write(b[:size]); err != nil {
			return
		}
	}
}

// copyAndEnd copies src to dst until src ends, and passes the end on: after an
// error or a panic both connections are reset.
func (n *Node) copyAndEnd(dst, src net.Conn) {
	var err error
	defer func() {
		if err != nil {
			socket.Abort(dst)
			socket.Abort(src)
		}
	}()
	defer flow.CatchIn(n.ctx, &err)
	_, err = io.Copy(dst, src)
	if err == nil {
		socket.CloseWrite(dst)
	}
}
