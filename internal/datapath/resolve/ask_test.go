package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// TestSourceOrder checks that the most specific source that exists answers, and
// that no other source is asked.
func TestSourceOrder(t *testing.T) {
	const name = "api.corp.example"
	d := TailnetDNS{
		Magic: true, MagicSuffix: "corp.example", Records: map[string][]netip.Addr{name: addrs("10.0.0.2")},
		Routes: map[string][]string{"corp.example": {"10.9.9.1"}, "example": {"10.9.9.2:53"}},
	}
	serve := func(addr string) *server { return newServer(t, records(name+". 60 IN A "+addr)) }
	servers := map[string]*server{"10.9.9.1": serve("10.0.0.4"), "10.9.9.2": serve("10.0.0.5"), base: serve("10.0.0.6")}
	o := Options{
		Hosts:      map[string][]netip.Addr{name: addrs("10.0.0.1")},
		QueryMagic: magic(records(name + ". 60 IN A 10.0.0.3")), ResolvConf: file(t, "nameserver "+base),
	}
	for _, step := range []struct {
		source, addr string
		remove       func() // removes the source for the next step
	}{
		{SourceHosts, "10.0.0.1", func() { o.Hosts = nil }},
		{SourceRecord, "10.0.0.2", func() { d.Records = nil }},
		{SourceMagicDNS, "10.0.0.3", func() { d.Magic = false }},
		{SourceZone + "corp.example", "10.0.0.4", func() { delete(d.Routes, "corp.example") }},
		{SourceZone + "example", "10.0.0.5", func() { delete(d.Routes, "example") }},
		{SourceBase, "10.0.0.6", func() {}},
	} {
		o.Tailnet = up(d)
		lookup(t, newResolver(t, o, servers), name, step.source, step.addr)
		step.remove()
	}
	for _, s := range servers {
		if q := s.queries(""); len(q) != 2 {
			t.Errorf("a server was asked %v, want A and AAAA once", q)
		}
	}
	// A route below the MagicDNS suffix is more specific than MagicDNS.
	d = TailnetDNS{Magic: true, MagicSuffix: "example", Routes: map[string][]string{"corp.example": {"10.9.9.1"}}}
	o.Tailnet = up(d)
	lookup(t, newResolver(t, o, servers), name, SourceZone+"corp.example", "10.0.0.4")
}

// TestPrivateZone checks that names of a private zone are never asked of the
// pod's resolver, and that its answers about them are discarded.
func TestPrivateZone(t *testing.T) {
	// The pod's resolver lies about the zone and knows a search domain in it.
	liar := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		m := records("pub.known. 60 IN CNAME api.corp.example.", "gone.known. 60 IN CNAME new.corp.example.",
			"api.corp.example. 60 IN A 203.0.113.66", "db.corp.example. 60 IN A 203.0.113.66", "corp. 60 IN A 203.0.113.66")(n, q)
		return m
	})
	zone := newServer(t, records(apiA, "new.corp.example. 60 IN A 10.0.0.2", "db.corp.example. 60 IN A 10.0.0.3"))
	r := newResolver(t, Options{
		ResolvConf: file(t, "nameserver "+base+"\nsearch corp.example\n"),
		Tailnet:    up(TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.1"}, "void.example": {}, "corp": {}}}),
	}, map[string]*server{base: liar, "10.9.9.1": zone})

	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")
	lookupFails(t, r, "none.corp.example", flow.NotFound, "source: zone corp.example")
	lookupFails(t, r, "x.void.example", flow.NotFound, "source: zone void.example") // a zone without resolvers
	lookupFails(t, r, "corp", flow.NotFound, "")
	lookup(t, r, "db", "zone corp.example", "10.0.0.3")
	// CNAMEs of the public DNS that lead into the zone are followed in the zone,
	// whether the pod's resolver gives a false address or none.
	lookup(t, r, "pub.known", "zone corp.example", "10.0.0.1")
	lookup(t, r, "gone.known", "zone corp.example", "10.0.0.2")
	for _, q := range liar.queries("") {
		if !strings.HasSuffix(q, ".known") {
			t.Errorf("the pod's resolver was asked %s, want only names below known", q)
		}
	}
}

