package resolve

import (
	"context"
	"errors"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
	"github.com/pandoproxy/pando/internal/flow"
)

// entry is a cached outcome: an answer, or the error that says that there is
// none.
type entry struct {
	answer  Answer
	err     error
	expires time.Time
	// useful is until when the answer is used if there is no fresh one. Zero means
	// never.
	useful time.Time
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
func (r *Resolver) lookUpCached(ctx context.Context, name string) (Answer, error) {
	if a := lookupHosts(*r.hosts.Load(), name); len(a) > 0 {
		return Answer{Addrs: a, Source: SourceHosts}, nil
	}
	old, kept := r.cache.Get(name)
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
	version := r.changes.version.Load()
	// The version is part of the key: a lookup that began before a change must
	// not be shared with a caller that came after it.
	ch := r.flight.DoChan(strconv.FormatInt(version, 10)+" "+name, func() (any, error) {
		// The lookup is shared, so it must not end with the caller that began it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.opts.Timeout)
		defer cancel()
		return r.fill(ctx, name, version), nil
	})
	select {
	case res := <-ch:
		e := res.Val.(entry)
		return e.answer, e.err
	case <-stale:
		old.answer.TTL = staleTTL
		return old.answer, nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return Answer{}, fail(flow.Timeout, name, "the lookup took longer than resolve.timeout", ctx.Err())
		}
		return Answer{}, fail(flow.Canceled, name, "", ctx.Err())
	}
}

// fill looks name up and caches the outcome, unless it is only temporary or the
// owners have changed since version.
func (r *Resolver) fill(ctx context.Context, name string, version int64) (e entry) {
	defer flow.CatchIn(ctx, &e.err)
	answer, ttl, _, err := r.lookup(ctx, name)
	e = entry{answer: answer, err: err}
	switch flow.ClassOf(err) {
	case flow.OK:
		ttl = min(max(ttl, r.opts.MinTTL), r.opts.MaxTTL)
	case flow.NotFound:
		ttl = min(max(ttl, r.opts.MinTTL), negativeTTL)
	case flow.ResolveFailed, flow.Timeout: // of the resolver: the name may exist
		if old, ok := r.cache.Get(name); ok && time.Now().Before(old.useful) {
			old.expires = time.Now().Add(staleRetry)
			old.answer.TTL = staleTTL
			r.keep(name, old, version)
			return old
		}
		ttl = failureTTL
	default:
		return e
	}
	e.expires = time.Now().Add(ttl)
	e.answer.TTL = ttl
	if err == nil {
		e.useful = e.expires.Add(staleTime)
	}
	r.keep(name, e, version)
	return e
}

// changes counts the changes of owners.
type changes struct {
	mu      sync.Mutex
	seen    owners
	version atomic.Int64 // increased by each change
}

// Follow checks whether the host table, the zones or the tailnet's DNS
// configuration have changed since its last call. If so, it forgets all answers.
func (r *Resolver) Follow() {
	o, up := r.owners()
	if !up {
		return
	}
	c := &r.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if reflect.DeepEqual(c.seen, o) {
		return
	}
	c.seen = o
	c.version.Add(1)
	r.cache.Purge()
}

// keep caches an outcome that was looked up at version. If the owners have
// changed since, another source may own the name, and keep does nothing.
func (r *Resolver) keep(name string, e entry, version int64) {
	r.changes.mu.Lock()
	defer r.changes.mu.Unlock()
	if r.changes.version.Load() == version {
		r.cache.Add(name, e)
	}
}
