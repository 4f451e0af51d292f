package tailnet_test

import (
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// The priorities of a node's rules, and the first and last of its routing tables.
const (
	lookupPriority = 5270
	refusePriority = 5271
	firstTable     = 52
	lastTable      = 67
)

var families = []int{unix.AF_INET, unix.AF_INET6}

// checkKernelClean looks for what a closed node could have left.
func checkKernelClean(t *testing.T) {
	t.Helper()
	if _, err := net.InterfaceByName("tailscale0"); err == nil {
		t.Error("the TUN device tailscale0 is still there")
	}
	for _, family := range families {
		for _, r := range ownRules(t, family) {
			t.Errorf("a rule is still there: %v", r)
		}
	}
	if tables := tablesInUse(t); len(tables) > 0 {
		t.Errorf("routes are still there, in the tables %v", tables)
	}
}

// ownRules returns the rules that nodes have installed.
func ownRules(t *testing.T, family int) (own []netlink.Rule) {
	t.Helper()
	rules, err := netlink.RuleList(family)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Priority == lookupPriority || r.Priority == refusePriority {
			own = append(own, r)
		}
	}
	return own
}

// tablesInUse returns the routing tables of nodes that hold routes.
func tablesInUse(t *testing.T) (tables []int) {
	t.Helper()
	for table := firstTable; table <= lastTable; table++ {
		for _, family := range families {
			routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			if err != nil {
				t.Fatal(err)
			}
			if len(routes) > 0 && !slices.Contains(tables, table) {
				tables = append(tables, table)
			}
		}
	}
	return tables
}