// TestConfiguredZones checks which of the configuration's and the tailnet's zones
// wins, and how its resolvers are reached.
func TestConfiguredZones(t *testing.T) {
	inTunnel := newServer(t, records("api.corp.example. 60 IN A 10.0.0.1", "a.deep.corp.example. 60 IN A 10.0.0.2"))
	tailnets := newServer(t, records("api.corp.example. 60 IN A 10.0.0.9", "a.deep.corp.example. 60 IN A 10.0.0.3"))
	direct := newServer(t, records("db.onprem.example. 60 IN A 10.0.0.4"))
	pod := newServer(t, records("www.known. 60 IN A 10.0.0.5"))
	r := newResolver(t, Options{
		Zones:      map[string]Zone{"corp.example": {Servers: []string{"10.9.9.1"}}, "onprem.example": {Servers: []string{"192.0.2.3"}, Direct: true}},
		ResolvConf: file(t, "nameserver "+base+"\n"),
		Tailnet:    up(TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.2"}, "deep.corp.example": {"10.9.9.2"}}}),
	}, map[string]*server{base: pod, "10.9.9.1": inTunnel, "10.9.9.2": tailnets, "192.0.2.3": direct})
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")         // the configuration's zone wins over the tailnet's
	lookup(t, r, "a.deep.corp.example", "zone deep.corp.example", "10.0.0.3") // the longest suffix wins
	lookup(t, r, "db.onprem.example", "zone onprem.example", "10.0.0.4")      // not through the tunnel
	lookupFails(t, r, "none.onprem.example", flow.NotFound, "onprem.example") // no other source is asked
	lookup(t, r, "www.known", SourceBase, "10.0.0.5")
	if q := pod.queries(""); len(q) != 2 {
		t.Errorf("the pod's resolver was asked %v, want A and AAAA of one name", q)
	}
	// The zone gets another resolver: cached answers are forgotten.
	r.SetZones(map[string]Zone{"corp.example": {Servers: []string{"10.9.9.2"}}})
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.9")
}

// TestGlobalResolvers checks that the tailnet's global resolvers are asked for all
// names without an owner, except those of the cluster.
func TestGlobalResolvers(t *testing.T) {
	pod := newServer(t, records("web.ns.svc.cluster.local. 60 IN A 10.96.0.1", "printer. 60 IN A 10.0.0.8"))
	global := newServer(t, records("www.known. 60 IN A 192.0.2.1", "lies.known. 60 IN CNAME api.corp.example.", "api.corp.example. 60 IN A 203.0.113.66"))
	zone := newServer(t, records(apiA))
	o := Options{ResolvConf: file(t, "nameserver "+base+"\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\n")}
	o.Tailnet = up(TailnetDNS{Resolvers: []string{"192.0.2.53"}, Routes: map[string][]string{"corp.example": {"10.9.9.1"}}})
	r := newResolver(t, o, map[string]*server{base: pod, "192.0.2.53": global, "10.9.9.1": zone})
	r.opts.DialGlobal = byAddress(r)
	lookup(t, r, "www.known", SourceGlobal, "192.0.2.1")
	lookup(t, r, "web.ns.svc.cluster.local", SourceBase, "10.96.0.1") // belongs to the cluster
	lookup(t, r, "printer", SourceBase, "10.0.0.8")
	lookup(t, r, "lies.known", "zone corp.example", "10.0.0.1") // its answer about an owned name is discarded
	lookupFails(t, r, "none.known", flow.NotFound, SourceGlobal)
	for _, q := range pod.queries("") {
		if strings.HasSuffix(q, ".known") {
			t.Errorf("the pod's resolver was asked %s, want only names below known", q)
		}
	}
}

// byAddress returns a DialGlobal that reaches 192.0.2.0/24 directly, and others through
// the tunnel.
func byAddress(r *Resolver) DialFunc {
	return func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
		if netip.MustParsePrefix("192.0.2.0/24").Contains(addr.Addr()) {
			return r.dialBase(ctx, network, addr)
		}
		return r.opts.DialTailnet(ctx, network, addr)
	}
}

