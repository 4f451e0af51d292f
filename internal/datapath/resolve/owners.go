package resolve

import "github.com/pandoproxy/pando/internal/datapath/resolve/owner"

// owners returns the current ones, and false while the tailnet is not up.
func (r *Resolver) owners() (o owner.Owners, up bool) {
	o = owner.Owners{Zones: *r.zones.Load(), Hosts: *r.hosts.Load()}
	up = true
	if r.opts.Tailnet != nil {
		o.Tailnet, up = r.opts.Tailnet()
	}
	return o, up
}

// Zones returns the zones in force, by suffix.
func (r *Resolver) Zones() map[string]Zone {
	o, _ := r.owners()
	return o.All()
}

// ownerOf returns the source that owns name: only its answers about name are used.
// It is empty if no source owns name.
func ownerOf(o *owner.Owners, name string) string {
	suffix, _, zoned := o.Zone(name)
	switch {
	case len(owner.InTable(o.Hosts, name)) > 0:
		return SourceHosts
	case len(o.Records[name]) > 0:
		return SourceRecord
	case len(o.Nodes[name]) > 0:
		return SourceNode
	case o.IsMagic(name, suffix):
		return SourceMagicDNS
	case zoned:
		return SourceZone + suffix
	}
	return ""
}
