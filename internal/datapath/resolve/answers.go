package resolve

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"

	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
	"github.com/pandoproxy/pando/internal/datapath/resolve/owner"
	"github.com/pandoproxy/pando/internal/flow"
)

// entry is a cached outcome: an answer, or the error of a lookup that found none.
type entry struct {
	answer  Answer
	err     error
	expires time.Time
	// useful is when the answer expires for good. Until then it is used while the
	// resolvers give no fresh one. Zero means that it is not used after expires.
	useful time.Time
}

// bytes is what e takes in the cache.
func (e *entry) bytes() int {
	const fixed = 256   // of the struct
	const ofErr = 256   // of a *flow.Error, without its words
	const ofString = 16 // without its bytes
	const ofAddr = 24
	const ofRecord = 192 // without twice its bytes
	a := &e.answer
	n := fixed + len(a.Source) + len(a.Name) + len(a.next) + cap(a.Addrs)*ofAddr
	for _, alias := range a.Aliases {
		n += ofString + len(alias)
	}
	for _, rr := range a.records {
		n += ofRecord + 2*dns.Len(rr)
	}
	if e.err != nil {
		n += ofErr + len(e.err.Error()) + len(flow.HintOf(e.err))
	}
	return n
}

// negativeTTL bounds how long "no such name" is kept (RFC 2308 section 5).
const negativeTTL = dnsclient.NegativeTTL

// failureTTL is how long it is kept that the resolvers did not answer: the least
// that RFC 9520 section 3.2 allows. Clients that retry do not flood them.
const failureTTL = time.Second

// Serving stale answers while the resolvers do not answer, RFC 8767 section 5.
const (
	staleTime  = time.Hour               // how long an answer is useful after it has expired
	staleAfter = 1800 * time.Millisecond // how long a client waits for a fresh answer
	staleRetry = 10 * time.Second        // how long the resolvers are not asked after a failure
	staleTTL   = 30 * time.Second        // how long others may keep a stale answer, section 4
)

// lookUpCached answers from the host table or the cache, or else waits for a
// lookup, which it shares with other callers. It does not follow aliases. If it
// fails, the Answer names the source that failed.
func (r *Resolver) lookUpCached(ctx context.Context, client netip.Addr, q question) (Answer, error) {
	if a := owner.InTable(*r.hosts.Load(), q.name); len(a) > 0 && q.qtype == 0 {
		return Answer{Addrs: a, Source: SourceHosts}, nil
	}
	old, kept := r.answers.Get(q.key())
	old.answer.Cached = true
	if kept && time.Now().Before(old.expires) {
		old.answer.TTL = time.Until(old.expires)
		return old.answer, old.err
	}
	var stale <-chan time.Time
	if kept && time.Now().Before(old.useful) {
		t := time.NewTimer(staleAfter)
		defer t.Stop()
		stale = t.C
	}
	for tries := 1; ; tries++ {
		ch, began := r.join(ctx, client, q)
		select {
		case res := <-ch:
			e := res.Val.(entry)
			if flow.ClassOf(e.err) == flow.Overloaded && !*began && tries < maxJoins {
				continue // the client that began the lookup was refused, not this one
			}
			return e.answer, e.err
		case <-stale:
			old.answer.TTL = staleTTL
			return old.answer, nil
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return Answer{}, fail(flow.Timeout, q.name, "the lookup took longer than resolve.timeout", ctx.Err())
			}
			return Answer{}, fail(flow.Canceled, q.name, "", ctx.Err())
		}
	}
}

// maxJoins bounds how often a caller waits for lookups that others began, and that
// are refused.
const maxJoins = 4

// join begins a lookup, or joins the one of the same question in progress. Its outcome,
// an entry, comes from the channel. Then began says whether this call began it.
func (r *Resolver) join(ctx context.Context, client netip.Addr, q question) (ch <-chan singleflight.Result, began *bool) {
	version := r.changes.version.Load()
	began = new(bool)
	// The version is part of the key: a lookup that began before a change must
	// not be shared with a caller that came after it.
	ch = r.flight.DoChan(strconv.FormatInt(version, 10)+" "+q.key(), func() (any, error) {
		*began = true
		// The lookup is shared, so it must not end with the caller that began it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.opts.Timeout)
		defer cancel()
		return r.fill(ctx, client, q, version), nil
	})
	return ch, began
}

// fill looks q up for client and caches the outcome, unless it is only temporary
// or the owners have changed since version.
func (r *Resolver) fill(ctx context.Context, client netip.Addr, q question, version int64) (e entry) {
	defer flow.CatchIn(ctx, &e.err)
	v := r.view()
	v.client = client
	if q.qtype != 0 {
		v.only(q.qtype)
	}
	answer, ttl, _, err := r.lookup(ctx, &v, q.name)
	e = entry{answer: answer, err: err}
	switch flow.ClassOf(err) {
	case flow.OK:
		ttl = min(max(ttl, r.opts.MinTTL), r.opts.MaxTTL)
	case flow.NotFound:
		ttl = min(max(ttl, r.opts.MinTTL), negativeTTL)
	case flow.ResolveFailed, flow.Timeout: // of the resolver: the name may exist
		if old, ok := r.stale(q); ok {
			old.expires = time.Now().Add(staleRetry)
			r.keep(client, q, old, version)
			return old
		}
		ttl = failureTTL
	case flow.Overloaded: // of this client: it is not kept
		if old, ok := r.stale(q); ok {
			return old
		}
		return e
	default:
		return e
	}
	e.expires = time.Now().Add(ttl)
	e.answer.TTL = ttl
	if err == nil {
		e.useful = e.expires.Add(staleTime)
	}
	r.keep(client, q, e, version)
	return e
}

// stale returns the old answer of q, if it is useful still.
func (r *Resolver) stale(q question) (old entry, ok bool) {
	old, ok = r.answers.Get(q.key())
	old.answer.TTL = staleTTL
	return old, ok && time.Now().Before(old.useful)
}

// changes counts the changes of owners.
type changes struct {
	mu      sync.Mutex
	seen    owner.Owners
	version atomic.Int64 // increased by each change
}

// Follow checks whether the host table, the zones or the tailnet's DNS
// configuration have changed since its last call. If so, it forgets all answers.
func (r *Resolver) Follow() {
	o, up := r.owners()
	if !up {
		return
	}
	o.Nodes = nil // nodes come and go all the time, and keep their addresses
	c := &r.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if reflect.DeepEqual(c.seen, o) {
		return
	}
	c.seen = o
	c.version.Add(1)
	r.answers.Purge()
}

// keep caches an outcome that was looked up at version. If the owners have
// changed since, another source may own the name, and keep does nothing.
func (r *Resolver) keep(client netip.Addr, q question, e entry, version int64) {
	r.changes.mu.Lock()
	defer r.changes.mu.Unlock()
	if r.changes.version.Load() == version {
		r.answers.Add(client, q.key(), e, e.bytes(), e.err == nil)
	}
}