// TestSplitDNSToPublicResolver checks that the tailnet's split-DNS resolvers are reached
// as their addresses require, and those of the configuration through the tunnel.
func TestSplitDNSToPublicResolver(t *testing.T) {
	private := newServer(t, records(apiA))
	public := newServer(t, records("api.public.example. 60 IN A 10.0.0.2"))
	o := Options{Zones: map[string]Zone{"own.example": {Servers: []string{"192.0.2.53"}}}}
	o.Tailnet = up(TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.1"}, "public.example": {"192.0.2.53"}}})
	r := newResolver(t, o, map[string]*server{"192.0.2.53": public, "10.9.9.1": private})
	r.opts.DialGlobal = byAddress(r)
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")
	lookup(t, r, "api.public.example", "zone public.example", "10.0.0.2")
	through := make(chan netip.AddrPort, 16)
	r.opts.DialTailnet = func(_ context.Context, _ string, addr netip.AddrPort) (net.Conn, error) {
		through <- addr
		return nil, net.ErrClosed
	}
	lookupFails(t, r, "api.own.example", flow.ResolveFailed, "zone own.example")
	if len(through) == 0 || <-through != netip.MustParseAddrPort("192.0.2.53:53") {
		t.Error("a resolver of the configuration is not asked through the tunnel")
	}
}

// TestNodes checks that a name of a node has the node's addresses, whatever zone it is
// in, that a change of the nodes keeps the cache, and that other names below a node's
// suffix are looked up as before.
func TestNodes(t *testing.T) {
	var d atomic.Pointer[TailnetDNS]
	routes := map[string][]string{"shared.ts.example": {"10.9.9.1"}}
	d.Store(&TailnetDNS{Routes: routes, Nodes: map[string][]netip.Addr{"box.shared.ts.example": addrs("100.64.0.9")}})
	zone := newServer(t, records("box.shared.ts.example. 60 IN A 10.0.0.66", "api.shared.ts.example. 60 IN A 10.0.0.2"))
	r := newResolver(t, Options{Tailnet: func() (TailnetDNS, bool) { return *d.Load(), true }}, map[string]*server{"10.9.9.1": zone})
	r.Follow()
	lookup(t, r, "box.shared.ts.example", SourceNode, "100.64.0.9")
	lookup(t, r, "api.shared.ts.example", "zone shared.ts.example", "10.0.0.2")
	asked := len(zone.queries(""))
	d.Store(&TailnetDNS{Routes: routes, Nodes: map[string][]netip.Addr{"other.ts.example": addrs("100.64.0.8")}})
	r.Follow()
	lookup(t, r, "api.shared.ts.example", "zone shared.ts.example", "10.0.0.2")
	if got := len(zone.queries("")); got != asked {
		t.Errorf("a change of the nodes cost %d queries, want none", got-asked)
	}
	lookup(t, r, "other.ts.example", SourceNode, "100.64.0.8")
}

// TestShortNameHint checks that the hint for a short name says what a client in another
// namespace must use, however the lookup fails, and that other names get no such hint.
func TestShortNameHint(t *testing.T) {
	const advice = "use %s.NAMESPACE.svc, or add %[1]s to the client's NO_PROXY"
	const itself = "it means the client itself: add localhost to the client's NO_PROXY"
	for fails, answer := range map[string]answer{"not_found": records(), "resolve_failed": rcode(dns.RcodeServerFailure), "no_address": rcode(dns.RcodeSuccess)} {
		r := newResolver(t, Options{}, map[string]*server{base: newServer(t, answer)})
		for name, want := range map[string]string{
			"orders":          fmt.Sprintf(advice, "orders"),
			"Orders.":         fmt.Sprintf(advice, "orders"),
			"orders_db":       fmt.Sprintf(advice, "orders_db"),
			"_orders":         fmt.Sprintf(advice, "_orders"),
			"localhost":       itself,
			"app.localhost":   itself,
			"orders.shop":     "",
			"api.default":     "",
			"orders.shop.svc": "",
		} {
			h, err := host.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Lookup(t.Context(), h)
			hint := flow.HintOf(err)
			if err == nil || !strings.Contains(hint, want) || want == "" && strings.Contains(hint, "NO_PROXY") {
				t.Errorf("%s, %s: %v, hint %q; want a failure, and %q in the hint", name, fails, err, hint, want)
			}
		}
	}
}

// TestFirstLabelOfNode checks that a node is found by the first label of its name without
// MagicDNS and without a search domain, before a name of the cluster, and that other short
// names are not sent to the tailnet's resolvers with its suffix.
func TestFirstLabelOfNode(t *testing.T) {
	pod := newServer(t, records("box. 60 IN A 10.96.0.66", "web. 60 IN A 10.96.0.1"))
	for _, d := range []TailnetDNS{
		{MagicSuffix: "ts.example", Nodes: map[string][]netip.Addr{"box.ts.example": addrs("100.64.0.9"), "web.shared.example": addrs("100.64.0.8")}},
		{MagicSuffix: "ts.example", Search: []string{"ts.example"}, Nodes: map[string][]netip.Addr{"box.ts.example": addrs("100.64.0.9")}},
		{MagicSuffix: "ts.example", Magic: true},
	} {
		r := newResolver(t, Options{Tailnet: up(d), QueryMagic: magic(records("box.ts.example. 60 IN A 100.64.0.9"))}, map[string]*server{base: pod})
		source := SourceNode
		if d.Magic {
			source = SourceMagicDNS
		}
		lookup(t, r, "box", source, "100.64.0.9")
		if a, err := r.Lookup(t.Context(), host.Host{Name: "box"}); a.Name != "box.ts.example" {
			t.Errorf("the whole name of box is %q, %v; want box.ts.example: rules match it", a.Name, err)
		}
		lookup(t, r, "web", SourceBase, "10.96.0.1") // the node web is of another tailnet
	}
	if q := pod.queries("ts.example"); len(q) > 0 {
		t.Errorf("the pod's resolver got %q, want nothing below the tailnet's suffix", q)
	}
}

// TestFollow checks that a change of the tailnet's DNS configuration applies from
// the next Follow on, and that a lookup from before it is not cached.
func TestFollow(t *testing.T) {
	var d atomic.Pointer[TailnetDNS]
	d.Store(&TailnetDNS{})
	asked := make(chan struct{}, 1)
	release := make(chan struct{})
	pod := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		if strings.HasPrefix(q.Question[0].Name, "slow.") {
			select {
			case asked <- struct{}{}:
			default: // for AAAA, or over TCP
			}
			<-release
		}
		return records("api.corp.example. 60 IN A 203.0.113.66", "slow.corp.example. 60 IN A 203.0.113.66")(n, q)
	})
	zone := newServer(t, records(apiA, "slow.corp.example. 60 IN A 10.0.0.2"))
	r := newResolver(t, Options{Tailnet: func() (TailnetDNS, bool) { return *d.Load(), true }}, map[string]*server{base: pod, "10.9.9.1": zone})
	r.Follow()
	lookup(t, r, "api.corp.example", SourceBase, "203.0.113.66")
	var wg sync.WaitGroup
	wg.Go(func() { lookup(t, r, "slow.corp.example", SourceBase, "203.0.113.66") })
	<-asked
	d.Store(&TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.1"}}})
	lookup(t, r, "api.corp.example", SourceBase, "203.0.113.66") // before Follow
	r.Follow()
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")
	lookup(t, r, "slow.corp.example", "zone corp.example", "10.0.0.2") // does not share the old lookup
	close(release)
	wg.Wait()
	lookup(t, r, "slow.corp.example", "zone corp.example", "10.0.0.2")
	r.Follow() // without a change
	if a, _ := r.Lookup(t.Context(), host.Host{Name: "api.corp.example"}); !a.Cached {
		t.Error("Lookup after Follow without a change: not cached, want cached")
	}
}

