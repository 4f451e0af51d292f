package resolve

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/flow"
)

const apiA = "api.corp.example. 60 IN A 10.0.0.1"

// lookup resolves name and fails the test unless it stands for want, in order.
func lookup(t *testing.T, r *Resolver, name, source string, want ...string) {
	t.Helper()
	a, err := r.Lookup(t.Context(), Host{Name: name})
	if err != nil || a.Source != source || !slices.Equal(a.Addrs, addrs(want...)) {
		t.Errorf("%s gives %+v, %v; want %v of %s", name, a, err, want, source)
	}
}

func lookupFails(t *testing.T, r *Resolver, name string, class flow.Class, hint string) {
	t.Helper()
	a, err := r.Lookup(t.Context(), Host{Name: name})
	if flow.ClassOf(err) != class || !strings.Contains(flow.HintOf(err), hint) || a.Addrs != nil {
		t.Errorf("%s gives %+v, %v (hint %q); want %s and %q", name, a, err, flow.HintOf(err), class, hint)
	}
}

func TestLiteralAsksNobody(t *testing.T) {
	r := newResolver(t, Options{Tailnet: func() (TailnetDNS, bool) { return TailnetDNS{}, false }}, nil)
	a, err := r.Lookup(t.Context(), Host{Addr: netip.MustParseAddr("10.0.0.1")})
	if err != nil || a.Source != SourceLiteral || !slices.Equal(a.Addrs, addrs("10.0.0.1")) {
		t.Errorf("got %+v, %v", a, err)
	}
}

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
		remove       func() // the source, for the next step
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
			t.Errorf("asked %v; want A and AAAA, once", q)
		}
	}
	// A route below the MagicDNS suffix is more specific than MagicDNS.
	d = TailnetDNS{Magic: true, MagicSuffix: "example", Routes: map[string][]string{"corp.example": {"10.9.9.1"}}}
	o.Tailnet = up(d)
	lookup(t, newResolver(t, o, servers), name, SourceZone+"corp.example", "10.0.0.4")
}

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
	lookupFails(t, r, "x.void.example", flow.NotFound, "source: zone void.example") // an empty list asks nobody
	lookupFails(t, r, "corp", flow.NotFound, "")
	lookup(t, r, "db", "zone corp.example", "10.0.0.3")
	// CNAMEs of the public DNS that lead into the zone are followed there,
	// whether the pod's resolver makes up an end of its own or knows none.
	lookup(t, r, "pub.known", "zone corp.example", "10.0.0.1")
	lookup(t, r, "gone.known", "zone corp.example", "10.0.0.2")
	for _, q := range liar.queries("") {
		if !strings.HasSuffix(q, ".known") {
			t.Errorf("the pod's resolver was asked %s", q)
		}
	}
}

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
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")         // ours before the tailnet's
	lookup(t, r, "a.deep.corp.example", "zone deep.corp.example", "10.0.0.3") // the longest before ours
	lookup(t, r, "db.onprem.example", "zone onprem.example", "10.0.0.4")      // not through the tunnel
	lookupFails(t, r, "none.onprem.example", flow.NotFound, "onprem.example") // and nobody else is asked
	lookup(t, r, "www.known", SourceBase, "10.0.0.5")
	if q := pod.queries(""); len(q) != 2 {
		t.Errorf("the pod's resolver was asked %v", q)
	}
	// The zone moves: what was known of its names is forgotten.
	r.SetZones(map[string]Zone{"corp.example": {Servers: []string{"10.9.9.2"}}})
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.9")
}

func TestGlobalResolvers(t *testing.T) {
	pod := newServer(t, records("web.ns.svc.cluster.local. 60 IN A 10.96.0.1", "printer. 60 IN A 10.0.0.8"))
	global := newServer(t, records("www.known. 60 IN A 192.0.2.1", "lies.known. 60 IN CNAME api.corp.example.", "api.corp.example. 60 IN A 203.0.113.66"))
	zone := newServer(t, records(apiA))
	o := Options{ResolvConf: file(t, "nameserver "+base+"\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\n")}
	o.Tailnet = up(TailnetDNS{Resolvers: []string{"192.0.2.53"}, Routes: map[string][]string{"corp.example": {"10.9.9.1"}}})
	r := newResolver(t, o, map[string]*server{base: pod, "192.0.2.53": global, "10.9.9.1": zone})
	r.opts.DialGlobal = r.dialBase
	lookup(t, r, "www.known", SourceGlobal, "192.0.2.1")
	lookup(t, r, "web.ns.svc.cluster.local", SourceBase, "10.96.0.1") // the cluster's own
	lookup(t, r, "printer", SourceBase, "10.0.0.8")
	lookup(t, r, "lies.known", "zone corp.example", "10.0.0.1") // not believed about what has an owner
	lookupFails(t, r, "none.known", flow.NotFound, SourceGlobal)
	for _, q := range pod.queries("") {
		if strings.HasSuffix(q, ".known") {
			t.Errorf("the pod's resolver was asked %s", q)
		}
	}
}

