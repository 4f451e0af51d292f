package tailnet

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tailscale.com/net/tsaddr"

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
	host, forget, err := socket.DialForwarded(n.ctx, port, src)
	if err != nil {
		n.log.Debug("peer reached no listener", "peer", src.String(), "port", port, "err", err)
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
