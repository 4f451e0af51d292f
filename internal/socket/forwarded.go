package socket

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// ForwardedSource is the address from which DialForwarded connects. Nothing
// else of this host does, so that a connection from it is never taken for one
// of a local process, even after its registration has ended.
var ForwardedSource = netip.AddrFrom4([4]byte{127, 9, 0, 1})

// forwarded has the client (netip.AddrPort) of each connection that
// DialForwarded made, by the connection's own address.
var forwarded sync.Map

// DialForwarded connects to a port of this host's loopback for a client that
// reached this process in another way. ClientAddr of the accepted connection
// returns client. The caller calls forget when the connection has ended.
//
// The connection is bound and registered before it is made, so whoever accepts
// it finds the client.
func DialForwarded(ctx context.Context, port uint16, client netip.AddrPort) (c *net.TCPConn, forget func(), err error) {
	var local netip.AddrPort
	d := net.Dialer{
		Control: func(_, _ string, raw syscall.RawConn) error {
			bound, err := bind(raw, ForwardedSource)
			if err != nil {
				return err
			}
			local = bound
			forwarded.Store(local, client)
			return nil
		},
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	conn, err := d.DialContext(ctx, "tcp4", to.String())
	forget = func() { forwarded.Delete(local) }
	if err != nil {
		forget()
		return nil, nil, err
	}
	return conn.(*net.TCPConn), forget, nil
}

// ClientAddr returns the address at the other end of c, or the client for which
// DialForwarded made c. An IPv4-mapped IPv6 address is returned as IPv4. The
// result is the zero AddrPort when c is neither a TCP nor a UDP connection.
func ClientAddr(c net.Conn) netip.AddrPort { return ClientAt(c.RemoteAddr()) }

// ClientAt is ClientAddr for a connection, or a packet, that came from remote.
func ClientAt(remote net.Addr) netip.AddrPort {
	a, ok := remote.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	if ap.Addr() != ForwardedSource {
		return ap
	}
	if client, ok := forwarded.Load(ap); ok {
		return client.(netip.AddrPort)
	}
	return ap
}

// IsLocal reports whether a client with this address, as ClientAddr returns it,
// is a process of this network namespace: it came over the loopback, and no
// tailnet peer stands behind it.
func IsLocal(client netip.Addr) bool {
	return client.IsLoopback() && client != ForwardedSource
}