// What changes in the tailnet's configuration applies from Follow on, and what
// was asked before it is not kept.
func TestFollow(t *testing.T) {
	var d atomic.Pointer[TailnetDNS]
	d.Store(&TailnetDNS{})
	release := make(chan struct{})
	pod := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		if strings.HasPrefix(q.Question[0].Name, "slow.") {
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
	for len(pod.queries("slow.corp.example")) == 0 {
		time.Sleep(time.Millisecond) // until it is on its way
	}
	d.Store(&TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.1"}}})
	lookup(t, r, "api.corp.example", SourceBase, "203.0.113.66") // nobody has looked yet
	r.Follow()
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")
	lookup(t, r, "slow.corp.example", "zone corp.example", "10.0.0.2") // does not join the old flight
	close(release)
	wg.Wait()
	lookup(t, r, "slow.corp.example", "zone corp.example", "10.0.0.2")
	r.Follow() // no change, nothing is forgotten
	if a, _ := r.Lookup(t.Context(), Host{Name: "api.corp.example"}); !a.Cached {
		t.Error("an answer was forgotten without a reason")
	}
}

func TestRemembersWhoAnswered(t *testing.T) {
	dead, good := newServer(t, silent), newServer(t, records(apiA, "two.corp.example. 60 IN A 10.0.0.2"))
	r := newResolver(t, Options{Tailnet: up(TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.1", "10.9.9.2"}}})}, map[string]*server{"10.9.9.1": dead, "10.9.9.2": good})
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")
	asked := len(dead.queries(""))
	if asked == 0 {
		t.Fatal("the first server was not asked first")
	}
	start := time.Now()
	lookup(t, r, "two.corp.example", "zone corp.example", "10.0.0.2")
	if n := len(dead.queries("")); n != asked || time.Since(start) > serverTimeout {
		t.Errorf("the server that is silent was asked again, %d times", n-asked)
	}
}

func TestSourcesAreBounded(t *testing.T) {
	release := make(chan struct{})
	var most, now atomic.Int32
	slow := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		most.Store(max(most.Load(), now.Add(1)))
		<-release
		now.Add(-1)
		return rcode(dns.RcodeNameError)(n, q)
	})
	r := newResolver(t, Options{PerSource: 2, Tailnet: up(TailnetDNS{Routes: map[string][]string{"slow.example": {"10.9.9.1"}, "corp.example": {"10.9.9.2"}}})},
		map[string]*server{"10.9.9.1": slow, "10.9.9.2": newServer(t, records(apiA))})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() { r.Lookup(t.Context(), Host{Name: strconv.Itoa(i) + ".slow.example"}) })
	}
	for deadline := time.Now().Add(5 * time.Second); now.Load() < 4 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")
	if took := time.Since(start); took > time.Second {
		t.Errorf("another zone waited %v", took)
	}
	close(release)
	wg.Wait()
	if n := most.Load(); n < 4 || n > 2*2*2 { // A and AAAA, over UDP and TCP
		t.Errorf("%d queries at a time with 2 names", n)
	}
}

func TestNotReady(t *testing.T) {
	s := newServer(t, records(apiA))
	ready := false
	r := newResolver(t, Options{Tailnet: func() (TailnetDNS, bool) { return TailnetDNS{}, ready }}, map[string]*server{base: s})
	lookupFails(t, r, "api.corp.example", flow.NotReady, "try again")
	if q := s.queries(""); len(q) > 0 {
		t.Errorf("asked %v before the tailnet was up", q)
	}
	ready = true // and the failure was not kept
	lookup(t, r, "api.corp.example", SourceBase, "10.0.0.1")
}

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
		t.Errorf("the pod's resolver was asked %v; want printer alone", q)
	}
}

