package tailnet_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"tailscale.com/tailcfg"
	"tailscale.com/types/netmap"
	"tailscale.com/util/set"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// TestNodesWithoutMagicDNS checks the names of nodes for which MagicDNS does not answer:
// a node that another tailnet shares, and every node if MagicDNS is off. The stock
// container resolves both.
func TestNodesWithoutMagicDNS(t *testing.T) {
	w := newWorld(t, tailnet.Userspace)
	n := w.join(t, "names", tailnet.Options{})
	cloud := []netip.Addr{w.cloud.Addrs()[0]}
	own := "names." + testnet.MagicSuffix
	for _, c := range []struct {
		name         string
		magic        bool
		cloud        string
		want, wantno string
	}{
		{"shared", true, "cloud.other.ts.example", "cloud.other.ts.example", own},
		{"magicdns_off", false, "cloud." + testnet.MagicSuffix, "cloud." + testnet.MagicSuffix, "cloud.other.ts.example"},
		{"magicdns_on", true, "cloud." + testnet.MagicSuffix, "", "cloud." + testnet.MagicSuffix},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := w.net.SendNames("names", c.magic, map[string]string{"cloud": c.cloud}); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, "the names", func() bool {
				d, ok := n.DNS()
				_, wrong := d.Nodes[c.wantno]
				_, self := d.Nodes[own]
				return ok && d.Magic == c.magic && !wrong && self == !c.magic &&
					(c.want == "" || slices.Equal(d.Nodes[c.want], cloud))
			})
		})
	}
}

// TestAddressesOfNodes checks which nodes have names of their own, and with which
// addresses: those that MagicDNS gives for the others.
func TestAddressesOfNodes(t *testing.T) {
	node := func(name string, addrs ...string) tailcfg.NodeView {
		n := &tailcfg.Node{Name: name}
		for _, a := range addrs {
			n.Addresses = append(n.Addresses, netip.PrefixFrom(netip.MustParseAddr(a), netip.MustParseAddr(a).BitLen()))
		}
		return n.View()
	}
	peers := []tailcfg.NodeView{
		node("Mine.ts.example.", "100.64.0.2", "fd7a:115c:a1e0::2"),
		node("shared.other.example.", "100.64.0.3", "fd7a:115c:a1e0::3"),
		node("six.other.example.", "fd7a:115c:a1e0::4"),
		node("", "100.64.0.5"),
		node("notts.example.", "100.64.0.6"),
	}
	for _, c := range []struct {
		name  string
		magic bool
		self  tailcfg.NodeView
		cap   tailcfg.NodeCapability
		want  string
	}{
		{"magic", true, node("self.ts.example.", "100.64.0.1", "fd7a:115c:a1e0::1"), "",
			"map[notts.example:[100.64.0.6] shared.other.example:[100.64.0.3] six.other.example:[fd7a:115c:a1e0::4]]"},
		{"no_magic", false, node("self.ts.example.", "100.64.0.1", "fd7a:115c:a1e0::1"), "",
			"map[mine.ts.example:[100.64.0.2] notts.example:[100.64.0.6] self.ts.example:[100.64.0.1] shared.other.example:[100.64.0.3] six.other.example:[fd7a:115c:a1e0::4]]"},
		{"only_ipv6", true, node("self.ts.example.", "fd7a:115c:a1e0::1"), "",
			"map[notts.example:[] shared.other.example:[fd7a:115c:a1e0::3] six.other.example:[fd7a:115c:a1e0::4]]"},
		{"both_families", true, node("self.ts.example.", "100.64.0.1", "fd7a:115c:a1e0::1"), tailcfg.NodeAttrMagicDNSPeerAAAA,
			"map[notts.example:[100.64.0.6] shared.other.example:[100.64.0.3 fd7a:115c:a1e0::3] six.other.example:[fd7a:115c:a1e0::4]]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nm := &netmap.NetworkMap{SelfNode: c.self, Peers: peers}
			if c.cap != "" {
				nm.AllCaps = set.SetOf([]tailcfg.NodeCapability{c.cap})
			}
			if got := fmt.Sprint(tailnet.OtherNodes(nm, c.magic, "ts.example")); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	if got := tailnet.OtherNodes(nil, true, "ts.example"); len(got) != 0 {
		t.Errorf("without a network map: %v, want none", got)
	}
}
