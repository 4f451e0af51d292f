// Package resolve turns the name that a client asked for into addresses. It
// asks the most specific source first, and only that one:
//
//  1. an address in any spelling (host.go): no lookup at all
//  2. the host table of the configuration, then the pod's /etc/hosts, where its
//     hostAliases are
//  3. a short name is completed by the tailnet's search domains, and begins here
//     anew with each of them
//  4. the tailnet's extra records
//  5. zones, the longest suffix first: those of the configuration, the
//     tailnet's split-DNS routes, and MagicDNS. They are asked through the
//     tunnel: a private zone's query never reaches the pod's network, and no
//     answer from there is believed
//  6. the tailnet's global resolvers, if it has any, but for names under the
//     pod's own search domains, which are the cluster's
//  7. the pod's own resolvers, those of /etc/resolv.conf
//
// Answers are cached for their TTL, and used for longer while the resolvers
// don't answer (RFC 8767); failures of the name for a short time (RFC 2308).
// One lookup of a name is in flight at a time. The package
// does not judge addresses and does not dial them.
package resolve

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// Sources of an answer, as Answer.Source and the log spell them. An answer of
// a zone's resolver has the source "zone " and the zone's suffix.
const (
	SourceLiteral  = "literal"
	SourceHosts    = "hosts"
	SourceFile     = "hosts_file"
	SourceRecord   = "record"
	SourceMagicDNS = "magicdns"
	SourceZone     = "zone "
	SourceGlobal   = "global"
	SourceServed   = "served" // a zone of Options.Served that nobody is known for
	SourceBase     = "base"
)

// TailnetDNS is the DNS configuration of a tailnet. Names are lower case and
// have no trailing dot; package tailnet says what each field means.
type TailnetDNS struct {
	MagicSuffix string
	Magic       bool
	Records     map[string][]netip.Addr
	Routes      map[string][]string
	Resolvers   []string
	Search      []string
}

// Zone is a DNS suffix's resolvers.
type Zone struct {
	Servers []string // "10.12.0.2" or "10.12.0.2:5353"; an empty list answers that no name exists
	Direct  bool     // reached through the pod's own network, not the tunnel
}

// Options says where answers come from. The zero value asks only the host's
// own resolvers.
type Options struct {
	// Hosts maps names, and "*.suffix" for all names below suffix, to addresses.
	Hosts map[string][]netip.Addr

	// Zones are the configuration's own, by suffix.
	Zones map[string]Zone
	// Served are the suffixes that cluster DNS forwards to this process: when
	// none of the other sources knows whom to ask for a name below them, the
	// pod's own resolver is not asked either, for that would be a circle.
	Served []string

	// Tailnet returns the tailnet's DNS configuration, and false while the
	// tailnet is not up: lookups then fail with flow.NotReady, for a private
	// name must not be asked of the pod's network by mistake. Nil means that
	// there is no tailnet.
	Tailnet func() (TailnetDNS, bool)
	// QueryMagic answers a query, in wire form, for a name under MagicSuffix.
	QueryMagic func(ctx context.Context, query []byte) ([]byte, error)
	// DialTailnet opens a connection ("udp" or "tcp") through the tunnel.
	DialTailnet DialFunc
	// DialGlobal opens one to a global resolver of the tailnet, by the road that
	// is right for its address. Nil means that those are not asked.
	DialGlobal DialFunc

	HostsFile  string // empty means /etc/hosts
	ResolvConf string // empty means /etc/resolv.conf

	// Timeout bounds one lookup, all its queries included. Zero means 5s.
	Timeout time.Duration
	// MinTTL and MaxTTL bound how long an answer is kept. Zero means 1s and 5m.
	MinTTL, MaxTTL time.Duration
	// Looked, when set, is told of each lookup: the kind of source that answered
	// or failed (a zone's without its suffix; empty when none was asked), the
	// outcome, and whether it came from the cache.
	Looked func(source string, class flow.Class, cached bool)
	// CacheSize is the number of names kept. Zero means 10,000.
	CacheSize int
	// PerSource is the number of names that one zone, or one other source, is
	// asked for at a time; others wait. Zero means 256.
	PerSource int
}

// DialFunc opens a connection to one address.
type DialFunc func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)

// Answer is what a name stands for. Addrs is never empty.
type Answer struct {
	Addrs  []netip.Addr
	Source string
	Cached bool
	TTL    time.Duration // how long it is still good; zero for what is not asked of a server
	// Name is the whole name that a search domain made of a short one; empty when
	// the name was taken as it is.
	Name string
}

