package resolve

import (
	"context"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// Judge decides whether a name may be used to which an alias leads: it returns
// nil, or the *flow.Error that ends the lookup. It judges for one client, so its
// verdicts are not cached.
type Judge func(alias string) error

// maxAliases bounds the CNAMEs that lead from one source to another.
const maxAliases = 8

// follow looks name up with ask, and then the names that it is an alias of, until
// one has addresses. It judges each of these names before it asks for it, and each
// name of a chain inside one answer before it uses the addresses of the answer. A
// nil judge allows all names.
//
// ask returns what the sources of one name say, from the cache or not.
func follow(ctx context.Context, name string, timeout time.Duration, judge Judge, ask func(context.Context, string) (Answer, error)) (whole Answer, err error) {
	deadline := time.Now().Add(timeout)
	whole.Cached = true
	for hops := 0; ; hops++ {
		a, err := ask(ctx, name)
		whole.add(a, hops)
		if jerr := whole.judge(a, hops, judge); jerr != nil {
			return whole, jerr
		}
		if err != nil {
			return whole, err
		}
		if a.next == "" {
			whole.Addrs = a.Addrs
			return whole, nil
		}
		if hops == maxAliases {
			return whole, fail(flow.NotFound, name, "the name is an alias of an alias, too many times", flow.ErrNoAddress)
		}
		name = a.next
		if hops == 0 { // the first name has its own timeout, with a better error
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
	}
}

// add takes over what a, the answer for one name of the chain, says about the
// whole. hops is the number of names before it.
func (whole *Answer) add(a Answer, hops int) {
	whole.Source = a.Source
	whole.Cached = whole.Cached && a.Cached
	if hops == 0 {
		whole.Name = a.Name
	} else if a.Name != "" {
		whole.Aliases = append(whole.Aliases, a.Name)
	}
	if a.TTL > 0 && (whole.TTL == 0 || a.TTL < whole.TTL) {
		whole.TTL = a.TTL
	}
	whole.Aliases = append(whole.Aliases, a.Aliases...)
	whole.records = append(whole.records, a.records...)
}

// judge judges the names of a, the answer for one name of the chain. The first
// name and its completed form are not aliases.
func (whole *Answer) judge(a Answer, hops int, judge Judge) error {
	if judge == nil {
		return nil
	}
	if hops > 0 && a.Name != "" {
		if err := judge(a.Name); err != nil {
			return err
		}
	}
	for _, alias := range a.Aliases {
		if err := judge(alias); err != nil {
			return err
		}
	}
	return nil
}

// publicName returns Answer.PublicName of a, the answer for name.
func (r *Resolver) publicName(name string, a *Answer) string {
	if a.Source != SourceBase && a.Source != SourceGlobal {
		return ""
	}
	switch {
	case len(a.Aliases) > 0:
		name = a.Aliases[len(a.Aliases)-1]
	case a.Name != "":
		name = a.Name
	}
	files := r.files.Load()
	if files.OfCluster(name) {
		return ""
	}
	return name
}