func TestTransport(t *testing.T) {
	good := records(apiA)
	overUDP := func(f answer) answer {
		return func(network string, q *dns.Msg) *dns.Msg {
			if network == "udp" {
				return f(network, q)
			}
			return good(network, q)
		}
	}
	change := func(f func(*dns.Msg)) answer {
		return overUDP(func(n string, q *dns.Msg) *dns.Msg {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{203, 0, 113, 66}}}
			f(m)
			return m
		})
	}
	for _, tc := range []struct {
		name     string
		answer   answer
		networks []string
		tcp      bool          // TCP is what answered
		after    time.Duration // and not before this
	}{
		{"udp", good, nil, false, 0},
		{"truncated", change(func(m *dns.Msg) { m.Truncated = true }), nil, true, 0},
		{"udp_silent", overUDP(silent), nil, true, tcpAfter},
		{"udp_refused", good, []string{"tcp"}, true, 0},
		{"udp_only", good, []string{"udp"}, false, 0},
		{"wrong_id", change(func(m *dns.Msg) { m.Id++ }), nil, true, tcpAfter},
		{"wrong_question", change(func(m *dns.Msg) { m.Question[0].Name = "evil.example." }), nil, true, 0},
		{"wrong_type", change(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }), nil, true, 0},
		{"no_question", change(func(m *dns.Msg) { m.Question = nil }), nil, true, 0},
		{"query_sent_back", change(func(m *dns.Msg) { m.Response, m.Answer = false, nil }), nil, true, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, tc.answer, tc.networks...)
			start := time.Now()
			lookup(t, newResolver(t, Options{}, map[string]*server{base: s}), "api.corp.example", SourceBase, "10.0.0.1")
			took := time.Since(start)
			if tcp := slices.Contains(s.queries(""), "tcp A api.corp.example"); tcp != tc.tcp {
				t.Errorf("asked %v; want TCP %v", s.queries(""), tc.tcp)
			}
			if took < tc.after || took > tc.after+serverTimeout-tcpAfter {
				t.Errorf("took %s; want %s or a little more", took, tc.after)
			}
		})
	}
}

func TestFailover(t *testing.T) {
	for _, tc := range []struct {
		name     string
		first    answer
		networks []string
	}{
		{"servfail", rcode(dns.RcodeServerFailure), nil},
		{"refused", rcode(dns.RcodeRefused), nil},
		{"silent", silent, nil},
		{"nothing_listens", silent, []string{"neither"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			servers := map[string]*server{"10.9.9.1": newServer(t, tc.first, tc.networks...), "10.9.9.2": newServer(t, records(apiA))}
			r := newResolver(t, Options{Tailnet: up(TailnetDNS{Routes: map[string][]string{"corp.example": {"https://10.9.9.3/dns-query", "10.9.9.1", "10.9.9.2"}}})}, servers)
			lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")
		})
	}
}

func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer answer
		class  flow.Class
	}{
		{"servfail", rcode(dns.RcodeServerFailure), flow.ResolveFailed},
		{"refused", rcode(dns.RcodeRefused), flow.ResolveFailed},
		{"format_error", rcode(dns.RcodeFormatError), flow.ResolveFailed},
		{"silent", silent, flow.Timeout},
		{"nxdomain", rcode(dns.RcodeNameError), flow.NotFound},
		{"no_data", rcode(dns.RcodeSuccess), flow.NotFound},
		{"one_family_fails_the_other_has_none", func(n string, q *dns.Msg) *dns.Msg {
			if q.Question[0].Qtype == dns.TypeA {
				return rcode(dns.RcodeServerFailure)(n, q)
			}
			return rcode(dns.RcodeSuccess)(n, q)
		}, flow.ResolveFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newResolver(t, Options{Timeout: 700 * time.Millisecond}, map[string]*server{base: newServer(t, tc.answer)})
			lookupFails(t, r, "api.corp.example", tc.class, "source: base")
		})
	}
	r := newResolver(t, Options{Tailnet: up(TailnetDNS{Routes: map[string][]string{"corp.example": {"https://dns.example/"}}})}, nil)
	lookupFails(t, r, "api.corp.example", flow.ResolveFailed, "zone corp.example")
}

