package policy

import "net/netip"

// neverAllowed are the addresses that no client may reach through a proxy: this
// host, its links, metadata services of clouds, and addresses of many hosts. IANA's
// special-purpose registries (RFC 6890) list them, except those of clouds.
var neverAllowed = prefixes(
	"0.0.0.0/8",              // this host on this network, RFC 791
	"127.0.0.0/8",            // loopback, RFC 1122
	"169.254.0.0/16",         // link-local, RFC 3927; metadata of nearly all clouds
	"224.0.0.0/4",            // multicast, RFC 5771
	"255.255.255.255/32",     // limited broadcast, RFC 919
	"100.100.100.100/32",     // Tailscale's own service address on every node
	"100.100.100.200/32",     // metadata of Alibaba Cloud
	"168.63.129.16/32",       // WireServer of Azure: a virtual machine's configuration and keys
	"192.0.0.192/32",         // metadata of Oracle Cloud
	"::/128",                 // unspecified, RFC 4291
	"::1/128",                // loopback, RFC 4291
	"fe80::/10",              // link-local, RFC 4291
	"fec0::/10",              // site-local, RFC 3879
	"ff00::/8",               // multicast, RFC 4291
	"fd00:ec2::/32",          // metadata and other link-scoped services of AWS
	"fd00:c1::a9fe:a9fe/128", // metadata of Oracle Cloud over IPv6
	"fd00:42::42/128",        // metadata of Scaleway over IPv6
	"fd00:a9fe:a9fe::/48",    // metadata of Linode over IPv6
	"fd20:ce::254/128",       // metadata of GCP over IPv6
	"fd7a:115c:a1e0::53/128", // Tailscale's own service address over IPv6
)

// notPublic are the IPv4 addresses that are not on the public internet, in
// addition to neverAllowed.
var notPublic = prefixes(
	"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", // private, RFC 1918
	"100.64.0.0/10",                                     // shared, RFC 6598; the tailnet's own
	"192.0.0.0/24",                                      // protocol assignments, RFC 6890
	"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", // documentation, RFC 5737
	"192.88.99.0/24", // 6to4 relays, RFC 7526
	"198.18.0.0/15",  // benchmarking, RFC 2544
	"240.0.0.0/4",    // reserved, RFC 1112
)

var globalUnicast6 = netip.MustParsePrefix("2000::/3") // RFC 4291 section 2.4

// notPublic6 are the parts of 2000::/3 that are not on the public internet.
var notPublic6 = prefixes(
	"2001::/23",     // protocol assignments, Teredo among them, RFC 2928
	"2001:db8::/32", // documentation, RFC 3849
	"3fff::/20",     // documentation, RFC 9637
	"2002::/16",     // 6to4, RFC 3056
)

// embedding is an IPv6 prefix whose addresses carry an IPv4 address. A translator
// on the way connects to that address.
type embedding struct {
	prefix netip.Prefix
	at     [4]int // the bytes that hold the IPv4 address
}

var (
	last32     = [4]int{12, 13, 14, 15}
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
)

var embeddings = []embedding{
	{netip.MustParsePrefix("64:ff9b::/96"), last32}, // NAT64, RFC 6052
	{localNAT64, last32},                            // NAT64 of a site: its prefix
	{localNAT64, [4]int{6, 7, 9, 10}},               // may have any length of
	{localNAT64, [4]int{7, 9, 10, 11}},              // RFC 6052 section 2.2
	{localNAT64, [4]int{9, 10, 11, 12}},
	{netip.MustParsePrefix("2002::/16"), [4]int{2, 3, 4, 5}},   // 6to4, RFC 3056
	{netip.MustParsePrefix("::/96"), last32},                   // IPv4-compatible, RFC 4291
	{netip.MustParsePrefix("::ffff:0:0:0/96"), last32},         // IPv4-translated, RFC 2765 and 7915
	{netip.MustParsePrefix("fd7a:115c:a1e0:b1a::/64"), last32}, // Tailscale's 4via6
}

// inside returns the IPv4 address that a carries.
func (e embedding) inside(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom4([4]byte{b[e.at[0]], b[e.at[1]], b[e.at[2]], b[e.at[3]]})
}

// spellings returns a, followed by the IPv4 addresses that a carries inside. It
// leaves out the zone: no prefix contains an address with a zone.
func spellings(a netip.Addr) []netip.Addr {
	a = a.Unmap().WithZone("")
	list := []netip.Addr{a}
	for _, e := range embeddings {
		if !e.prefix.Contains(a) {
			continue
		}
		in := e.inside(a)
		if e.prefix == localNAT64 && e.at != last32 && in.As4()[0] == 0 {
			continue // these bytes are the zeros of a longer prefix
		}
		list = append(list, in)
	}
	b := a.As16()
	switch {
	case a.Is4():
	case teredo.Contains(a): // the server, and the client with its bits inverted
		list = append(list, netip.AddrFrom4([4]byte(b[4:8])), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
	case isISATAP(b):
		list = append(list, netip.AddrFrom4([4]byte(b[12:])))
	}
	return list
}

var teredo = netip.MustParsePrefix("2001::/32") // RFC 4380

// isISATAP reports whether an IPv6 address has an interface identifier of ISATAP:
// 0:5efe and an IPv4 address, whatever its bits u and g are (RFC 5214 section 6.1).
func isISATAP(b [16]byte) bool {
	return b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// forbidden reports whether an address, given by its spellings, is never
// allowed, or is one of the replica's own listeners.
func (p *Policy) forbidden(all []netip.Addr, port uint16) bool {
	if !all[0].IsValid() {
		return true
	}
	for _, s := range all {
		if matchAny(neverAllowed, s) || p.Own != nil && p.Own(netip.AddrPortFrom(s, port)) {
			return true
		}
	}
	return false
}

// Public reports whether a is a host address of the public internet. None is that is
// never allowed, such as the address of a metadata service.
func Public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	switch {
	case !a.IsValid() || matchAny(neverAllowed, a):
		return false
	case a.Is4():
		return !matchAny(notPublic, a)
	}
	if e := embeddings[0]; e.prefix.Contains(a) { // NAT64: as public as the address inside
		return Public(e.inside(a))
	}
	if b := a.As16(); isISATAP(b) && !Public(netip.AddrFrom4([4]byte(b[12:]))) {
		return false
	}
	return globalUnicast6.Contains(a) && !matchAny(notPublic6, a)
}

// public reports whether an address, given by its spellings, is a host address of
// the public internet that is not in NotPublic, nor in a network of this host.
func (p *Policy) public(all []netip.Addr) bool {
	if !Public(all[0]) {
		return false
	}
	for _, s := range all {
		if matchAny(p.NotPublic, s) || p.Near != nil && p.Near(s) {
			return false
		}
	}
	return true
}

func matchAny(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}
