package tailnet

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/netmap"
	"tailscale.com/types/views"

	"github.com/pandoproxy/pando/internal/host"
)

// DNS is the tailnet's DNS configuration as this node received it. Names are
// lower case and have no trailing dot.
type DNS struct {
	// MagicSuffix is the domain of the nodes themselves; empty means none.
	MagicSuffix string
	// Magic is true when MagicDNS is on: names under MagicSuffix have answers.
	Magic bool
	// Records are more names with their addresses (ExtraRecords).
	Records map[string][]netip.Addr
	// Nodes are the nodes for whose names MagicDNS does not answer: those that another
	// tailnet shares with this one, and all nodes if MagicDNS is off. It may be a second
	// old.
	Nodes map[string][]netip.Addr
	// Routes maps a suffix to its resolvers (split DNS). An empty list means
	// that only the tailnet itself answers for the suffix.
	Routes map[string][]string
	// Resolvers answer for all other names. Empty means that the host's own
	// resolvers do.
	Resolvers []string
	// Search are the domains that complete a short name.
	Search []string
}

// DNS returns the current DNS configuration. The result is false before the node
// is up, and in the wrong tailnet.
func (n *Node) DNS() (DNS, bool) {
	nm := n.lb.NetMapNoPeers()
	if nm == nil || n.checkTailnet() != nil {
		return DNS{}, false
	}
	d := DNS{
		MagicSuffix: trimDot(nm.MagicDNSSuffix()),
		Magic:       nm.DNS.Proxied,
		Records:     map[string][]netip.Addr{},
		Routes:      map[string][]string{},
	}
	d.Nodes = n.nodes.get(time.Now(), func() map[string][]netip.Addr { return otherNodes(n.lb.NetMapWithPeers(), &d) })
	for _, r := range nm.DNS.ExtraRecords {
		if r.Type != "" && r.Type != "A" && r.Type != "AAAA" {
			continue
		}
		if a, err := netip.ParseAddr(r.Value); err == nil {
			name := trimDot(r.Name)
			d.Records[name] = append(d.Records[name], a)
		}
	}
	for suffix, resolvers := range nm.DNS.Routes {
		list := []string{}
		for _, r := range resolvers {
			list = append(list, r.Addr)
		}
		d.Routes[trimDot(suffix)] = list
	}
	for _, r := range nm.DNS.Resolvers {
		d.Resolvers = append(d.Resolvers, r.Addr)
	}
	for _, s := range nm.DNS.Domains {
		d.Search = append(d.Search, trimDot(s))
	}
	return d, true
}

// nodeNames keeps the names of nodes: to collect them takes as long as there are peers.
type nodeNames struct {
	mu    sync.Mutex
	names map[string][]netip.Addr
	made  time.Time
}

// nodesKept is how long the names of nodes are used.
const nodesKept = time.Second

// get returns the names. collect makes new ones if they are too old.
func (c *nodeNames) get(now time.Time, collect func() map[string][]netip.Addr) map[string][]netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names == nil || now.Sub(c.made) >= nodesKept {
		c.names = collect()
		c.made = now
	}
	return c.names
}

// otherNodes returns the nodes of nm for whose names MagicDNS does not answer, as d has
// it.
func otherNodes(nm *netmap.NetworkMap, d *DNS) map[string][]netip.Addr {
	names := map[string][]netip.Addr{}
	if nm == nil {
		return names
	}
	for _, node := range append([]tailcfg.NodeView{nm.SelfNode}, nm.Peers...) {
		if !node.Valid() {
			continue
		}
		name := trimDot(node.Name())
		if name == "" || d.Magic && host.Under(name, d.MagicSuffix) {
			continue
		}
		names[name] = nodeAddrs(nm, node)
	}
	return names
}

// nodeAddrs returns the addresses that MagicDNS would give for a node of nm: those of
// IPv6 only if there is no other that this node can use, or if the control server says so.
func nodeAddrs(nm *netmap.NetworkMap, node tailcfg.NodeView) []netip.Addr {
	self4, _ := byFamily(nm.GetAddresses())
	v4, v6 := byFamily(node.Addresses())
	switch {
	case len(self4) == 0 || len(v4) == 0:
		return v6
	case nm.AllCaps.Contains(tailcfg.NodeAttrMagicDNSPeerAAAA):
		return append(v4, v6...)
	}
	return v4
}

func byFamily(list views.Slice[netip.Prefix]) (v4, v6 []netip.Addr) {
	for _, p := range list.All() {
		if p.Addr().Is4() {
			v4 = append(v4, p.Addr())
		} else {
			v6 = append(v6, p.Addr())
		}
	}
	return v4, v6
}

// QueryMagicDNS answers a DNS query in wire form (RFC 1035 section 4) for a name
// under DNS.MagicSuffix. It reads the network map and does no I/O. For other names
// it would send queries, so the caller must not pass them.
func (n *Node) QueryMagicDNS(ctx context.Context, query []byte) ([]byte, error) {
	if err := n.checkTailnet(); err != nil {
		return nil, err
	}
	m, ok := n.sys.DNSManager.GetOK()
	if !ok {
		return nil, errors.New("tailnet: no DNS manager")
	}
	return m.Resolver().Query(ctx, query, "tcp", netip.AddrPort{})
}

func trimDot(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
