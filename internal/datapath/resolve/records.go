package resolve

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/flow"
)

// question is what a lookup is for.
type question struct {
	name  string // lower case, no trailing dot
	qtype uint16 // of records other than A and AAAA; zero means the addresses
}

// key is what the outcome is kept under. No name has a NUL: it would be spelled \000.
func (q question) key() string {
	if q.qtype == 0 {
		return q.name
	}
	return q.name + "\x00" + strconv.Itoa(int(q.qtype))
}

// Records looks the records of name of a type other than A and AAAA up for client, as
// LookupJudged looks up addresses: with the same sources, cache and bounds, and it follows
// aliases. name is lower case and has no trailing dot. answer has the CNAMEs on the way;
// it is the caller's own. exists reports whether the name exists; an answer without
// records then means that it has none of the type.
//
// Host tables, extra records and nodes have only addresses. So the zone that contains
// their name is asked for other records, and if none does, the name has none.
func (r *Resolver) Records(ctx context.Context, client netip.Addr, name string, qtype uint16, judge Judge) (answer []dns.RR, exists bool, err error) {
	a, err := follow(ctx, name, r.opts.Timeout, judge, func(ctx context.Context, name string) (Answer, error) {
		return r.lookUpCached(ctx, client, question{name, qtype})
	})
	r.looked(a, err)
	if err != nil && flow.ClassOf(err) != flow.NotFound {
		return nil, false, err
	}
	most := uint32(max(a.TTL, time.Second) / time.Second)
	for _, rr := range a.records { // in the cache, where others read them
		rr = dns.Copy(rr)
		rr.Header().Ttl = min(rr.Header().Ttl, most)
		answer = append(answer, rr)
	}
	if len(answer) > 1 {
		answer = dns.Dedup(answer, nil) // of a loop of aliases
	}
	return answer, err == nil || errors.Is(err, flow.ErrNoAddress), nil
}

// only makes v the view of a lookup of records of one type. The tables have none.
func (v *view) only(qtype uint16) {
	tables := v.Owners
	file := v.files.Hosts
	v.qtype = qtype
	v.inTable = func(name string) bool { return tables.HasAddress(name) || len(file[name]) > 0 }
	v.Hosts = nil
	v.Records = nil
	v.Nodes = nil
	v.files.Hosts = nil
}

// withTables changes end, the outcome of a lookup of records of name: a name in a table
// exists, whatever the other sources say.
func (v *view) withTables(name string, end *outcome) {
	if v.inTable == nil || !end.NX && !errors.Is(end.Err, errUnknownZone) || !v.inTable(name) {
		return
	}
	end.NX = false
	end.Err = nil
}
