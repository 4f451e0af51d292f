package resolve

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// listed finds name in the host table, and then in the pod's /etc/hosts.
func (r *Resolver) listed(ctx context.Context, name string) ([]netip.Addr, string) {
	a := lookupHosts(*r.hosts.Load(), name)
	note(ctx, SourceHosts, name, "%s", orNoEntry(a))
	if len(a) > 0 {
		note(ctx, SourceFile, name, "not asked, and nobody else: the host table comes first")
		return a, SourceHosts
	}
	hosts, _, _ := r.base.load()
	note(ctx, SourceFile, name, "%s", orNoEntry(hosts[name]))
	return hosts[name], SourceFile
}

// askCompleted has the tailnet's search domains complete a short name, and
// returns what came of the first that is known, and that whole name. The source
// is empty when none is.
func (r *Resolver) askCompleted(ctx context.Context, v view, name string) (res result, source, whole string) {
	if strings.Contains(name, ".") {
		return result{}, "", ""
	}
	for _, domain := range v.Search {
		whole = name + "." + domain
		if a, source := r.listed(ctx, whole); len(a) > 0 {
			return result{addrs: a, ttl: hostsTTL}, source, whole
		}
		if res, source = r.askPrivate(ctx, v, whole); source == "" {
			res, source = r.askGlobal(ctx, v, whole)
		}
		if source != "" {
			noteResult(ctx, source, whole, res)
		}
		if res.found() && res.err == nil || res.err != nil && source != SourceGlobal { // an owner that fails is the owner still
			return res, source, whole
		}
	}
	return result{}, "", ""
}

// errUnknownZone says that cluster DNS forwards a zone to us that nobody is known for.
var errUnknownZone = errors.New("no resolver")

// askOne asks for name as it is; the pod's resolver also with the pod's search
// domains, and then returns the whole name.
func (r *Resolver) askOne(ctx context.Context, v view, name string) (res result, source, whole string) {
	if res, source = r.askPrivate(ctx, v, name); source != "" {
		note(ctx, SourceBase, name, "not asked, and no global resolver either: the name has an owner")
		return res, source, ""
	}
	if slices.ContainsFunc(r.opts.Served, func(suffix string) bool { return under(name, suffix) }) {
		return result{err: errUnknownZone}, SourceServed, ""
	}
	if res, source = r.askGlobal(ctx, v, name); source != "" {
		note(ctx, SourceBase, name, "not asked: the tailnet has resolvers for such names")
		return res, source, ""
	}
	_, conf, err := r.base.load()
	if err != nil {
		return result{err: err}, SourceBase, ""
	}
	return r.askBase(ctx, conf, v, name)
}

// askGlobal asks the tailnet's global resolvers. The source is empty when there
// are none that can be asked, or the name is the cluster's.
func (r *Resolver) askGlobal(ctx context.Context, v view, name string) (result, string) {
	_, conf, _ := r.base.load()
	var usable []string
	for _, s := range v.Resolvers {
		if _, err := ServerAddr(s); err == nil {
			usable = append(usable, s)
		} else {
			note(ctx, SourceGlobal, name, "passed over: %v", err)
		}
	}
	switch {
	case len(usable) == 0 || r.opts.DialGlobal == nil:
		note(ctx, SourceGlobal, name, "not asked: the tailnet has none that can be")
		return result{}, ""
	case ofCluster(conf, name):
		note(ctx, SourceGlobal, name, "not asked: the name is the cluster's")
		return result{}, ""
	}
	return r.askServers(ctx, v, SourceGlobal, r.opts.DialGlobal, usable, name), SourceGlobal
}

// askPrivate answers from the sources that own a part of the name space. The
// source is empty when none of them is responsible for name.
func (r *Resolver) askPrivate(ctx context.Context, v view, name string) (result, string) {
	note(ctx, SourceRecord, name, "%s", orNoEntry(v.Records[name]))
	if a := v.Records[name]; len(a) > 0 {
		return result{addrs: a, ttl: time.Minute}, SourceRecord
	}
	suffix, zone, zoned := v.zone(name)
	if v.magic(name, suffix) {
		return r.ask(ctx, SourceMagicDNS, name, func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
			wire, err := q.Pack()
			if err != nil {
				return nil, err
			}
			if wire, err = r.opts.QueryMagic(ctx, wire); err != nil {
				return nil, err
			}
			reply := new(dns.Msg)
			return reply, reply.Unpack(wire)
		}), SourceMagicDNS
	}
	note(ctx, SourceMagicDNS, name, "not asked: %s", v.notMagic(name))
	switch {
	case !zoned:
		note(ctx, "zone", name, "no zone holds it")
		return result{}, ""
	case len(zone.Servers) == 0:
		note(ctx, SourceZone+suffix, name, "has no resolvers: its names do not exist")
		return result{ttl: negativeTTL, nx: true}, SourceZone + suffix // only the tailnet itself knows this zone
	}
	return r.askServers(ctx, v, SourceZone+suffix, r.dialer(zone), zone.Servers, name), SourceZone + suffix
}

// dialer returns how the resolvers of z are reached.
func (r *Resolver) dialer(z Zone) DialFunc {
	if z.Direct {
		return r.dialBase
	}
	return r.opts.DialTailnet
}

// askServers asks the resolvers of one source, and believes them in nothing that
// has another owner.
func (r *Resolver) askServers(ctx context.Context, v view, source string, dial DialFunc, servers []string, name string) result {
	return r.ask(ctx, source, name, func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
		reply, err := r.exchangeAny(ctx, dial, servers, q)
		if err == nil {
			disbelieve(reply, v, source)
		}
		return reply, err
	})
}

func under(name, suffix string) bool {
	return suffix != "" && (name == suffix || strings.HasSuffix(name, "."+suffix))
}

// lookupHosts finds name in a host table: exactly, or by its closest wildcard.
func lookupHosts(hosts map[string][]netip.Addr, name string) []netip.Addr {
	if a := hosts[name]; len(a) > 0 {
		return a
	}
	for rest, ok := "", true; ok; name = rest {
		if _, rest, ok = strings.Cut(name, "."); ok {
			if a := hosts["*."+rest]; len(a) > 0 {
				return a
			}
		}
	}
	return nil
}
