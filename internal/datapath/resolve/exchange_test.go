package resolve

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// TestRemembersWhoAnswered checks that a server that failed is asked last.
func TestRemembersWhoAnswered(t *testing.T) {
	dead := newServer(t, silent)
	good := newServer(t, records(apiA, "two.corp.example. 60 IN A 10.0.0.2"))
	r := newResolver(t, Options{Tailnet: up(TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.1", "10.9.9.2"}}})}, map[string]*server{"10.9.9.1": dead, "10.9.9.2": good})
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1")
	asked := len(dead.queries(""))
	if asked == 0 {
		t.Fatal("the first server got no query, want one")
	}
	start := time.Now()
	lookup(t, r, "two.corp.example", "zone corp.example", "10.0.0.2")
	if n := len(dead.queries("")); n != asked || time.Since(start) > dnsclient.ServerTimeout {
		t.Errorf("the silent server got %d more queries, and the lookup took %v, want none, and at most %v", n-asked, time.Since(start), dnsclient.ServerTimeout)
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
		tcp      bool          // the answer came over TCP
		after    time.Duration // and no sooner
	}{
		{"udp", good, nil, false, 0},
		{"truncated", change(func(m *dns.Msg) { m.Truncated = true }), nil, true, 0},
		{"udp_silent", overUDP(silent), nil, true, dnsclient.TCPAfter},
		{"udp_refused", good, []string{"tcp"}, true, 0},
		{"udp_only", good, []string{"udp"}, false, 0},
		{"wrong_id", change(func(m *dns.Msg) { m.Id++ }), nil, true, dnsclient.TCPAfter},
		{"wrong_question", change(func(m *dns.Msg) { m.Question[0].Name = "evil.example." }), nil, true, 0},
		{"wrong_type", change(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }), nil, true, 0},
		{"no_question", change(func(m *dns.Msg) { m.Question = nil }), nil, true, 0},
		{"query_sent_back", change(func(m *dns.Msg) { m.Response = false; m.Answer = nil }), nil, true, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, tc.answer, tc.networks...)
			start := time.Now()
			lookup(t, newResolver(t, Options{}, map[string]*server{base: s}), "api.corp.example", SourceBase, "10.0.0.1")
			took := time.Since(start)
			if tcp := slices.Contains(s.queries(""), "tcp A api.corp.example"); tcp != tc.tcp {
				t.Errorf("queries %v, want one over TCP: %v", s.queries(""), tc.tcp)
			}
			if took < tc.after || took > tc.after+dnsclient.ServerTimeout-dnsclient.TCPAfter {
				t.Errorf("took %s, want %s or slightly more", took, tc.after)
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
		t.Errorf("sent queries %v, want none: the answer for www has the address", q)
	}
	lookup(t, r, "out.corp.example", SourceBase, "203.0.113.1")
	lookupFails(t, r, "gone.corp.example", flow.NotFound, "")
	lookupFails(t, r, "loop.corp.example", flow.NotFound, "")
	lookupFails(t, r, "self.corp.example", flow.NotFound, "")
	lookupFails(t, r, "ping.corp.example", flow.NotFound, "") // leads from zone to zone without end
	if n := len(public.queries("pong.public.known")); n == 0 || n > 2*maxAliases {
		t.Errorf("the loop between zones took %d queries, want 1 to %d", n, 2*maxAliases)
	}
}

// TestAliasIntoAnotherZone checks that a CNAME from one zone into another is
// followed in the other zone, even if the first zone gives a false address or says
// that the name does not exist.
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
	lookup(t, r, "typed.first.example", SourceHosts, "10.0.0.3") // the host table comes first for an alias too
}

// TestSilentFamily checks that a family without an answer delays the other by
// OtherFamily at most, and is not a failure of its server.
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
		if took := time.Since(start); took < dnsclient.OtherFamily || took > 5*dnsclient.OtherFamily {
			t.Errorf("%s silent: took %v, want %v or slightly more", dns.TypeToString[quiet], took, dnsclient.OtherFamily)
		}
		if a, err := r.Lookup(t.Context(), host.Host{Name: "api.corp.example"}); err != nil || !a.Cached || a.TTL > dnsclient.HalfTTL {
			t.Errorf("%s silent: Lookup = %+v, %v, want it cached for at most %v", dns.TypeToString[quiet], a, err, dnsclient.HalfTTL)
		}
		for _, h := range r.Health() {
			if h.Failed != nil {
				t.Errorf("%s silent: health %+v, want no failure", dns.TypeToString[quiet], h)
			}
		}
	}
}

// TestWithoutEDNS checks a server that does not know EDNS, and one that does not
// implement the query.
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

func TestServerTimeout(t *testing.T) {
	for lookup, want := range map[time.Duration]time.Duration{
		time.Second:      2 * time.Second,
		DefaultTimeout:   2 * time.Second,
		10 * time.Second: 4 * time.Second,
		time.Minute:      5 * time.Second,
	} {
		if got := New(Options{Timeout: lookup}).client.Timeout; got != want {
			t.Errorf("a lookup of %v waits %v for one server, want %v", lookup, got, want)
		}
	}
}