// TestNotReady checks that no query is sent before the tailnet is up.
func TestNotReady(t *testing.T) {
	s := newServer(t, records(apiA))
	ready := false
	r := newResolver(t, Options{Tailnet: func() (TailnetDNS, bool) { return TailnetDNS{}, ready }}, map[string]*server{base: s})
	lookupFails(t, r, "api.corp.example", flow.NotReady, "try again")
	if q := s.queries(""); len(q) > 0 {
		t.Errorf("asked %v before the tailnet was up, want no query", q)
	}
	ready = true // the failure is not cached
	lookup(t, r, "api.corp.example", SourceBase, "10.0.0.1")
}

// TestShortNames checks that the tailnet's search domains complete a short name.
func TestShortNames(t *testing.T) {
	baseServer := newServer(t, records("printer. 60 IN A 10.0.0.8", "broken. 60 IN A 10.0.0.9"))
	zone := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		if strings.HasPrefix(q.Question[0].Name, "broken.") {
			return rcode(dns.RcodeServerFailure)(n, q)
		}
		return records("db.second.example. 60 IN A 10.0.0.1")(n, q)
	})
	r := newResolver(t, Options{Tailnet: up(TailnetDNS{
		Search: []string{"elsewhere.example", "first.example", "second.example"},
		Routes: map[string][]string{"first.example": {"10.9.9.1"}, "second.example": {"10.9.9.1"}},
	})}, map[string]*server{base: baseServer, "10.9.9.1": zone})
	lookup(t, r, "db", "zone second.example", "10.0.0.1")
	lookup(t, r, "printer", SourceBase, "10.0.0.8")
	lookupFails(t, r, "broken", flow.ResolveFailed, "source: zone first.example")
	if q := baseServer.queries(""); len(q) != 2 {
		t.Errorf("the pod's resolver was asked %v, want only printer", q)
	}
}

