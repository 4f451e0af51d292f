// Package own knows which addresses lead back to the replica: those of its host, and
// those where clients reach its fleet. It does not judge them.
package own

import (
	"net"
	"net/netip"
)

// IsHostAddr reports whether a is an address of this host. It also reports true
// when the host's addresses cannot be read: a wrong no could start a loop.
func IsHostAddr(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, i := range addrs {
		if n, ok := i.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a {
				return true
			}
		}
	}
	return false
}
