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
// DialForwarded made, by the connection's own address (forwardedKey).
var forwarded sync.Map

// forwardedKey is the address of a connection that DialForwarded made. TCP and UDP
// have ports of their own.
type forwardedKey struct {
	network string // "tcp" or "udp", as net.Addr says it
	addr    netip.AddrPort
}

// DialForwarded connects to a port of this host's loopback for a client that
// reached this process in another way. network is "tcp" or "udp". ClientAddr of the
// accepted connection, or ClientAt of a packet's source, returns client. The caller
// calls forget when the connection has ended.
//
// The connection is bound and registered before it is made, so whoever accepts
// it finds the client.
func DialForwarded(ctx context.Context, network string, port uint16, client netip.AddrPort) (c net.Conn, forget func(), err error) {
	key := forwardedKey{network: network}
	d := net.Dialer{
		Control: func(_, _ string, raw syscall.RawConn) error {
			bound, err := bind(raw, ForwardedSource)
			if err != nil {
				return err
			}
			key.addr = bound
			forwarded.Store(key, client)
			return nil
		},
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	c, err = d.DialContext(ctx, network+"4", to.String())
	forget = func() { forwarded.Delete(key) }
	if err != nil {
		forget()
		return nil, nil, err
	}
	return c, forget, nil
}

// introduced has the client (netip.AddrPort) of each connection (*net.TCPConn) that
// was introduced.
var introduced sync.Map

// Introduce makes client the client of c, as ClientAddr returns it, until Forget: who
// is at the other end of c has said for whom it speaks. The connection stays what it
// is, without a wrapper.
func Introduce(c *net.TCPConn, client netip.AddrPort) { introduced.Store(c, client) }

// Forget ends what Introduce has begun. It does nothing for other connections.
func Forget(c *net.TCPConn) { introduced.Delete(c) }

// ClientAddr returns the client of c: the one that Introduce has named, the one for
// which DialForwarded made c, or else the address at the other end. An IPv4-mapped
// IPv6 address is returned as IPv4. The result is the zero AddrPort when c is neither a
// TCP nor a UDP connection.
func ClientAddr(c net.Conn) netip.AddrPort {
	if tcp, ok := c.(*net.TCPConn); ok {
		if client, ok := introduced.Load(tcp); ok {
			return client.(netip.AddrPort)
		}
	}
	return ClientAt(c.RemoteAddr())
}

// ClientAt is ClientAddr for a packet that came from remote, or for a connection that
// was not introduced.
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
	if client, ok := forwarded.Load(forwardedKey{remote.Network(), ap}); ok {
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