func TestFamilies(t *testing.T) {
	both := records(apiA, "api.corp.example. 60 IN A 10.0.0.2", "api.corp.example. 60 IN AAAA fd00::1", "api.corp.example. 60 IN AAAA ::ffff:10.0.0.3")
	lookup(t, newResolver(t, Options{}, map[string]*server{base: newServer(t, both)}), "api.corp.example", SourceBase, "fd00::1", "10.0.0.3", "10.0.0.1", "10.0.0.2")
	for _, failing := range []uint16{dns.TypeA, dns.TypeAAAA} {
		s := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
			if q.Question[0].Qtype == failing {
				return rcode(dns.RcodeServerFailure)(n, q)
			}
			return records(apiA, "api.corp.example. 60 IN AAAA fd00::1")(n, q)
		})
		want := map[uint16]string{dns.TypeA: "fd00::1", dns.TypeAAAA: "10.0.0.1"}[failing]
		lookup(t, newResolver(t, Options{}, map[string]*server{base: s}), "api.corp.example", SourceBase, want)
	}
}

func TestAliases(t *testing.T) {
	zone := newServer(t, records(apiA, "www.corp.example. 60 IN CNAME API.corp.example.", "out.corp.example. 60 IN CNAME cdn.public.known.",
		"gone.corp.example. 60 IN CNAME none.corp.example.", "loop.corp.example. 60 IN CNAME loop2.corp.example.", "loop2.corp.example. 60 IN CNAME loop.corp.example.",
		"self.corp.example. 60 IN CNAME self.corp.example.", "ping.corp.example. 60 IN CNAME pong.public.known."))
	public := newServer(t, records("cdn.public.known. 60 IN CNAME edge.public.known.", "edge.public.known. 60 IN A 203.0.113.1", "pong.public.known. 60 IN CNAME ping.corp.example."))
	r := newResolver(t, Options{Tailnet: up(TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.1"}}})}, map[string]*server{"10.9.9.1": zone, base: public})
	lookup(t, r, "www.corp.example", "zone corp.example", "10.0.0.1")
	if q := zone.queries("api.corp.example"); len(q) > 0 {
		t.Errorf("asked %v, which the answer for www had", q)
	}
	lookup(t, r, "out.corp.example", SourceBase, "203.0.113.1")
	lookupFails(t, r, "gone.corp.example", flow.NotFound, "")
	lookupFails(t, r, "loop.corp.example", flow.NotFound, "")
	lookupFails(t, r, "self.corp.example", flow.NotFound, "")
	lookupFails(t, r, "ping.corp.example", flow.NotFound, "") // from zone to zone for ever
	if n := len(public.queries("pong.public.known")); n == 0 || n > 2*maxAliases {
		t.Errorf("the loop between zones took %d queries", n)
	}
}

// A CNAME from one zone into another is followed there, whatever the first says
// of its end: that there is no such name, or a lie.
func TestAliasIntoAnotherZone(t *testing.T) {
	first := newServer(t, records("a.first.example. 60 IN CNAME b.second.example.", // and NXDOMAIN, see records
		"lie.first.example. 60 IN CNAME c.second.example.", "c.second.example. 60 IN A 203.0.113.66", "typed.first.example. 60 IN CNAME typed.example."))
	second := newServer(t, records("b.second.example. 60 IN A 10.0.0.1", "c.second.example. 60 IN A 10.0.0.2"))
	r := newResolver(t, Options{
		Hosts: map[string][]netip.Addr{"typed.example": addrs("10.0.0.3")},
		Zones: map[string]Zone{"first.example": {Servers: []string{"192.0.2.3"}, Direct: true}, "second.example": {Servers: []string{"10.9.9.2"}}},
	}, map[string]*server{"192.0.2.3": first, "10.9.9.2": second})
	lookup(t, r, "a.first.example", "zone second.example", "10.0.0.1")
	lookup(t, r, "lie.first.example", "zone second.example", "10.0.0.2")
	lookup(t, r, "typed.first.example", SourceHosts, "10.0.0.3") // the host table comes first there, too
}

// A family that says nothing holds up the other for a moment only, and is no
// failure of its server.
func TestSilentFamily(t *testing.T) {
	for _, quiet := range []uint16{dns.TypeA, dns.TypeAAAA} {
		s := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
			if q.Question[0].Qtype == quiet {
				return nil
			}
			return records("api.corp.example. 600 IN A 10.0.0.1", "api.corp.example. 600 IN AAAA fd00::1")(n, q)
		})
		r := newResolver(t, Options{}, map[string]*server{base: s})
		start := time.Now()
		lookup(t, r, "api.corp.example", SourceBase, map[uint16]string{dns.TypeA: "fd00::1", dns.TypeAAAA: "10.0.0.1"}[quiet])
		if took := time.Since(start); took < otherFamily || took > 5*otherFamily {
			t.Errorf("%s silent: took %v, want %v or a little more", dns.TypeToString[quiet], took, otherFamily)
		}
		if a, err := r.Lookup(t.Context(), Host{Name: "api.corp.example"}); err != nil || !a.Cached || a.TTL > halfTTL {
			t.Errorf("%s silent: half an answer is kept for %v: %+v, %v", dns.TypeToString[quiet], a.TTL, a, err)
		}
		for _, h := range r.Health() {
			if h.Failed != nil {
				t.Errorf("%s silent: the server counts as failing: %+v", dns.TypeToString[quiet], h)
			}
		}
	}
}

// That a name has no address is told from that there is no such name, which would
// deny all names below it (RFC 8020).
func TestNoAddress(t *testing.T) {
	r := newResolver(t, Options{}, map[string]*server{base: newServer(t, records("mail.known. 60 IN MX 5 mx.known."))})
	for name, exists := range map[string]bool{"mail.known": true, "none.known": false} {
		if _, err := r.Lookup(t.Context(), Host{Name: name}); flow.ClassOf(err) != flow.NotFound || errors.Is(err, flow.ErrNoAddress) != exists {
			t.Errorf("%s: %v; exists is %v", name, err, exists)
		}
	}
	half := newServer(t, func(n string, q *dns.Msg) *dns.Msg { // one family fails, the other says that there is no such name
		if q.Question[0].Qtype == dns.TypeAAAA {
			return rcode(dns.RcodeServerFailure)(n, q)
		}
		return rcode(dns.RcodeNameError)(n, q)
	})
	lookupFails(t, newResolver(t, Options{}, map[string]*server{base: half}), "none.known", flow.NotFound, "does not exist")
}

// A server from before EDNS, and one that can't do what it is asked.
func TestWithoutEDNS(t *testing.T) {
	old := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		if q.IsEdns0() != nil {
			return rcode(dns.RcodeFormatError)(n, q)
		}
		return records(apiA)(n, q)
	})
	lookup(t, newResolver(t, Options{}, map[string]*server{base: old}), "api.corp.example", SourceBase, "10.0.0.1")
	servers := map[string]*server{"10.9.9.1": newServer(t, rcode(dns.RcodeNotImplemented)), "10.9.9.2": newServer(t, records(apiA))}
	r := newResolver(t, Options{Tailnet: up(TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.1", "10.9.9.2"}}})}, servers)
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")
}

// Names of the cluster and of the pod are for the pod's resolver, also when the
// tailnet has global ones; and so are all others when those can't be asked.
func TestNamesOfTheCluster(t *testing.T) {
	pod := newServer(t, records("pando.pando.svc.cluster.local. 60 IN A 10.96.0.7", "www.known. 60 IN A 192.0.2.9"))
	global := newServer(t, records("www.known. 60 IN A 192.0.2.8", "db.corp.example. 60 IN A 10.0.0.5"))
	d := TailnetDNS{Resolvers: []string{"https://dns.example/dns-query", "192.0.2.53"}, Search: []string{"corp.example"}}
	o := Options{ResolvConf: file(t, "nameserver "+base+"\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\n"), Tailnet: func() (TailnetDNS, bool) { return d, true }}
	r := newResolver(t, o, map[string]*server{base: pod, "192.0.2.53": global})
	r.opts.DialGlobal = r.dialBase
	lookup(t, r, "pando.pando.svc", SourceBase, "10.96.0.7")
	lookup(t, r, "www.known", SourceGlobal, "192.0.2.8")
	lookup(t, r, "db", SourceGlobal, "10.0.0.5") // completed by the tailnet's search domain, whoever answers for it
	if a, err := r.Lookup(t.Context(), Host{Name: "db"}); err != nil || a.Name != "db.corp.example" {
		t.Errorf("the whole name of db: %+v, %v", a, err)
	}
	if a, err := r.LookupPod(t.Context(), "pando.pando.svc"); err != nil || !slices.Equal(a, addrs("10.96.0.7")) {
		t.Errorf("by the pod's resolver alone: %v, %v", a, err)
	}
	if a, err := r.LookupPod(t.Context(), "db"); flow.ClassOf(err) != flow.NotFound {
		t.Errorf("by the pod's resolver alone: %v, %v", a, err)
	}
	// A cluster's DNS that forwards nothing answers SERVFAIL to what is not its own.
	alone := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		if strings.HasSuffix(q.Question[0].Name, ".cluster.local.") {
			return records("pando.pando.svc.cluster.local. 60 IN A 10.96.0.7", "web.ns.cluster.local. 60 IN A 10.96.0.8")(n, q)
		}
		return rcode(dns.RcodeServerFailure)(n, q)
	})
	strict := newResolver(t, Options{ResolvConf: o.ResolvConf}, map[string]*server{base: alone})
	lookup(t, strict, "pando.pando.svc", SourceBase, "10.96.0.7")
	lookup(t, strict, "web.ns", SourceBase, "10.96.0.8") // asked as it is first, and failed
	lookupFails(t, strict, "www.known", flow.ResolveFailed, "source: base")
	if a, err := strict.LookupPod(t.Context(), "pando.pando.svc"); err != nil || !slices.Equal(a, addrs("10.96.0.7")) {
		t.Errorf("by the pod's resolver alone: %v, %v", a, err)
	}
	d.Resolvers = d.Resolvers[:1] // DNS over HTTPS alone
	r.Follow()
	lookup(t, r, "www.known", SourceBase, "192.0.2.9")
}