// TestNoAddress checks that a name without an address is distinguished from a name
// that does not exist: the latter would deny all names below it (RFC 8020).
func TestNoAddress(t *testing.T) {
	r := newResolver(t, Options{}, map[string]*server{base: newServer(t, records("mail.known. 60 IN MX 5 mx.known."))})
	for name, exists := range map[string]bool{"mail.known": true, "none.known": false} {
		if _, err := r.Lookup(t.Context(), host.Host{Name: name}); flow.ClassOf(err) != flow.NotFound || errors.Is(err, flow.ErrNoAddress) != exists {
			t.Errorf("Lookup(%s): %v, want class not_found, and ErrNoAddress: %v", name, err, exists)
		}
	}
	half := newServer(t, func(n string, q *dns.Msg) *dns.Msg { // one family fails, for the other the name does not exist
		if q.Question[0].Qtype == dns.TypeAAAA {
			return rcode(dns.RcodeServerFailure)(n, q)
		}
		return rcode(dns.RcodeNameError)(n, q)
	})
	lookupFails(t, newResolver(t, Options{}, map[string]*server{base: half}), "none.known", flow.NotFound, "does not exist")
}

// TestNamesOfTheCluster checks that names of the cluster are asked of the pod's
// resolver even if the tailnet has global resolvers, and that all names are if the
// global resolvers cannot be asked.
func TestNamesOfTheCluster(t *testing.T) {
	pod := newServer(t, records("pando.pando.svc.cluster.local. 60 IN A 10.96.0.7", "www.known. 60 IN A 192.0.2.9"))
	global := newServer(t, records("www.known. 60 IN A 192.0.2.8", "db.corp.example. 60 IN A 10.0.0.5"))
	d := TailnetDNS{Resolvers: []string{"https://dns.example/dns-query", "192.0.2.53"}, Search: []string{"corp.example"}}
	o := Options{
		ResolvConf: file(t, "nameserver "+base+"\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\n"),
		Tailnet:    func() (TailnetDNS, bool) { return d, true },
		Hosts:      map[string][]netip.Addr{"db.svc.cluster.local": addrs("10.96.0.9")},
	}
	r := newResolver(t, o, map[string]*server{base: pod, "192.0.2.53": global})
	r.opts.DialGlobal = r.dialBase
	lookup(t, r, "pando.pando.svc", SourceBase, "10.96.0.7")
	lookup(t, r, "www.known", SourceGlobal, "192.0.2.8")
	lookup(t, r, "db", SourceGlobal, "10.0.0.5") // completed by the tailnet's search domain, which no zone contains
	if a, err := r.Lookup(t.Context(), host.Host{Name: "db"}); err != nil || a.Name != "db.corp.example" {
		t.Errorf("Lookup(db) = %+v, %v, want the whole name db.corp.example", a, err)
	}
	if a, err := r.LookupPod(t.Context(), "pando.pando.svc"); err != nil || !slices.Equal(a, addrs("10.96.0.7")) {
		t.Errorf("LookupPod(pando.pando.svc) = %v, %v, want 10.96.0.7", a, err)
	}
	if a, err := r.LookupPod(t.Context(), "db"); flow.ClassOf(err) != flow.NotFound { // neither the host table nor a search domain of the tailnet counts
		t.Errorf("LookupPod(db) = %v, %v, want class not_found", a, err)
	}
	// A cluster DNS that forwards nothing answers SERVFAIL for foreign names.
	alone := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		if strings.HasSuffix(q.Question[0].Name, ".cluster.local.") {
			return records("pando.pando.svc.cluster.local. 60 IN A 10.96.0.7", "web.ns.cluster.local. 60 IN A 10.96.0.8")(n, q)
		}
		return rcode(dns.RcodeServerFailure)(n, q)
	})
	strict := newResolver(t, Options{ResolvConf: o.ResolvConf}, map[string]*server{base: alone})
	lookup(t, strict, "pando.pando.svc", SourceBase, "10.96.0.7")
	lookup(t, strict, "web.ns", SourceBase, "10.96.0.8") // the first query, for the name as it is, fails
	lookupFails(t, strict, "www.known", flow.ResolveFailed, "source: base")
	if a, err := strict.LookupPod(t.Context(), "pando.pando.svc"); err != nil || !slices.Equal(a, addrs("10.96.0.7")) {
		t.Errorf("LookupPod(pando.pando.svc) of a strict cluster = %v, %v, want 10.96.0.7", a, err)
	}
	d.Resolvers = d.Resolvers[:1] // only DNS over HTTPS
	r.Follow()
	lookup(t, r, "www.known", SourceBase, "192.0.2.9")
}
