package tailnet_test

import (
	"net/netip"
	"slices"
	"testing"

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