func TestCacheIsBounded(t *testing.T) {
	r, asked := bubble(t, Options{CacheSize: 10}, func(_ string, q *dns.Msg) *dns.Msg {
		return records(q.Question[0].Name+" 60 IN A 10.0.0.1")("", q)
	})
	for range 2 {
		for i := range 30 {
			lookup(t, r, strconv.Itoa(i)+".corp.example", SourceMagicDNS, "10.0.0.1")
		}
	}
	if n := r.cache.Len(); n != 10 || asked() != 60 {
		t.Errorf("%d names are kept, %d were asked for; want 10, and all of them twice", n, asked())
	}
}

// bubble returns a resolver whose only source is MagicDNS in this process, for
// tests with a clock of their own, and the count of its lookups.
func bubble(t *testing.T, o Options, a answer) (*Resolver, func() int) {
	var asked atomic.Int32
	o.Tailnet = up(TailnetDNS{Magic: true, MagicSuffix: "corp.example"})
	o.QueryMagic = magic(func(n string, q *dns.Msg) *dns.Msg { asked.Add(1); return a(n, q) })
	return newResolver(t, o, nil), func() int { return int(asked.Load()) / 2 }
}

func TestCacheLifetime(t *testing.T) {
	soa := func(ttl, minimum string) answer {
		rr, _ := dns.NewRR("corp.example. " + ttl + " IN SOA ns.corp.example. admin.corp.example. 1 2 3 4 " + minimum)
		return func(n string, q *dns.Msg) *dns.Msg {
			m := rcode(dns.RcodeNameError)(n, q)
			m.Ns = []dns.RR{rr}
			return m
		}
	}
	for _, tc := range []struct {
		name   string
		answer answer
		want   time.Duration
	}{
		{"ttl", records(apiA), time.Minute},
		{"ttl_zero_is_min", records("api.corp.example. 0 IN A 10.0.0.1"), time.Second},
		{"ttl_week_is_max", records("api.corp.example. 604800 IN A 10.0.0.1"), 5 * time.Minute},
		{"lowest_of_the_set", records(apiA, "api.corp.example. 7 IN A 10.0.0.2"), 7 * time.Second},
		{"lowest_of_the_chain", records("api.corp.example. 9 IN CNAME b.corp.example.", "b.corp.example. 60 IN A 10.0.0.2"), 9 * time.Second},
		{"lowest_of_families", records(apiA, "api.corp.example. 8 IN AAAA fd00::1"), 8 * time.Second},
		{"negative_without_soa", rcode(dns.RcodeNameError), negativeTTL},
		{"negative_soa_minimum", soa("3600", "4"), 4 * time.Second},
		{"negative_soa_ttl", soa("5", "3600"), 5 * time.Second},
		{"negative_ceiling", soa("3600", "3600"), negativeTTL},
		{"failure_is_kept_for_a_second", rcode(dns.RcodeServerFailure), failureTTL},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, asked := bubble(t, Options{}, tc.answer)
				ask := func() (bool, error) {
					a, err := r.Lookup(t.Context(), Host{Name: "api.corp.example"})
					return a.Cached, err
				}
				cached, first := ask()
				if cached || asked() != 1 {
					t.Fatalf("the first lookup: cached %v, asked %d times", cached, asked())
				}
				if tc.want > 0 {
					time.Sleep(tc.want - time.Nanosecond)
					if cached, err := ask(); !cached || flow.ClassOf(err) != flow.ClassOf(first) || asked() != 1 {
						t.Errorf("just before its end: cached %v, %v, asked %d times", cached, err, asked())
					}
					time.Sleep(time.Nanosecond)
				}
				if cached, _ := ask(); cached || asked() != 2 {
					t.Errorf("after its end: cached %v, asked %d times; want it asked again", cached, asked())
				}
			})
		})
	}
}