// Resolver resolves names. Its methods may be called at the same time.
type Resolver struct {
	opts    Options
	hosts   atomic.Pointer[map[string][]netip.Addr]
	zones   atomic.Pointer[map[string]Zone]
	follow  follow
	cache   *lru.Cache[string, entry]
	flight  singleflight.Group
	sources sources
	base    baseFiles
	health  health

	dialBase DialFunc // how the pod's own resolvers are reached; tests replace it
}

// entry is one cached outcome: addresses, or the error that says there are none.
type entry struct {
	answer  Answer
	err     error
	expires time.Time
	useful  time.Time // until when it stands in for an answer that can't be had; zero means never
}

// negativeTTL is how long "no such name" is kept when the zone gives no SOA,
// and at most (RFC 2308 section 5 leaves the ceiling to us).
const negativeTTL = 10 * time.Second

// failureTTL is how long it is kept that resolvers did not answer: the least that
// RFC 9520 section 3.2 allows, so that clients that try again don't storm them.
const failureTTL = time.Second

// Serving stale answers while the resolvers don't answer, RFC 8767 section 5.
const (
	staleTime  = time.Hour               // how long an answer is of use after its time
	staleAfter = 1800 * time.Millisecond // how long a client waits for a fresh one
	staleRetry = 10 * time.Second        // how long the resolvers are let alone after they failed
	staleTTL   = 30 * time.Second        // how long others may keep it, section 4
)

// New returns a resolver. It starts nothing.
func New(opts Options) *Resolver {
	if opts.HostsFile == "" {
		opts.HostsFile = "/etc/hosts"
	}
	if opts.ResolvConf == "" {
		opts.ResolvConf = "/etc/resolv.conf"
	}
	if opts.Timeout == 0 {
		opts.Timeout = 5 * time.Second
	}
	if opts.MinTTL == 0 {
		opts.MinTTL = time.Second
	}
	if opts.MaxTTL == 0 {
		opts.MaxTTL = 5 * time.Minute
	}
	if opts.CacheSize == 0 {
		opts.CacheSize = 10_000
	}
	if opts.PerSource == 0 {
		opts.PerSource = 256
	}
	r := &Resolver{opts: opts, sources: sources{most: opts.PerSource}, base: baseFiles{hosts: opts.HostsFile, conf: opts.ResolvConf}, dialBase: dialHost}
	r.hosts.Store(&opts.Hosts)
	r.zones.Store(&opts.Zones)
	var err error
	if r.cache, err = lru.New[string, entry](opts.CacheSize); err != nil {
		panic("resolve: " + err.Error()) // only a size below 1
	}
	return r
}

// SetHosts replaces the host table.
func (r *Resolver) SetHosts(hosts map[string][]netip.Addr) {
	r.hosts.Store(&hosts)
	r.Follow()
}

// Lookup resolves h. The error is a *flow.Error of class NotFound,
// ResolveFailed, Timeout, NotReady or Canceled.
func (r *Resolver) Lookup(ctx context.Context, h host.Host) (Answer, error) {
	a, err := r.look(ctx, h)
	if r.opts.Looked != nil && !h.Addr.IsValid() {
		kind, _, _ := strings.Cut(a.Source, " ")
		r.opts.Looked(kind, flow.ClassOf(err), a.Cached)
	}
	return a, err
}

// LookupPod resolves a name by the pod's /etc/hosts and its own resolver alone,
// past the cache: it is a name of the cluster. The error is one of Lookup's.
func (r *Resolver) LookupPod(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	hosts, conf, err := r.base.load()
	if a := hosts[name]; len(a) > 0 {
		return a, nil
	}
	res := result{err: err}
	if err == nil {
		res, _, _ = r.askBase(ctx, conf, view{}, name)
	}
	switch {
	case res.err != nil:
		return nil, unanswered(name, SourceBase, res.err)
	case len(res.addrs) == 0:
		return nil, notFound(name, SourceBase, res)
	}
	return res.addrs, nil
}

