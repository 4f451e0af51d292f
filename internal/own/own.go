// Package own knows which addresses lead back to the replica: those of its host, and
// those where clients reach its fleet. It does not judge them.
package own

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// IsHostAddr reports whether a is an address of this host. It also reports true
// when the host's addresses cannot be read: a wrong no could start a loop.
func IsHostAddr(a netip.Addr) bool {
	list, err := interfaces()
	return err != nil || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Addr() == a })
}

// near is what Near knows: the networks of this host's interfaces.
var near struct {
	mu       sync.Mutex
	read     time.Time // zero before the first time
	prefixes []netip.Prefix
}

// nearFor is how long the networks of this host are used before they are read again.
const nearFor = 10 * time.Second

// Near reports whether a is in a network to which an interface of this host is
// attached. In a pod this is the pod network of the node, as far as the interface's
// prefix shows it, and the nodes' network with hostNetwork. Others cannot be known
// from inside a pod. When the networks cannot be read, the last ones count; before
// the first time every address is near.
func Near(a netip.Addr) bool {
	near.mu.Lock()
	defer near.mu.Unlock()
	if near.read.IsZero() || time.Since(near.read) > nearFor {
		list, err := interfaces()
		switch {
		case err == nil:
			near.prefixes = list
			near.read = time.Now()
		case near.read.IsZero():
			return true
		}
	}
	return slices.ContainsFunc(near.prefixes, func(p netip.Prefix) bool { return p.Bits() > 0 && p.Contains(a) })
}

// interfaces returns the addresses of this host's interfaces, each with the length of
// its network's prefix.
func interfaces() (list []netip.Prefix, err error) {
	addrs, err := net.InterfaceAddrs()
	for _, i := range addrs {
		n, ok := i.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		ones, _ := n.Mask.Size()
		if ok {
			list = append(list, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	return list, err
}
