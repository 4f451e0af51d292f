// Package resolve turns the host that a client asked for into addresses. A name
// belongs to one source, the most specific one, and only that source is asked:
//
//  1. an address needs no lookup
//  2. the host table of the configuration, then the pod's /etc/hosts, which holds
//     its hostAliases
//  3. a short name is completed with each of the tailnet's search domains, and
//     each result is looked up in the sources of 2, 4, 5 and 7
//  4. the tailnet's extra records, and the names of nodes for which MagicDNS does
//     not answer
//  5. zones, the longest suffix first: those of the configuration, the
//     tailnet's split-DNS routes, and MagicDNS. Their resolvers are reached
//     through the tunnel. Only a public resolver of the tailnet that no peer
//     carries is asked directly. Answers of other sources about such a zone are
//     discarded
//  6. names that cluster DNS forwards to this process and that no source above
//     owns: their lookup fails, because the pod's resolver would forward it back
//  7. the tailnet's global resolvers, if it has any, except for names under the
//     pod's own search domains: these belong to the cluster
//  8. the pod's own resolvers, from /etc/resolv.conf
//
// A lookup has four parts. follow.go follows aliases. For each name, plan.go decides
// which sources are asked, in which order, and why the others are not. It is pure.
// ask.go runs the plan. explain.go puts the plan and its outcomes into words.
//
// Answers are cached for their TTL, and longer while the resolvers do not answer
// (RFC 8767). Failures are cached for a short time (RFC 2308), apart from the
// answers. For each name, one lookup runs at a time. An alias (CNAME) that leads to
// another source is cached as a name of its own, so that each caller's judge decides
// about it. The package does not judge addresses and does not dial them.
//
// What a name costs is bounded, because others choose the names and what they lead
// to. Of its addresses, dnsclient.MaxAddrs are kept; a chain has maxAliases names
// of other sources at most, and each reply leads to 8 names at most. The cache has
// a bound of bytes. A lookup sends these queries:
//
//   - 2 to the source that owns the name, for A and AAAA
//   - 2 to the pod's resolvers for a whole name, if there is an answer, or if the
//     name does not exist in a zone of two labels or more
//   - otherwise 1 more for each search domain of the pod, and 2 for the one that
//     completes the name
//   - as many for each name of another source that an alias leads to
//
// A query is sent once. It is sent again over TCP if the answer is truncated, or does
// not come within dnsclient.TCPAfter. If a server fails, the next
// one is asked, as long as Options.Timeout allows.
package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"

	"github.com/pandoproxy/pando/internal/datapath/resolve/cache"
	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
	"github.com/pandoproxy/pando/internal/datapath/resolve/owner"
	"github.com/pandoproxy/pando/internal/datapath/resolve/podfiles"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// Sources of an answer, as Answer.Source and the log spell them. The source of a
// zone is SourceZone followed by the zone's suffix.
const (
	SourceLiteral  = "literal"
	SourceHosts    = "hosts"
	SourceFile     = "hosts_file"
	SourceRecord   = "record"
	SourceNode     = "node"
	SourceMagicDNS = "magicdns"
	SourceZone     = "zone "
	SourceGlobal   = "global"
	SourceServed   = "served" // a suffix of Options.Served for which no resolver is known
	SourceBase     = "base"
)

// TailnetDNS is the DNS configuration of a tailnet.
type TailnetDNS = owner.Tailnet

// Zone is a DNS suffix with its own resolvers.
type Zone = owner.Zone

