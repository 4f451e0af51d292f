//go:build unix

package socket

import (
	"errors"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// bind binds a socket that is not connected yet to a free port of a, which is
// an IPv4 address, and returns the two.
func bind(raw syscall.RawConn, a netip.Addr) (netip.AddrPort, error) {
	var bound unix.Sockaddr
	var serr error
	err := raw.Control(func(fd uintptr) {
		serr = unix.Bind(int(fd), &unix.SockaddrInet4{Addr: a.As4()})
		if serr == nil {
			bound, serr = unix.Getsockname(int(fd))
		}
	})
	if err := errors.Join(err, serr); err != nil {
		return netip.AddrPort{}, err
	}
	v4, ok := bound.(*unix.SockaddrInet4)
	if !ok {
		return netip.AddrPort{}, errors.New("the bound address is not IPv4")
	}
	return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), uint16(v4.Port)), nil
}