// While its resolver fails or is silent, a name keeps the answer it had.
func TestServesStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails, silent atomic.Bool
		r, asked := bubble(t, Options{MaxTTL: time.Minute, Timeout: 5 * time.Second}, func(n string, q *dns.Msg) *dns.Msg {
			switch {
			case silent.Load():
				time.Sleep(time.Minute)
			case !fails.Load():
				return records(apiA)(n, q)
			}
			return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
		})
		ask := func(what string, took time.Duration, times int) {
			t.Helper()
			start, before := time.Now(), asked()
			lookup(t, r, "api.corp.example", SourceMagicDNS, "10.0.0.1")
			if d, n := time.Since(start), asked()-before; d != took || n != times {
				t.Errorf("%s: after %v, asked %d times; want %v and %d", what, d, n, took, times)
			}
		}
		ask("fresh", 0, 1)
		fails.Store(true)
		time.Sleep(2 * time.Minute)
		ask("refused", 0, 1)
		ask("refused a moment ago", 0, 0)
		silent.Store(true)
		time.Sleep(20 * time.Second)
		ask("silent", staleAfter, 1)
		if a, err := r.Lookup(t.Context(), Host{Name: "api.corp.example"}); err != nil || a.TTL > staleTTL {
			t.Errorf("a stale answer may be kept for %v, %v", a.TTL, err)
		}
		silent.Store(false)
		time.Sleep(2 * staleTime)
		lookupFails(t, r, "api.corp.example", flow.ResolveFailed, "answer of use")
	})
}