// Options says where answers come from. The zero value asks only the pod's own
// resolvers.
type Options struct {
	// Hosts maps names, and "*.suffix" for all names below suffix, to addresses.
	Hosts map[string][]netip.Addr

	// Zones are the configuration's own zones, by suffix.
	Zones map[string]Zone
	// Served are the suffixes that cluster DNS forwards to this process. If no
	// other source owns a name below them, the lookup fails: the pod's own
	// resolver would forward the query back to this process.
	Served []string

	// Tailnet returns the tailnet's DNS configuration, and false while the
	// tailnet is not up. Lookups then fail with flow.NotReady, because a private
	// name must not be sent to the pod's network by mistake. Nil means that
	// there is no tailnet.
	Tailnet func() (TailnetDNS, bool)
	// QueryMagic answers a query, in wire form, for a name under MagicSuffix.
	QueryMagic func(ctx context.Context, query []byte) ([]byte, error)
	// DialTailnet opens a connection ("udp" or "tcp") through the tunnel.
	DialTailnet DialFunc
	// DialGlobal opens a connection to a resolver of the tailnet, global or of a
	// split-DNS route, through the tunnel or directly, as its address requires. Nil
	// means that global resolvers are not asked, and that the others are reached
	// through the tunnel.
	DialGlobal DialFunc

	HostsFile  string // empty means /etc/hosts
	ResolvConf string // empty means /etc/resolv.conf

	// Timeout bounds one lookup, all its queries included. Zero means
	// DefaultTimeout.
	Timeout time.Duration
	// MinTTL and MaxTTL bound how long an answer is kept. Zero means
	// DefaultMinTTL and DefaultMaxTTL.
	MinTTL, MaxTTL time.Duration
	// Looked, when set, is called for each lookup of a name. source is the kind of
	// source that answered or failed: one of the Source constants, for a zone
	// without its suffix, and empty if no source was asked. cached says whether
	// the outcome came from the cache.
	Looked func(source string, class flow.Class, cached bool)
	// CacheBytes bounds the memory of the cache, in bytes. Three quarters are for
	// answers, and one quarter is for names that do not exist and for failures. Zero
	// means DefaultCacheBytes.
	CacheBytes int
	// Enter is called before a source is asked. It admits the lookup, or returns why
	// it does not: a *flow.Error of class Overloaded. client is the one whose lookup it
	// is, and the zero address for the replica's own. leave is called once, when the
	// source has answered. Callers that share a lookup, or find the answer in the
	// cache, do not enter. Nil admits all.
	Enter func(client netip.Addr, source string) (leave func(), err error)
}

// DialFunc opens a connection to one address.
type DialFunc = dnsclient.DialFunc

// Answer is the outcome of a successful lookup.
type Answer struct {
	Addrs  []netip.Addr // never empty
	Source string       // one of the Source constants, for a zone with its suffix
	Cached bool
	TTL    time.Duration // how long the answer is still valid; zero for an answer of a table
	// Name is the whole name that a search domain made of a short one. It is
	// empty if the name was taken as it is.
	Name string
	// Aliases is the names to which CNAMEs led on the way to the addresses, in
	// order, lower case and without the trailing dot.
	Aliases []string

	// PublicName is the name that has the addresses, if it is a public one: the pod's
	// own resolvers or the tailnet's global ones answered, and it is none of the
	// cluster's names. Otherwise it is empty. Explain does not set it.
	PublicName string

	next    string   // in the cache: the alias that another source is asked for; empty if there is none
	records []dns.RR // of Records
}

// Resolver resolves names. Its methods may be called at the same time.
type Resolver struct {
	opts    Options
	hosts   atomic.Pointer[map[string][]netip.Addr]
	zones   atomic.Pointer[map[string]Zone]
	changes changes
	answers *cache.Split[entry]
	flight  singleflight.Group
	files   podfiles.Reader
	client  dnsclient.Client

	dialBase DialFunc // how the pod's own resolvers are reached; tests replace it
}

// The defaults of Options.
const (
	DefaultTimeout = 5 * time.Second
	DefaultMinTTL  = time.Second
	DefaultMaxTTL  = 5 * time.Minute

	DefaultCacheBytes = 8 << 20 // some 10,000 names with a few addresses each
)

// serverTimeout returns how long a lookup waits for one server before it asks the next.
// It is dnsclient.ServerTimeout for the default lookup. Whoever gives lookups more time
// has slow servers, so one server gets more, too: at most 5 s, as in resolv.conf(5).
func serverTimeout(lookup time.Duration) time.Duration {
	return min(max(lookup*2/5, dnsclient.ServerTimeout), 5*time.Second)
}

// New returns a resolver. It starts no goroutine.
func New(opts Options) *Resolver {
	if opts.HostsFile == "" {
		opts.HostsFile = "/etc/hosts"
	}
	if opts.ResolvConf == "" {
		opts.ResolvConf = "/etc/resolv.conf"
	}
	if opts.Timeout == 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.MinTTL == 0 {
		opts.MinTTL = DefaultMinTTL
	}
	if opts.MaxTTL == 0 {
		opts.MaxTTL = DefaultMaxTTL
	}
	if opts.CacheBytes == 0 {
		opts.CacheBytes = DefaultCacheBytes
	}
	r := &Resolver{
		opts:     opts,
		client:   dnsclient.Client{Timeout: serverTimeout(opts.Timeout)},
		answers:  cache.NewSplit[entry](opts.CacheBytes),
		files:    podfiles.Reader{Hosts: opts.HostsFile, Conf: opts.ResolvConf},
		dialBase: dialHost,
	}
	r.hosts.Store(&opts.Hosts)
	r.zones.Store(&opts.Zones)
	return r
}

