package resolve

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/pandoproxy/pando/internal/host"
)

// Step is what one source said of a name, or why it was not asked.
type Step struct {
	Source string `json:"source"` // as in Answer.Source; or one resolver's address
	Name   string `json:"name"`   // what it was asked for: a search domain or an alias may have changed it
	Says   string `json:"says"`
}

// Explain looks h up anew, past the cache, which it leaves as it is, and tells
// what each source said. The error is one of Lookup's.
func (r *Resolver) Explain(ctx context.Context, h host.Host) (Answer, []Step, error) {
	if h.Addr.IsValid() {
		return Answer{Addrs: []netip.Addr{h.Addr}, Source: SourceLiteral}, []Step{{SourceLiteral, h.Addr.String(), "is an address: there is nothing to look up"}}, nil
	}
	s := &steps{}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, stepsKey{}, s), r.opts.Timeout)
	defer cancel()
	answer, ttl, err := r.lookup(ctx, h.Name, 0)
	answer.TTL = ttl
	s.mu.Lock() // a question that nobody waits for any more may still be noted
	defer s.mu.Unlock()
	return answer, slices.Clone(s.list), err
}

// steps collects the steps of one lookup.
type steps struct {
	mu   sync.Mutex
	list []Step
}

type stepsKey struct{}

// note adds a step to those that ctx collects, if it does.
func note(ctx context.Context, source, name, format string, args ...any) {
	if s, ok := ctx.Value(stepsKey{}).(*steps); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.list = append(s.list, Step{source, name, fmt.Sprintf(format, args...)})
	}
}

// noteResult is note for what a source has answered.
func noteResult(ctx context.Context, source, name string, res result) {
	switch {
	case res.err != nil:
		note(ctx, source, name, "failed: %v", res.err)
	case len(res.addrs) > 0:
		note(ctx, source, name, "%s, for %v", orNoEntry(res.addrs), res.ttl)
	case res.alias != "":
		note(ctx, source, name, "is an alias of %s", res.alias)
	case res.nx:
		note(ctx, source, name, "does not exist")
	default:
		note(ctx, source, name, "exists, without an address")
	}
}

func orNoEntry(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "no entry"
	}
	return strings.Trim(fmt.Sprint(addrs), "[]")
}

// Check is how one resolver of a zone fares.
type Check struct {
	Suffix, Server string
	Took           time.Duration
	Err            error // nil when it answers
}

// CheckZones asks each resolver of each zone for the zone itself, and the
// tailnet's global resolvers for the root, and returns how they fared, by zone.
func (r *Resolver) CheckZones(ctx context.Context) []Check {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	var list []Check
	var dials []DialFunc
	add := func(suffix string, servers []string, dial DialFunc) {
		for _, s := range servers {
			list, dials = append(list, Check{Suffix: suffix, Server: s}), append(dials, dial)
		}
	}
	zones := r.Zones()
	for _, suffix := range slices.Sorted(maps.Keys(zones)) {
		if !strings.HasSuffix(suffix, ".arpa") { // of addresses: nobody asks for these here
			add(suffix, zones[suffix].Servers, r.dialer(zones[suffix]))
		}
	}
	if v, _ := r.view(); r.opts.DialGlobal != nil {
		add(".", v.Resolvers, r.opts.DialGlobal)
	}
	var g errgroup.Group
	g.SetLimit(16)
	for i := range list {
		g.Go(func() error {
			c, start := &list[i], time.Now()
			_, c.Err = r.exchangeOne(ctx, dials[i], c.Server, new(dns.Msg).SetQuestion(dns.Fqdn(c.Suffix), dns.TypeSOA))
			c.Took = time.Since(start)
			return nil
		})
	}
	g.Wait()
	return list
}
