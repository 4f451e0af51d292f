package resolve

import (
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
)

// view is who answers for which names: the tailnet's DNS configuration and our
// own zones, at one moment.
type view struct {
	TailnetDNS
	zones map[string]Zone
	hosts map[string][]netip.Addr // the host table
}

// view returns the current one, and false while the tailnet is not up.
func (r *Resolver) view() (view, bool) {
	v := view{zones: *r.zones.Load(), hosts: *r.hosts.Load()}
	up := true
	if r.opts.Tailnet != nil {
		v.TailnetDNS, up = r.opts.Tailnet()
	}
	return v, up
}

// Zones returns the zones in force, by suffix: our own and the tailnet's.
func (r *Resolver) Zones() map[string]Zone {
	v, _ := r.view()
	all := map[string]Zone{}
	for suffix, servers := range v.Routes {
		all[suffix] = Zone{Servers: servers}
	}
	maps.Copy(all, v.zones)
	return all
}

// zone finds the most specific zone of name. Our own come before the tailnet's
// of the same suffix.
func (v view) zone(name string) (suffix string, z Zone, ok bool) {
	for s, more := name, true; more; _, s, more = strings.Cut(s, ".") {
		if z, found := v.zones[s]; found {
			return s, z, true
		}
		if servers, found := v.Routes[s]; found {
			return s, Zone{Servers: servers}, true
		}
	}
	return "", Zone{}, false
}

// magic reports whether MagicDNS answers for name, which is in the zone of
// suffix, or in none.
func (v view) magic(name, suffix string) bool {
	if !v.Magic || !under(name, v.MagicSuffix) {
		return false
	}
	_, ours := v.zones[suffix]
	return len(suffix) < len(v.MagicSuffix) || len(suffix) == len(v.MagicSuffix) && !ours
}

// notMagic says why MagicDNS does not answer for name.
func (v view) notMagic(name string) string {
	switch {
	case v.MagicSuffix == "" || !v.Magic:
		return "MagicDNS is off"
	case !under(name, v.MagicSuffix):
		return "the name is not below " + v.MagicSuffix
	}
	return "a zone is more specific"
}

// owner returns the source that alone is asked for name, and believed; empty when
// it has none.
func (v view) owner(name string) string {
	suffix, _, zoned := v.zone(name)
	switch {
	case len(lookupHosts(v.hosts, name)) > 0:
		return SourceHosts
	case len(v.Records[name]) > 0:
		return SourceRecord
	case v.magic(name, suffix):
		return SourceMagicDNS
	case zoned:
		return SourceZone + suffix
	}
	return ""
}

// follow notices that others answer for some names now.
type follow struct {
	mu   sync.Mutex
	seen view
	age  atomic.Int64 // goes up with each change
}

// SetZones replaces the configuration's own zones.
func (r *Resolver) SetZones(zones map[string]Zone) {
	r.zones.Store(&zones)
	r.Follow()
}

// Follow forgets all answers when the host table, the zones or the tailnet's DNS
// configuration have changed since it was last called.
func (r *Resolver) Follow() {
	v, up := r.view()
	if !up {
		return
	}
	f := &r.follow
	f.mu.Lock()
	defer f.mu.Unlock()
	if reflect.DeepEqual(f.seen, v) {
		return
	}
	f.seen = v
	f.age.Add(1)
	r.cache.Purge()
}

// keep remembers an outcome that was looked up at age.
func (r *Resolver) keep(name string, e entry, age int64) {
	r.follow.mu.Lock()
	defer r.follow.mu.Unlock()
	if r.follow.age.Load() == age { // else others may answer for it by now
		r.cache.Add(name, e)
	}
}
