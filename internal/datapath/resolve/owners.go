package resolve

import (
	"maps"
	"net/netip"
	"strings"

	"github.com/pandoproxy/pando/internal/host"
)

// owners says which source owns which names: the tailnet's DNS configuration, the
// configuration's zones and its host table, at one moment.
type owners struct {
	TailnetDNS
	zones map[string]Zone
	hosts map[string][]netip.Addr // the host table
}

// owners returns the current ones, and false while the tailnet is not up.
func (r *Resolver) owners() (o owners, up bool) {
	o = owners{zones: *r.zones.Load(), hosts: *r.hosts.Load()}
	up = true
	if r.opts.Tailnet != nil {
		o.TailnetDNS, up = r.opts.Tailnet()
	}
	return o, up
}

// Zones returns the zones in force, by suffix: those of the configuration and
// those of the tailnet.
func (r *Resolver) Zones() map[string]Zone {
	o, _ := r.owners()
	all := map[string]Zone{}
	for suffix, servers := range o.Routes {
		all[suffix] = Zone{Servers: servers, ofTailnet: true}
	}
	maps.Copy(all, o.zones)
	return all
}

// zone finds the most specific zone that contains name. Of two zones with the
// same suffix, that of the configuration wins over that of the tailnet.
func (o *owners) zone(name string) (suffix string, z Zone, ok bool) {
	suffix = name
	for more := true; more; _, suffix, more = strings.Cut(suffix, ".") {
		if z, found := o.zones[suffix]; found {
			return suffix, z, true
		}
		if servers, found := o.Routes[suffix]; found {
			return suffix, Zone{Servers: servers, ofTailnet: true}, true
		}
	}
	return "", Zone{}, false
}

// magic reports whether MagicDNS owns name. suffix is that of the zone that
// contains name, or "".
func (o *owners) magic(name, suffix string) bool {
	if !o.Magic || !host.Under(name, o.MagicSuffix) {
		return false
	}
	_, configured := o.zones[suffix]
	return len(suffix) < len(o.MagicSuffix) || len(suffix) == len(o.MagicSuffix) && !configured
}

// notMagic says why MagicDNS does not own name.
func (o *owners) notMagic(name string) string {
	switch {
	case o.MagicSuffix == "" || !o.Magic:
		return "MagicDNS is off"
	case !host.Under(name, o.MagicSuffix):
		return "the name is not below " + o.MagicSuffix
	}
	return "a zone is more specific"
}

// owner returns the source that owns name: only its answers about name are used.
// It is empty if no source owns name.
func (o *owners) owner(name string) string {
	suffix, _, zoned := o.zone(name)
	switch {
	case len(lookupHosts(o.hosts, name)) > 0:
		return SourceHosts
	case len(o.Records[name]) > 0:
		return SourceRecord
	case len(o.Nodes[name]) > 0:
		return SourceNode
	case o.magic(name, suffix):
		return SourceMagicDNS
	case zoned:
		return SourceZone + suffix
	}
	return ""
}

// lookupHosts finds name in a host table, exactly or by its closest wildcard.
func lookupHosts(table map[string][]netip.Addr, name string) []netip.Addr {
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