// SetHosts replaces the host table.
func (r *Resolver) SetHosts(hosts map[string][]netip.Addr) {
	r.hosts.Store(&hosts)
	r.Follow()
}

// SetZones replaces the configuration's own zones.
func (r *Resolver) SetZones(zones map[string]Zone) {
	r.zones.Store(&zones)
	r.Follow()
}

// Lookup resolves h for the replica itself. The error is a *flow.Error of class
// NotFound, ResolveFailed, Timeout, Overloaded, NotReady or Canceled.
func (r *Resolver) Lookup(ctx context.Context, h host.Host) (Answer, error) {
	return r.LookupJudged(ctx, netip.Addr{}, h, nil)
}

// LookupJudged resolves h for client as Lookup does. It asks judge about each name to
// which an alias leads: before a source is asked for it, and before an address is
// used. The error may be that of judge; the Answer then has the aliases so far.
func (r *Resolver) LookupJudged(ctx context.Context, client netip.Addr, h host.Host, judge Judge) (Answer, error) {
	if h.Addr.IsValid() {
		return literal(h.Addr), nil
	}
	a, err := follow(ctx, h.Name, r.opts.Timeout, judge, func(ctx context.Context, name string) (Answer, error) {
		return r.lookUpCached(ctx, client, question{name: name})
	})
	if err == nil {
		a.PublicName = r.publicName(h.Name, &a)
	}
	r.looked(a, err)
	return a, err
}

func (r *Resolver) looked(a Answer, err error) {
	if r.opts.Looked != nil {
		kind, _, _ := strings.Cut(a.Source, " ")
		r.opts.Looked(kind, flow.ClassOf(err), a.Cached)
	}
}

func literal(a netip.Addr) Answer {
	return Answer{Addrs: []netip.Addr{a}, Source: SourceLiteral}
}

// LookupPod resolves a name of the cluster, such as the fleet's own Service. It
// asks only the pod's /etc/hosts and the pod's own resolvers, and does not use
// the cache. The host table of the configuration does not count, not even for a
// name that a search domain has completed: it is about the names that clients ask
// for. It returns all addresses, because the fleet may be large. The errors are
// those of Lookup.
func (r *Resolver) LookupPod(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	v := view{files: r.files.Load(), whole: true}
	end, _ := r.run(ctx, &v, v.planPod(name))
	switch {
	case end.Err != nil:
		return nil, unanswered(name, end)
	case len(end.Addrs) == 0:
		return nil, notFound(name, end)
	}
	return end.Addrs, nil
}

// Reasons for which a lookup fails before a resolver is asked.
var (
	errNotReady    = errors.New("the tailnet is not up")
	errUnknownZone = errors.New("no resolver is known for the zone")
)

// unanswered is the error of a lookup that ended in a failure.
func unanswered(name string, end outcome) error {
	switch {
	case errors.Is(end.Err, errNotReady):
		return fail(flow.NotReady, name, "the replica has not joined its tailnet yet: try again", nil)
	case errors.Is(end.Err, errUnknownZone):
		return fail(flow.ResolveFailed, name, "cluster DNS forwards this zone to the fleet, which has no resolver for it: add a split-DNS route to the tailnet, or set resolve.zones", end.Err)
	}
	if flow.ClassOf(end.Err) == flow.Overloaded { // of Options.Enter
		return fail(flow.Overloaded, name, flow.HintOf(end.Err), end.Err)
	}
	class := flow.ResolveFailed
	if timedOut(end.Err) {
		class = flow.Timeout
	}
	return fail(class, name, "no resolver that is responsible for this name gave a usable answer; source: "+end.source+ofClient(name), end.Err)
}

func timedOut(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// notFound is the error of a lookup that ended without an address.
func notFound(name string, end outcome) error {
	if !end.NX {
		return fail(flow.NotFound, name, "the name exists, but has no address according to its source: "+end.source+ofClient(name), flow.ErrNoAddress)
	}
	return fail(flow.NotFound, name, "the name does not exist according to its source: "+end.source+ofClient(name), nil)
}

// ofClient completes the hint for a name that may mean something to the client alone.
func ofClient(name string) string {
	switch {
	case host.Under(name, "localhost"):
		return "; it means the client itself: add localhost to the client's NO_PROXY"
	case !strings.Contains(name, "."):
		return "; a replica does not know the client's namespace: for a Service, use " + name + ".NAMESPACE.svc, or add " + name + " to the client's NO_PROXY"
	}
	return ""
}

func fail(class flow.Class, name, hint string, err error) error {
	return &flow.Error{
		Class:  class,
		Op:     "resolve",
		Target: name,
		Hint:   hint,
		Err:    err,
	}
}
