package resolve

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
	"github.com/pandoproxy/pando/internal/host"
)

// Step is what one source said about a name, or why it was not asked.
type Step struct {
	Source string `json:"source"` // as in Answer.Source, or "resolver " and the address of one resolver
	Name   string `json:"name"`   // what it was asked for: a search domain or an alias may have changed the name
	Says   string `json:"says"`
}

// Explain is LookupJudged without the cache. It returns what each source said.
func (r *Resolver) Explain(ctx context.Context, h host.Host, judge Judge) (Answer, []Step, error) {
	if h.Addr.IsValid() {
		return literal(h.Addr), []Step{{SourceLiteral, h.Addr.String(), "an address needs no lookup"}}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	var all []outcome
	answer, err := follow(ctx, h.Name, r.opts.Timeout, judge, func(ctx context.Context, name string) (Answer, error) {
		v := r.view()
		a, ttl, outcomes, err := r.lookup(ctx, &v, name)
		a.TTL = ttl
		all = append(all, outcomes...)
		return a, err
	})
	return answer, describe(all), err
}

// describe puts the outcomes of a lookup into words.
func describe(outcomes []outcome) []Step {
	var steps []Step
	add := func(source, name, says string) { steps = append(steps, Step{source, name, says}) }
	for _, o := range outcomes {
		if o.skip != "" {
			add(o.source, o.name, o.skip)
			continue
		}
		for _, q := range o.Queries {
			add("resolver "+q.Server, o.name, q.String())
		}
		add(o.source, o.name, o.Result.String())
		if o.ended && o.last != "" {
			add(SourceBase, o.name, "not asked: "+o.last)
		}
	}
	return steps
}

// Health is Health of dnsclient.Client.
func (r *Resolver) Health() []dnsclient.Health { return r.client.Health() }

// Check is the outcome of a query to one resolver of a zone. Err is nil if it answered.
type Check struct {
	Suffix, Server string
	Took           time.Duration
	Err            error
}

// CheckZones asks each resolver of each zone for the zone itself, and the
// tailnet's global resolvers for the root. The checks are sorted by zone.
func (r *Resolver) CheckZones(ctx context.Context) []Check {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	var list []Check
	var dials []DialFunc // by index of list
	add := func(suffix string, servers []string, dial DialFunc) {
		for _, s := range servers {
			list = append(list, Check{Suffix: suffix, Server: s})
			dials = append(dials, dial)
		}
	}
	zones := r.Zones()
	for _, suffix := range slices.Sorted(maps.Keys(zones)) {
		if strings.HasSuffix(suffix, ".arpa") { // names of addresses, which no lookup here asks for
			continue
		}
		z := zones[suffix]
		add(suffix, z.Servers, r.dialer(networkOf(z)))
	}
	if r.opts.DialGlobal != nil {
		o, _ := r.owners()
		add(".", o.Resolvers, r.opts.DialGlobal)
	}
	var g errgroup.Group
	g.SetLimit(16)
	for i := range list {
		g.Go(func() error {
			c := &list[i]
			start := time.Now()
			_, c.Err = r.client.AskOne(ctx, dials[i], c.Server, new(dns.Msg).SetQuestion(dns.Fqdn(c.Suffix), dns.TypeSOA))
			c.Took = time.Since(start)
			return nil
		})
	}
	g.Wait()
	return list
}
