package tailnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// dialFunc opens a TCP connection from src, one of the node's own addresses.
type dialFunc func(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error)

// source returns the node's own address of dst's family, or why dst can't be
// dialled.
func (n *Node) source(dst netip.Addr) (netip.Addr, error) {
	if !n.Up() {
		return netip.Addr{}, ErrNotUp
	}
	if !n.routes(dst) {
		return netip.Addr{}, ErrNoRoute
	}
	for _, a := range n.Addrs() {
		if a.Is4() == dst.Is4() {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: this node has no address of its family", ErrNoRoute)
}

// DialTCP opens a TCP connection to dst through the tailnet. It returns
// ErrNotUp or ErrNoRoute when dst can't be carried, and otherwise errors that
// wrap the errno of the failure, in both modes. The caller closes the
// connection; in userspace mode Close ends it too.
func (n *Node) DialTCP(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	src, err := n.source(dst.Addr())
	if err != nil {
		return nil, opError("tcp", dst, err)
	}
	stuck := time.AfterFunc(stuckAfter, func() { n.suspect(dst.Addr()) })
	defer stuck.Stop()
	c, err := n.dial(ctx, src, dst)
	if err != nil {
		return nil, opError("tcp", dst, err)
	}
	return c, nil
}

// DialUDP opens a connected UDP socket to dst through the tailnet, with the
// errors of DialTCP.
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

// opError gives err the shape that the net package gives its own, once.
func opError(network string, dst netip.AddrPort, err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return err
	}
	return &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(dst), Err: err}
}
