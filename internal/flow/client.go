package flow

import (
	"io"
	"net"
	"net/netip"
	"time"
)

// ClientAddr returns the address at c's other end, IPv4 in its own form. It is
// the zero AddrPort when c has none that is IP.
func ClientAddr(c net.Conn) netip.AddrPort {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// CloseGently closes c so that what was written arrives: a close with unread
// bytes would send a reset, which can overtake it (RFC 9112 section 9.6). It
// takes half a second at most.
func CloseGently(c *net.TCPConn) {
	c.CloseWrite()
	c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	io.Copy(io.Discard, io.LimitReader(c, 256<<10))
	c.Close()
}
