package tailnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pandoproxy/pando/internal/tailnet/session"
)

// dialFunc opens a TCP connection from src, one of the node's own addresses.
type dialFunc func(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error)

// source returns the node's own address of dst's family. It returns ErrNotUp,
// ErrWrongTailnet or ErrNoRoute when the tailnet cannot carry dst.
func (n *Node) source(dst netip.Addr) (netip.Addr, error) {
	if !n.Up() {
		return netip.Addr{}, ErrNotUp
	}
	if err := n.checkTailnet(); err != nil {
		return netip.Addr{}, err
	}
	if !n.Routes(dst) {
		return netip.Addr{}, ErrNoRoute
	}
	for _, a := range n.Addrs() {
		if a.Is4() == dst.Is4() {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: this node has no address of the same family", ErrNoRoute)
}

// DialTCP opens a TCP connection to dst through the tailnet. Its error is a
// *net.OpError that wraps ErrNotUp, ErrWrongTailnet, ErrNoRoute, or, in both modes, the
// errno of the failure. An end of ctx by its deadline counts as ETIMEDOUT. The caller
// closes the connection. In userspace mode Node.Close ends it too.
func (n *Node) DialTCP(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	src, err := n.source(dst.Addr())
	if err != nil {
		return nil, opError("tcp", dst, err)
	}
	stuck := time.AfterFunc(session.StuckAfter, func() { n.sessions.Suspect(dst.Addr()) })
	defer stuck.Stop()
	c, err := n.dial(ctx, src, dst)
	if err != nil {
		return nil, opError("tcp", dst, err)
	}
	return c, nil
}

// DialUDP opens a connected UDP socket to dst through the tailnet. It returns
// the same errors as DialTCP. The caller closes the socket.
func (n *Node) DialUDP(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	src, err := n.source(dst.Addr())
	if err != nil {
		return nil, opError("udp", dst, err)
	}
	var c net.Conn
	if n.opts.Mode == Kernel {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0))}
		c, err = d.DialContext(ctx, "udp", dst.String())
	} else {
		c, err = n.ns.DialContextUDPWithBind(ctx, src, dst)
	}
	if err != nil {
		return nil, opError("udp", dst, err)
	}
	return c, nil
}

// opError wraps err in a *net.OpError, as package net does, unless it is one.
func opError(network string, dst netip.AddrPort, err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return err
	}
	return &net.OpError{
		Op:   "dial",
		Net:  network,
		Addr: net.TCPAddrFromAddrPort(dst),
		Err:  err,
	}
}