// TestKilledPredecessorsRulesAreRemoved checks that a node removes the rules of a
// killed predecessor that was another device.
func TestKilledPredecessorsRulesAreRemoved(t *testing.T) {
	nstest.NeedKernelMode(t)
	for _, prefix := range []string{"100.64.77.77/32", "fd7a:115c:a1e0::77/128"} {
		_, src, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		lookup := netlink.NewRule()
		lookup.Src = src
		lookup.Priority = lookupPriority
		lookup.Table = firstTable
		refuse := netlink.NewRule()
		refuse.Src = src
		refuse.Priority = refusePriority
		refuse.Type = unix.RTN_UNREACHABLE
		for _, r := range []*netlink.Rule{lookup, refuse} {
			if err := netlink.RuleAdd(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := sharedWorld(t, tailnet.Kernel).join(t, "successor", tailnet.Options{})
	for _, family := range families {
		rules := ownRules(t, family)
		for _, r := range rules {
			if !slices.ContainsFunc(n.Addrs(), func(a netip.Addr) bool { return r.Src.IP.Equal(a.AsSlice()) }) {
				t.Errorf("the rule of another device is still there: %v", r)
			}
		}
		if len(rules) != 2 {
			t.Errorf("%d rules, want the 2 of the node's own address: %v", len(rules), rules)
		}
	}
	if tables := tablesInUse(t); !slices.Equal(tables, []int{firstTable}) {
		t.Errorf("routes are in the tables %v, want only in %d", tables, firstTable)
	}
}

// interfaceFor returns the interface that the kernel would use for packets from
// src to dst. It is empty when the kernel would refuse them.
func interfaceFor(t *testing.T, src, dst netip.Addr) string {
	t.Helper()
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{SrcAddr: src.AsSlice()})
	if err != nil {
		return ""
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Name
}

// TestClientInsideAcceptedRoute checks that a client whose address is inside
// 10.12.0.0/16, which the tailnet routes, can talk to a listener of the host.
// In userspace mode no traffic of the host is routed.
func TestClientInsideAcceptedRoute(t *testing.T) {
	nstest.NeedKernelMode(t)
	w := sharedWorld(t, tailnet.Kernel)
	n := w.join(t, "inside", tailnet.Options{})
	if client := netip.MustParseAddr(nstest.ClientAddr); !n.Routes(client) {
		t.Fatalf("Routes(%v) = false, want true", client)
	}
	ln, err := net.Listen("tcp", nstest.HereAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go echo(c)
		}
	}()
	c, err := nstest.DialFromClient(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pingPong(t, c)
	pingPong(t, dial(t, n, w.cloud.Serve(echo))) // the tailnet works at the same time
}

// TestNothingLeaksWhenRouteGoes checks that packets to an address which the
// tailnet does not route any more do not leave through the pod's own network, not
// even those of an open connection. 10.12.5.0/24 is both behind the cloud node and
// on a link of the pod. In userspace mode connections have no other way.
func TestNothingLeaksWhenRouteGoes(t *testing.T) {
	nstest.NeedKernelMode(t)
	w := newWorld(t, tailnet.Kernel)
	n := w.join(t, "tight", tailnet.Options{})
	inside := netip.MustParseAddr(nstest.ClientAddr)
	target := netip.AddrPortFrom(inside, w.cloud.NewAddr().Port())
	w.cloud.Handle(target, echo)
	open := dial(t, n, target)
	pingPong(t, open)
	self := n.Addrs()[0]
	if got := interfaceFor(t, self, inside); got != "tailscale0" {
		t.Fatalf("the node's packets to %v use the interface %q, want tailscale0", inside, got)
	}
	const link = "veth-here"
	if got := interfaceFor(t, netip.MustParseAddr(nstest.HereAddr), inside); got != link {
		t.Fatalf("the pod's own packets to %v use the interface %q, want %s", inside, got, link)
	}
	if err := w.net.ApproveRoutes("cloud", testnet.Network6); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the route to go", func() bool { return !n.Routes(inside) })
	testkit.Eventually(t, "the kernel to know", func() bool { return interfaceFor(t, self, inside) != "tailscale0" })
	if got := interfaceFor(t, self, inside); got != "" {
		t.Errorf("without a route, packets to %v use the interface %q, want none", inside, got)
	}
	// The data, and its retransmissions for a while. Nothing may leave, so there is
	// no event to wait for. Each time slot holds at least one retransmission, and the
	// kernel may send a packet of its own in one of the slots.
	sent := packetsSent(t, link)
	io.WriteString(open, "secret")
	for range 3 {
		time.Sleep(500 * time.Millisecond) // a time slot
		before := sent
		sent = packetsSent(t, link)
		if sent == before {
			return
		}
	}
	t.Errorf("packets left through %s in each of three time slots, want none", link)
}

// packetsSent returns how many packets have left through a link.
func packetsSent(t *testing.T, name string) uint64 {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Statistics.TxPackets
}

// TestTwoNodesInOneNamespace checks that two nodes in one network namespace do not
// disturb each other.
func TestTwoNodesInOneNamespace(t *testing.T) {
	nstest.NeedKernelMode(t)
	w := sharedWorld(t, tailnet.Kernel)
	a := w.join(t, "first", tailnet.Options{TUNName: "first0"})
	b := w.join(t, "second", tailnet.Options{TUNName: "second0"})
	for n, want := range map[*tailnet.Node]string{a: "first0", b: "second0"} {
		if got := interfaceFor(t, n.Addrs()[0], testnet.APIAddr); got != want {
			t.Errorf("packets from %v to the API use the interface %q, want %s", n.Addrs()[0], got, want)
		}
	}
	b.Close()
	if got := interfaceFor(t, a.Addrs()[0], testnet.APIAddr); got != "first0" {
		t.Errorf("after the second node was closed, packets of the first use the interface %q, want first0", got)
	}
}

// TestMissingTUNSaysWhatToMount checks the error for a TUN device that is missing
// and cannot be created.
func TestMissingTUNSaysWhatToMount(t *testing.T) {
	nstest.NeedKernelMode(t) // there the process may not create device nodes
	path := filepath.Join(t.TempDir(), "net", "tun")
	err := tailnet.EnsureTUN(path)
	for _, want := range []string{"is missing", "mount it into the pod", "tailnet.mode: userspace"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("EnsureTUN(%q) = %v, want %q in it", path, err, want)
		}
	}
}

// TestCreatesTUN checks that a missing TUN device is created where that is
// allowed.
func TestCreatesTUN(t *testing.T) {
	if !nstest.Outside(t) {
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: creating a device node needs root")
	}
	path := filepath.Join(t.TempDir(), "net", "tun")
	for range 2 { // the second time it is there
		if err := tailnet.EnsureTUN(path); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != 10 || unix.Minor(st.Rdev) != 200 {
		t.Errorf("EnsureTUN(%q) created mode %o, device %d:%d; want a character device 10:200", path, st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
}
