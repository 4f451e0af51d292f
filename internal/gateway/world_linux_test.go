package gateway_test

import (
	"testing"

	"github.com/vishvananda/netlink"
)

func addHostAddr(t *testing.T) string {
	t.Helper()
	const host = "192.0.2.77"
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(host + "/32")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrReplace(lo, addr); err != nil {
		t.Fatal(err)
	}
	return host
}

// addBroadcast gives this namespace a network, and returns its broadcast address.
func addBroadcast(t *testing.T) string {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("198.18.7.1/24")
	if err != nil {
		t.Fatal(err)
	}
	addr.Broadcast = []byte{198, 18, 7, 255}
	if err := netlink.AddrReplace(lo, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.AddrDel(lo, addr) })
	return "198.18.7.255"
}
