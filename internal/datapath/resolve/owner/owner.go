// Package owner decides which source of names owns a name. It is pure: it sends no query.
package owner

import (
	"maps"
	"net/netip"
	"strings"

	"github.com/pandoproxy/pando/internal/host"
)

// Tailnet is the DNS configuration of a tailnet. Names are lower case and
// have no trailing dot. Package tailnet documents the fields.
type Tailnet struct {
	MagicSuffix string
	Magic       bool
	Records     map[string][]netip.Addr
	Nodes       map[string][]netip.Addr
	Routes      map[string][]string
	Resolvers   []string
	Search      []string
}

// Zone is a DNS suffix with its own resolvers.
type Zone struct {
	Servers []string // "10.12.0.2" or "10.12.0.2:5353"; if empty, no name of the zone exists
	Direct  bool     // reached through the pod's own network instead of the tunnel

	// OfTailnet is set for the tailnet's split-DNS routes: their servers are reached as
	// the tailnet's global resolvers are.
	OfTailnet bool
}

// Owners says which names a source owns: the tailnet's DNS configuration, the
// configuration's zones and its host table, at one moment.
type Owners struct {
	Tailnet
	Zones map[string]Zone
	Hosts map[string][]netip.Addr // the host table
}

// All returns the zones by suffix: those of the configuration and those of the tailnet.
func (o *Owners) All() map[string]Zone {
	all := map[string]Zone{}
	for suffix, servers := range o.Routes {
		all[suffix] = Zone{Servers: servers, OfTailnet: true}
	}
	maps.Copy(all, o.Zones)
	return all
}

// Zone finds the most specific zone that contains name. Of two zones with the
// same suffix, that of the configuration wins over that of the tailnet.
func (o *Owners) Zone(name string) (suffix string, z Zone, ok bool) {
	suffix = name
	for more := true; more; _, suffix, more = strings.Cut(suffix, ".") {
		if z, found := o.Zones[suffix]; found {
			return suffix, z, true
		}
		if servers, found := o.Routes[suffix]; found {
			return suffix, Zone{Servers: servers, OfTailnet: true}, true
		}
	}
	return "", Zone{}, false
}

// IsMagic reports whether MagicDNS owns name. suffix is that of the zone that
// contains name, or "".
func (o *Owners) IsMagic(name, suffix string) bool {
	if !o.Magic || !host.Under(name, o.MagicSuffix) {
		return false
	}
	_, configured := o.Zones[suffix]
	return len(suffix) < len(o.MagicSuffix) || len(suffix) == len(o.MagicSuffix) && !configured
}

// NotMagic says why MagicDNS does not own name.
func (o *Owners) NotMagic(name string) string {
	switch {
	case o.MagicSuffix == "" || !o.Magic:
		return "MagicDNS is off"
	case !host.Under(name, o.MagicSuffix):
		return "the name is not below " + o.MagicSuffix
	}
	return "a zone is more specific"
}

// HasAddress reports whether a table has an address of name: the host table, the extra
// records, or the nodes.
func (o *Owners) HasAddress(name string) bool {
	return len(InTable(o.Hosts, name)) > 0 || len(o.Records[name]) > 0 || len(o.Nodes[name]) > 0
}

// InTable finds name in a host table, exactly or by its closest wildcard.
func InTable(table map[string][]netip.Addr, name string) []netip.Addr {
	if a := table[name]; len(a) > 0 {
		return a
	}
	rest := name
	for {
		var ok bool
		_, rest, ok = strings.Cut(rest, ".")
		if !ok {
			return nil
		}
		if a := table["*."+rest]; len(a) > 0 {
			return a
		}
	}
}
