// Package inbound connects tailnet peers in userspace mode to what listens on this host.
// The engine by itself connects for them from 127.0.0.1, where they look like local
// processes. Here socket.ClientAddr returns the peer. The package does not decide which
// peers may connect.
package inbound

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Host is the host of a node. Its methods may be called concurrently.
type Host struct {
	Ctx context.Context // its end ends no connection, but lets no new one begin
	Log *slog.Logger

	packetFlows atomic.Int64 // ports of peers that have a UDP port of this host
}

// takenWithin is how long the engine may take to start a handler that it got.
const takenWithin = 10 * time.Second

// TCP connects a peer, whose address is src, to a port of this host's
// loopback. It returns the handler for the peer's connection, or nil if nothing
// listens there: the engine then refuses the peer. It connects before the engine
// accepts the peer. If the engine does not start the handler, the connection is
// closed.
func (h *Host) TCP(src netip.AddrPort, port uint16) func(net.Conn) {
	host, forget := h.dial("tcp", src, port)
	if host == nil {
		return nil
	}
	end := func() {
		host.Close()
		forget()
	}
	unused := time.AfterFunc(takenWithin, end)
	return func(c net.Conn) {
		defer flow.CatchIn(h.Ctx, new(error))
		unused.Stop()
		defer end()
		defer c.Close()
		var copies sync.WaitGroup
		copies.Go(func() { h.copyAndEnd(host, c) })
		copies.Go(func() { h.copyAndEnd(c, host) })
		copies.Wait()
	}
}

// dial connects to a port of this host's loopback for a peer. It returns nil if
// that fails. The caller calls forget when the connection has ended.
func (h *Host) dial(network string, src netip.AddrPort, port uint16) (host net.Conn, forget func()) {
	host, forget, err := socket.DialForwarded(h.Ctx, network, port, src)
	if err != nil {
		h.Log.Debug("peer reached no listener", "peer", src.String(), "port", port, "network", network, "err", err)
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

// UDP does for the datagrams of a peer's port what TCP does for a connection. It returns
// nil, too, if too many ports of peers have one of this host.
func (h *Host) UDP(src netip.AddrPort, port uint16) func(net.Conn) {
	if h.packetFlows.Add(1) > maxPacketFlows {
		h.packetFlows.Add(-1)
		return nil
	}
	host, forget := h.dial("udp", src, port)
	if host == nil {
		h.packetFlows.Add(-1)
		return nil
	}
	return func(c net.Conn) {
		defer flow.CatchIn(h.Ctx, new(error))
		defer h.packetFlows.Add(-1)
		defer forget()
		end := func() {
			host.Close()
			c.Close()
		}
		defer end()
		var copies sync.WaitGroup
		copies.Go(func() { h.copyPackets(host, c, end) })
		copies.Go(func() { h.copyPackets(c, host, end) })
		copies.Wait()
	}
}

// copyPackets copies datagrams of at most maxPacket bytes until src ends, or sends
// none for packetsIdle. Then it calls end.
func (h *Host) copyPackets(dst, src net.Conn, end func()) {
	defer flow.CatchIn(h.Ctx, new(error))
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
func (h *Host) copyAndEnd(dst, src net.Conn) {
	var err error
	defer func() {
		if err != nil {
			socket.Abort(dst)
			socket.Abort(src)
		}
	}()
	defer flow.CatchIn(h.Ctx, &err)
	_, err = io.Copy(dst, src)
	if err == nil {
		socket.CloseWrite(dst)
	}
}
