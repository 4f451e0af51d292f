// Package own knows which addresses lead back to the replica: those of its host, and
// those where clients reach its fleet. It does not judge them.
package own

import (
	"net"
	"net/netip"
	"sync"
	"time"
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
// from inside a pod.
func Near(a netip.Addr) bool {
	near.mu.Lock()
	defer near.mu.Unlock()
	if near.read.IsZero() || time.Since(near.read) > nearFor {
		near.read = time.Now()
		near.prefixes = networks()
	}
	for _, p := range near.prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// networks returns the prefixes of this host's interfaces.
func networks() (list []netip.Prefix) {
	addrs, _ := net.InterfaceAddrs()
	for _, i := range addrs {
		n, ok := i.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		ones, _ := n.Mask.Size()
		if ok && ones > 0 {
			list = append(list, netip.PrefixFrom(ip.Unmap(), ones).Masked())
		}
	}
	return list
}
