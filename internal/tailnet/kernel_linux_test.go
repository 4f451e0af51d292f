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
	"github.com/pandoproxy/pando/internal/testnet"
)

// onlyNetAdmin holds the namespace to what a pod of kernel mode has.
func onlyNetAdmin(t *testing.T) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok && strings.TrimSpace(v) != "0000000000001000" {
			t.Errorf("effective capabilities are %s, want CAP_NET_ADMIN alone (bit 12)", strings.TrimSpace(v))
		}
	}
	if p := os.Getenv("PATH"); p != "" {
		t.Errorf("PATH is %q, want it empty", p)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err == nil {
		t.Error("/proc/sys is writable")
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/rp_filter"); err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Errorf("rp_filter is %q, %v; want strict", b, err)
	}
}

// noTraceInKernel looks for what a closed node could have left.
func noTraceInKernel(t *testing.T) {
	t.Helper()
	if _, err := net.InterfaceByName("tailscale0"); err == nil {
		t.Error("the TUN device is still there")
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			if r.Priority == 5270 || r.Priority == 5271 {
				t.Errorf("a rule is still there: %v", r)
			}
		}
	}
	if tables := tablesInUse(t); len(tables) > 0 {
		t.Errorf("routes are still there, in the tables %v", tables)
	}
}

// tablesInUse returns those routing tables of nodes that have routes.
func tablesInUse(t *testing.T) (tables []int) {
	t.Helper()
	for table := 52; table < 68; table++ {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
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

// killedPredecessor finds the rules of a device that was killed, and is another now.
func killedPredecessor(t *testing.T, w *world) {
	if w.mode != tailnet.Kernel {
		return
	}
	for _, prefix := range []string{"100.64.77.77/32", "fd7a:115c:a1e0::77/128"} {
		_, src, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		lookup, refuse := netlink.NewRule(), netlink.NewRule()
		lookup.Src, lookup.Priority, lookup.Table = src, 5270, 52
		refuse.Src, refuse.Priority, refuse.Type = src, 5271, unix.RTN_UNREACHABLE
		for _, r := range []*netlink.Rule{lookup, refuse} {
			if err := netlink.RuleAdd(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := w.join(t, "successor", tailnet.Options{})
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			t.Fatal(err)
		}
		own := 0
		for _, r := range rules {
			switch {
			case r.Priority != 5270 && r.Priority != 5271:
			case slices.ContainsFunc(n.Addrs(), func(a netip.Addr) bool { return r.Src.IP.Equal(a.AsSlice()) }):
				own++
			default:
				t.Errorf("the rule of another: %v", r)
			}
		}
		if own != 2 {
			t.Errorf("%d rules of its own, want 2: %v", own, rules)
		}
	}
	if tables := tablesInUse(t); !slices.Equal(tables, []int{52}) {
		t.Errorf("its routes are in the tables %v, want 52", tables)
	}
}

// goesOutBy returns the interface by which the kernel would send to dst from src;
// empty when it would refuse.
func goesOutBy(t *testing.T, src, dst netip.Addr) string {
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

// nothingLeaks: what the tailnet does not route (any more) does not go out by the
// pod's own network, not even from a connection that is open. 10.12.5.0/24 is both
// behind the cloud node and beside us.
func nothingLeaks(t *testing.T, w *world) {
	if w.mode != tailnet.Kernel {
		return // userspace connections have no other way
	}
	n := w.join(t, "tight", tailnet.Options{})
	inside := netip.MustParseAddr(nstest.ClientAddr)
	target := netip.AddrPortFrom(inside, 7090)
	w.cloud.Handle(target, echo)
	open := dial(t, n, target)
	pingPong(t, open)
	self := n.Addrs()[0]
	if by := goesOutBy(t, self, inside); by != "tailscale0" {
		t.Fatalf("%s is reached by %q", inside, by)
	}
	veth, err := netlink.LinkByName("veth-here")
	if err != nil {
		t.Fatal(err)
	}
	if by := goesOutBy(t, netip.MustParseAddr(nstest.HereAddr), inside); by != veth.Attrs().Name {
		t.Fatalf("the pod's own traffic to %s goes out by %q", inside, by)
	}
	if err := w.net.ApproveRoutes("cloud", testnet.Network6); err != nil {
		t.Fatal(err)
	}
	defer w.net.ApproveRoutes("cloud", testnet.Network, testnet.Network6)
	eventually(t, "the route to go", func() bool { return !n.Routes(inside) })
	eventually(t, "the kernel to know", func() bool { return goesOutBy(t, self, inside) != "tailscale0" })
	if by := goesOutBy(t, self, inside); by != "" {
		t.Errorf("without a route, %s is reached by %s", inside, by)
	}
	sent := func() uint64 {
		veth, err := netlink.LinkByName("veth-here")
		if err != nil {
			t.Fatal(err)
		}
		return veth.Attrs().Statistics.TxPackets
	}
	before := sent()
	io.WriteString(open, "secret")
	time.Sleep(500 * time.Millisecond) // for two or three retransmissions
	if now := sent(); now != before {
		t.Errorf("%d packets left by veth-here", now-before)
	}
}

// twoNodes in one network namespace leave each other alone.
func twoNodes(t *testing.T, w *world) {
	if w.mode != tailnet.Kernel {
		return
	}
	a := w.join(t, "first", tailnet.Options{TUNName: "first0"})
	b := w.join(t, "second", tailnet.Options{TUNName: "second0"})
	for n, tun := range map[*tailnet.Node]string{a: "first0", b: "second0"} {
		if by := goesOutBy(t, n.Addrs()[0], testnet.APIAddr); by != tun {
			t.Errorf("from %v the API is reached by %q, want %s", n.Addrs()[0], by, tun)
		}
	}
	b.Close()
	if by := goesOutBy(t, a.Addrs()[0], testnet.APIAddr); by != "first0" {
		t.Errorf("after the second has left: by %q", by)
	}
}

// saysWhatToMount: without the right to make it, a missing TUN device is an
// error that helps.
func saysWhatToMount(t *testing.T) {
	t.Helper()
	err := tailnet.EnsureTUN(filepath.Join(t.TempDir(), "net", "tun"))
	for _, want := range []string{"is missing", "mount it into the pod", "tailnet.mode: userspace"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("EnsureTUN says %v, want %q in it", err, want)
		}
	}
}

// With the right to make it, it is made.
func TestMakesTUN(t *testing.T) {
	if !nstest.Outside(t) {
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: making a device node needs root")
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
		t.Errorf("made mode %o, device %d:%d; want a character device 10:200", st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
}