// look is Lookup, except that the Answer of a failure has the source of it.
func (r *Resolver) look(ctx context.Context, h host.Host) (Answer, error) {
	if h.Addr.IsValid() {
		return Answer{Addrs: []netip.Addr{h.Addr}, Source: SourceLiteral}, nil
	}
	name := h.Name
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
	age := r.follow.age.Load()
	ch := r.flight.DoChan(strconv.FormatInt(age, 10)+" "+name, func() (any, error) {
		// The flight is shared, so it outlives the caller that began it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.opts.Timeout)
		defer cancel()
		return r.fill(ctx, name, age), nil
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
			return Answer{}, fail(flow.Timeout, name, "", ctx.Err())
		}
		return Answer{}, fail(flow.Canceled, name, "", ctx.Err())
	}
}

// fill looks name up and remembers the outcome if it is worth it, and of this age.
func (r *Resolver) fill(ctx context.Context, name string, age int64) entry {
	answer, ttl, err := r.lookup(ctx, name, 0)
	e := entry{answer: answer, err: err}
	switch flow.ClassOf(err) {
	case flow.OK:
		ttl = min(max(ttl, r.opts.MinTTL), r.opts.MaxTTL)
	case flow.NotFound:
		ttl = min(max(ttl, r.opts.MinTTL), negativeTTL)
	case flow.ResolveFailed, flow.Timeout: // the resolver failed, not the name
		if old, ok := r.cache.Get(name); ok && time.Now().Before(old.useful) {
			old.expires, old.answer.TTL = time.Now().Add(staleRetry), staleTTL
			r.keep(name, old, age)
			return old
		}
		ttl = failureTTL
	default:
		return e
	}
	e.expires, e.answer.TTL = time.Now().Add(ttl), ttl
	if err == nil {
		e.useful = e.expires.Add(staleTime)
	}
	r.keep(name, e, age)
	return e
}

// maxAliases bounds a chain of CNAMEs that leads from zone to zone.
const maxAliases = 8

// lookup asks the one source that is responsible for name.
func (r *Resolver) lookup(ctx context.Context, name string, aliases int) (Answer, time.Duration, error) {
	if a, source := r.listed(ctx, name); len(a) > 0 {
		return Answer{Addrs: a, Source: source}, hostsTTL, nil
	}
	v, up := r.view()
	if !up {
		return Answer{}, 0, fail(flow.NotReady, name, "the gateway has not joined its tailnet yet; try again", nil)
	}
	res, source, whole := r.askCompleted(ctx, v, name)
	if source == "" {
		res, source, whole = r.askOne(ctx, v, name)
		noteResult(ctx, source, cmp.Or(whole, name), res)
	} else {
		note(ctx, SourceBase, name, "not asked, nor anybody else: a search domain of the tailnet completes the name")
	}
	answer := Answer{Source: source, Name: whole}
	switch {
	case res.err != nil:
		return answer, 0, unanswered(name, source, res.err)
	case len(res.addrs) > 0:
		answer.Addrs = res.addrs
		return answer, res.ttl, nil
	case res.alias != "" && res.alias != name && aliases < maxAliases:
		a, ttl, err := r.lookup(ctx, res.alias, aliases+1)
		a.Name = whole
		return a, min(ttl, res.ttl), err
	}
	return answer, res.ttl, notFound(name, source, res)
}

func unanswered(name, source string, err error) error {
	class := flow.ResolveFailed
	if timedOut(err) {
		class = flow.Timeout
	}
	hint := "no resolver that is responsible for this name gave an answer of use; source: " + source
	if errors.Is(err, errUnknownZone) {
		hint = "this gateway is asked for the zone, and knows no resolver of it: give the tailnet a split-DNS route for it, or set resolve.zones"
	}
	return fail(class, name, hint, err)
}

func timedOut(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

func notFound(name, source string, res result) error {
	if !res.nx {
		return fail(flow.NotFound, name, "the name exists, but has no address according to its source: "+source, flow.ErrNoAddress)
	}
	return fail(flow.NotFound, name, "the name does not exist according to its source: "+source, nil)
}

func fail(class flow.Class, name, hint string, err error) error {
	return &flow.Error{Class: class, Op: "resolve", Target: name, Hint: hint, Err: err}
}

// sortAddrs puts addresses into a stable order that keeps the server's own
// within each family, IPv6 first (RFC 8305 section 4).
func sortAddrs(a []netip.Addr) {
	slices.SortStableFunc(a, func(x, y netip.Addr) int {
		switch {
		case x.Is6() == y.Is6():
			return 0
		case x.Is6():
			return -1
		}
		return 1
	})
}
