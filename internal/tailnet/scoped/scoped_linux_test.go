package scoped_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"tailscale.com/wgengine/router"

	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet/scoped"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var (
	own    = netip.MustParseAddr("100.64.9.9")
	routed = netip.MustParsePrefix("10.99.0.0/16")
	inside = netip.MustParseAddr("10.99.1.2")
	config = &router.Config{
		LocalAddrs: []netip.Prefix{netip.PrefixFrom(own, 32)},
		Routes:     []netip.Prefix{routed},
	}
)

// newLink makes a network device that stands for a TUN device, until the test ends.
func newLink(t *testing.T, name string) {
	t.Helper()
	nstest.NeedKernelMode(t)
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(link) })
}

// newRouter returns a router for a new device, and brings it up.
func newRouter(t *testing.T, name string) *scoped.Router {
	t.Helper()
	newLink(t, name)
	r := scoped.New(name)
	for range 2 { // the engine calls Up a second time
		if err := r.Up(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// interfaceFor returns the interface that the kernel would use for packets from src
// to dst, or "" when it would refuse them. An invalid src is that of the host.
func interfaceFor(t *testing.T, src, dst netip.Addr) string {
	t.Helper()
	var options netlink.RouteGetOptions
	if src.IsValid() {
		options.SrcAddr = src.AsSlice()
	}
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), &options)
	if err != nil {
		return ""
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Name
}

// rules returns the tables of the lookup rules, and how many refusing rules there
// are.
func rules(t *testing.T) (tables []int, refusing int) {
	t.Helper()
	list, err := netlink.RuleList(netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		switch r.Priority {
		case 5270:
			tables = append(tables, r.Table)
		case 5271:
			refusing++
		}
	}
	slices.Sort(tables)
	return tables, refusing
}

// TestOnlyOwnSocketsAreRouted checks that routes apply to packets from the node's own
// address, that packets from it to other addresses are refused, and that packets
// from other addresses do not use the routes.
func TestOnlyOwnSocketsAreRouted(t *testing.T) {
	r := newRouter(t, "scoped0")
	if err := r.Set(config); err != nil {
		t.Fatal(err)
	}
	if got := interfaceFor(t, own, inside); got != "scoped0" {
		t.Errorf("packets from %v to %v use the interface %q, want scoped0", own, inside, got)
	}
	client := netip.MustParseAddr(nstest.ClientAddr)
	if got := interfaceFor(t, own, client); got != "" {
		t.Errorf("packets from %v to %v, which is not routed, use the interface %q, want none", own, client, got)
	}
	if got := interfaceFor(t, netip.Addr{}, inside); got == "scoped0" {
		t.Errorf("the host's packets to %v use the interface %q, want none", inside, got)
	}
	if got := interfaceFor(t, netip.Addr{}, client); got != "veth-here" {
		t.Errorf("the host's packets to %v use the interface %q, want veth-here", client, got)
	}
}

// TestSetNilRemovesEverything checks that Set(nil) and Close leave neither addresses
// nor rules.
func TestSetNilRemovesEverything(t *testing.T) {
	for name, remove := range map[string]func(*scoped.Router) error{
		"Set":   func(r *scoped.Router) error { return r.Set(nil) },
		"Close": (*scoped.Router).Close,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRouter(t, "scoped1")
			if err := r.Set(config); err != nil {
				t.Fatal(err)
			}
			if tables, refusing := rules(t); !slices.Equal(tables, []int{52}) || refusing != 1 {
				t.Fatalf("lookup rules for the tables %v and %d refusing rules, want [52] and 1", tables, refusing)
			}
			if err := remove(r); err != nil {
				t.Fatal(err)
			}
			if tables, refusing := rules(t); len(tables) != 0 || refusing != 0 {
				t.Errorf("lookup rules for the tables %v and %d refusing rules are left, want none", tables, refusing)
			}
			ifc, err := net.InterfaceByName("scoped1")
			if err != nil {
				t.Fatal(err)
			}
			if addrs, err := ifc.Addrs(); err != nil || slices.ContainsFunc(addrs, func(a net.Addr) bool { return a.String() == own.String()+"/32" }) {
				t.Errorf("the device has the addresses %v, %v; want none of the node", addrs, err)
			}
		})
	}
}

// TestSecondRouterUsesNextTable checks that two routers do not share a table.
func TestSecondRouterUsesNextTable(t *testing.T) {
	first := newRouter(t, "scoped2")
	second := newRouter(t, "scoped3")
	if err := first.Set(config); err != nil {
		t.Fatal(err)
	}
	other := &router.Config{
		LocalAddrs: []netip.Prefix{netip.MustParsePrefix("100.64.9.10/32")},
		Routes:     config.Routes,
	}
	if err := second.Set(other); err != nil {
		t.Fatal(err)
	}
	if tables, _ := rules(t); !slices.Equal(tables, []int{52, 53}) {
		t.Errorf("lookup rules for the tables %v, want [52 53]", tables)
	}
	if got := interfaceFor(t, other.LocalAddrs[0].Addr(), inside); got != "scoped3" {
		t.Errorf("packets of the second router use the interface %q, want scoped3", got)
	}
}

// TestUpRemovesOrphans checks that Up removes rules whose address is gone, and leaves
// the rules of others.
func TestUpRemovesOrphans(t *testing.T) {
	nstest.NeedKernelMode(t)
	orphan := netlink.NewRule()
	orphan.Src = &net.IPNet{IP: net.IPv4(100, 64, 77, 77), Mask: net.CIDRMask(32, 32)}
	orphan.Priority = 5270
	orphan.Table = 52
	foreign := netlink.NewRule()
	foreign.Src = orphan.Src
	foreign.Priority = 5270
	foreign.Table = 100 // not a table of ours
	for _, r := range []*netlink.Rule{orphan, foreign} {
		if err := netlink.RuleAdd(r); err != nil {
			t.Fatal(err)
		}
	}
	defer netlink.RuleDel(foreign)
	newRouter(t, "scoped4")
	if tables, _ := rules(t); !slices.Equal(tables, []int{foreign.Table}) {
		t.Errorf("lookup rules for the tables %v after Up, want only %d, which is not ours", tables, foreign.Table)
	}
}

// TestMissingDevice checks that a router for a device that does not exist reports
// its name.
func TestMissingDevice(t *testing.T) {
	nstest.NeedKernelMode(t)
	err := scoped.New("nosuch0").Up()
	if err == nil || err.Error() != "router: nosuch0: Link not found" {
		t.Errorf("Up() = %v, want an error that names the device", err)
	}
}
