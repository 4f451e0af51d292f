package own

import (
	"net"
	"net/netip"
	"testing"
)

// TestNear checks that the networks of this host's interfaces are near, and others not.
func TestNear(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, _ := netip.AddrFromSlice(n.IP)
		if !Near(ip.Unmap()) || !IsHostAddr(ip.Unmap()) {
			t.Errorf("Near(%v) = %v and IsHostAddr = %v, want true", ip, Near(ip.Unmap()), IsHostAddr(ip.Unmap()))
		}
	}
	if a := netip.MustParseAddr("198.51.100.77"); Near(a) || IsHostAddr(a) {
		t.Errorf("Near(%v) = %v and IsHostAddr = %v, want false", a, Near(a), IsHostAddr(a))
	}
}