func TestOneFlightPerName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r, asked := bubble(t, Options{}, func(n string, q *dns.Msg) *dns.Msg { <-gate; return records(apiA)(n, q) })
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { lookup(t, r, "api.corp.example", SourceMagicDNS, "10.0.0.1") })
		}
		synctest.Wait() // all of them wait for the answer
		close(gate)
		wg.Wait()
		if asked() != 1 {
			t.Errorf("50 lookups at once asked %d times", asked())
		}
	})
}

func TestCallerGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r, asked := bubble(t, Options{}, func(n string, q *dns.Msg) *dns.Msg { <-gate; return records(apiA)(n, q) })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := r.Lookup(ctx, Host{Name: "api.corp.example"}); flow.ClassOf(err) != flow.Canceled || !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that went away got %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Lookup(ctx, Host{Name: "api.corp.example"}); flow.ClassOf(err) != flow.Timeout {
			t.Errorf("the caller whose time was over got %v", err)
		}
		close(gate)
		synctest.Wait()
		if a, err := r.Lookup(t.Context(), Host{Name: "api.corp.example"}); err != nil || !a.Cached || asked() != 1 {
			t.Errorf("then: %+v, %v, asked %d times; want the first flight's answer, kept", a, err, asked())
		}
	})
}

func TestBaseFiles(t *testing.T) {
	s := newServer(t, records("svc.ns.cluster.local. 60 IN A 10.0.0.1", "deep.name.cluster.local. 60 IN A 10.0.0.2", "deep.name. 60 IN A 10.0.0.3", "only. 60 IN A 10.0.0.4"))
	second := newServer(t, records("svc. 60 IN A 10.0.0.9"))
	conf := file(t, "nameserver "+base+"\nsearch ns.cluster.local Cluster.Local.\noptions ndots:5\n")
	hosts := file(t, "# comment\n10.1.0.1 Pod-1.Example. pod # a pod\nfd00::1 pod\nnot-an-address x\n10.1.0.2\n")
	newOne := func() *Resolver {
		return newResolver(t, Options{ResolvConf: conf, HostsFile: hosts}, map[string]*server{base: s, "192.0.2.2": second})
	}
	r := newOne()
	lookup(t, r, "pod-1.example", SourceFile, "10.1.0.1")
	lookup(t, r, "pod", SourceFile, "10.1.0.1", "fd00::1")
	lookup(t, r, "svc", SourceBase, "10.0.0.1")
	lookup(t, r, "deep.name", SourceBase, "10.0.0.3") // a name with a dot is asked as it is first
	lookup(t, r, "only", SourceBase, "10.0.0.4")
	if q := s.queries(" only"); len(q) != 2 || len(s.queries("only.ns.cluster.local")) != 2 {
		t.Errorf("asked %v", s.queries(""))
	}
	lookupFails(t, r, "x", flow.NotFound, "source: base")

	for i, tc := range []struct {
		content string
		check   func(*Resolver)
	}{
		{"nameserver 192.0.2.2\n", func(r *Resolver) { lookup(t, r, "svc", SourceBase, "10.0.0.9") }},
		{"search example\n", func(r *Resolver) { lookup(t, r, "svc", SourceBase, "10.0.0.9") }}, // no server: the last good one goes on
		{"nameserver 192.0.2.1\n", func(r *Resolver) { lookup(t, r, "deep.name", SourceBase, "10.0.0.3") }},
	} {
		if err := os.WriteFile(conf, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i+1) * time.Hour) // whatever the file system's clock is
		if err := os.Chtimes(conf, at, at); err != nil {
			t.Fatal(err)
		}
		r.cache.Purge()
		r.base.checked = time.Time{} // as if the last look was long ago
		tc.check(r)
	}

	if err := os.Remove(hosts); err != nil { // a pod without /etc/hosts
		t.Fatal(err)
	}
	lookup(t, newOne(), "deep.name", SourceBase, "10.0.0.3")
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	lookupFails(t, newOne(), "deep.name", flow.ResolveFailed, "source: base")
	if err := os.WriteFile(hosts, []byte("10.1.0.1 pod\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lookup(t, newOne(), "pod", SourceFile, "10.1.0.1") // also without any resolver
}

func FuzzRead(f *testing.F) {
	q := new(dns.Msg).SetQuestion("www.corp.example.", dns.TypeA)
	for _, m := range []*dns.Msg{
		records("www.corp.example. 60 IN CNAME api.corp.example.", apiA)("", q), records("www.corp.example. 60 IN CNAME www.corp.example.")("", q),
		rcode(dns.RcodeNameError)("", q), rcode(dns.RcodeServerFailure)("", q),
	} {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := new(dns.Msg)
		if m.Unpack(wire) != nil || len(m.Question) == 0 {
			return
		}
		r := read(m, m.Question[0])
		switch ok := m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError; {
		case ok == (r.err != nil):
			t.Errorf("rcode %d gives the error %v", m.Rcode, r.err)
		case r.ttl < 0:
			t.Errorf("ttl %s", r.ttl)
		case len(r.addrs) > 0 && r.alias != "":
			t.Errorf("both addresses %v and alias %s", r.addrs, r.alias)
		case len(r.addrs) > len(m.Answer):
			t.Errorf("%d addresses of %d records", len(r.addrs), len(m.Answer))
		}
		for _, a := range r.addrs {
			if !a.IsValid() || a.Is4In6() || m.Question[0].Qtype == dns.TypeA && !a.Is4() {
				t.Errorf("address %v", a)
			}
		}
	})
}

// BenchmarkCached is what a flow pays for a name that is known.
func BenchmarkCached(b *testing.B) {
	names := make([]Host, 1000)
	for i := range names {
		names[i].Name = "host-" + strconv.Itoa(i) + ".corp.example"
	}
	r := New(Options{Tailnet: up(TailnetDNS{Magic: true, MagicSuffix: "corp.example"}), MinTTL: time.Hour, MaxTTL: time.Hour,
		QueryMagic: magic(func(_ string, q *dns.Msg) *dns.Msg {
			m := new(dns.Msg).SetReply(q)
			if q.Question[0].Qtype == dns.TypeA {
				m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{10, 0, 0, 1}}}
			}
			return m
		})})
	for _, h := range names {
		if _, err := r.Lookup(b.Context(), h); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if a, err := r.Lookup(context.Background(), names[i%len(names)]); err != nil || !a.Cached {
				b.Errorf("%+v, %v", a, err)
				return
			}
		}
	})
}
