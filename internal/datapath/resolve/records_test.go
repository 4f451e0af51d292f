package resolve

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/flow"
)

var someClient = netip.MustParseAddr("10.244.1.7")

// recordsOf returns the code that a client would get for records of name, and their data.
func recordsOf(t *testing.T, r *Resolver, name string, qtype uint16) string {
	t.Helper()
	answer, exists, err := r.Records(t.Context(), someClient, name, qtype, nil)
	got := []string{flow.ClassOf(err).String()}
	if err == nil && !exists {
		got = []string{"nxdomain"}
	}
	for _, rr := range answer {
		got = append(got, strings.TrimSpace(strings.TrimPrefix(rr.String(), rr.Header().String())))
	}
	return strings.Join(got, " ")
}

// TestRecordsOfSources checks which source is asked for records, and that what has only
// addresses does not hide those of the zone.
func TestRecordsOfSources(t *testing.T) {
	zone := newServer(t, records(apiA, `api.corp.example. 60 IN TXT "zone"`, `rec.corp.example. 60 IN TXT "zone"`,
		`node.corp.example. 60 IN TXT "zone"`, `db.shop.corp.example. 60 IN TXT "completed"`, "out.corp.example. 60 IN CNAME txt.public.known."))
	public := newServer(t, records(`txt.public.known. 60 IN TXT "public"`, `db.shop.corp.example. 60 IN TXT "not asked"`))
	box := func(_ string, q *dns.Msg) *dns.Msg { // MagicDNS sends some types on to others
		if qt := q.Question[0].Qtype; qt != dns.TypeA && qt != dns.TypeAAAA {
			t.Errorf("MagicDNS is asked for %v, want only addresses", dns.Type(qt))
		}
		return records("box.ts.example. 60 IN A 100.64.0.9")("", q)
	}
	tailnet := TailnetDNS{
		Magic:       true,
		MagicSuffix: "ts.example",
		Search:      []string{"ts.example"},
		Records:     map[string][]netip.Addr{"rec.corp.example": addrs("10.0.0.7"), "alone.example": addrs("10.0.0.7")},
		Nodes:       map[string][]netip.Addr{"node.corp.example": addrs("100.64.0.8"), "node.served.example": addrs("100.64.0.8")},
		Routes:      map[string][]string{"corp.example": {"10.9.9.1"}, "empty.example": {}},
	}
	r := newResolver(t, Options{
		Hosts:      map[string][]netip.Addr{"api.corp.example": addrs("10.0.0.5")},
		HostsFile:  file(t, "10.0.0.6 file.corp.example\n"),
		ResolvConf: file(t, "nameserver "+base+"\nsearch shop.corp.example\n"),
		Served:     []string{"served.example"},
		Tailnet:    up(tailnet),
		QueryMagic: magic(box),
	}, map[string]*server{"10.9.9.1": zone, base: public})
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"api.corp.example", dns.TypeTXT, `ok "zone"`},  // also in the host table
		{"rec.corp.example", dns.TypeTXT, `ok "zone"`},  // also an extra record
		{"node.corp.example", dns.TypeTXT, `ok "zone"`}, // also a node
		{"file.corp.example", dns.TypeTXT, "ok"},        // only in /etc/hosts, so it exists
		{"alone.example", dns.TypeTXT, "ok"},
		{"none.corp.example", dns.TypeTXT, "nxdomain"},
		{"x.empty.example", dns.TypeTXT, "nxdomain"},
		{"box.ts.example", dns.TypePTR, "ok"},
		{"box.ts.example", dns.TypeNS, "ok"},
		{"none.ts.example", dns.TypePTR, "nxdomain"},
		{"x.served.example", dns.TypeTXT, "resolve_failed"},
		{"node.served.example", dns.TypeTXT, "ok"},
		{"out.corp.example", dns.TypeTXT, `ok txt.public.known. "public"`},
		{"out.corp.example", dns.TypeMX, "ok txt.public.known."},
		{"out.corp.example", dns.TypeCNAME, "ok txt.public.known."},
		{"db", dns.TypeTXT, "nxdomain"}, // no search domain completes it
	} {
		if got := recordsOf(t, r, c.name, c.qtype); got != c.want {
			t.Errorf("%s %v: got %s, want %s", c.name, dns.Type(c.qtype), got, c.want)
		}
	}
	down := newResolver(t, Options{Tailnet: func() (TailnetDNS, bool) { return TailnetDNS{}, false }}, nil)
	if got := recordsOf(t, down, "api.corp.example", dns.TypeTXT); got != "not_ready" {
		t.Errorf("before the tailnet is up: got %s, want not_ready", got)
	}
}

// TestRecordsAreCached checks that records are kept as addresses are: for each type,
// within the bounds of their lifetime, also if there are none, and until the zones change.
// What a caller does with them stays its own.
func TestRecordsAreCached(t *testing.T) {
	zone := newServer(t, records(apiA, "api.corp.example. 900 IN TXT \"a\"", "api.corp.example. 900 IN MX 1 api.corp.example."))
	r := newResolver(t, Options{MaxTTL: time.Minute, Zones: map[string]Zone{"corp.example": {Servers: []string{"10.9.9.1"}}}}, map[string]*server{"10.9.9.1": zone})
	asked := func(want ...string) {
		t.Helper()
		if got := zone.queries(""); !slices.Equal(got, want) {
			t.Errorf("the queries are %q, want %q", got, want)
		}
	}
	for range 3 {
		answer, _, err := r.Records(t.Context(), someClient, "api.corp.example", dns.TypeTXT, nil)
		if err != nil || len(answer) != 1 || answer[0].Header().Ttl > 60 || answer[0].(*dns.TXT).Txt[0] != "a" {
			t.Fatalf("Records = %v, %v; want the text, for a minute at most", answer, err)
		}
		answer[0].(*dns.TXT).Txt[0] = "changed"
		answer[0].Header().Ttl = 7
	}
	asked("udp TXT api.corp.example")
	for range 3 {
		if got := recordsOf(t, r, "api.corp.example", dns.TypeMX); got != "ok 1 api.corp.example." {
			t.Errorf("MX: %s", got)
		}
		if got := recordsOf(t, r, "api.corp.example", dns.TypeSRV); got != "ok" {
			t.Errorf("SRV: %s, want none", got)
		}
		if got := recordsOf(t, r, "none.corp.example", dns.TypeSRV); got != "nxdomain" {
			t.Errorf("SRV of a name that does not exist: %s", got)
		}
	}
	asked("udp TXT api.corp.example", "udp MX api.corp.example", "udp SRV api.corp.example", "udp SRV none.corp.example")
	good, failed := r.answers.Use()
	if good == 0 || failed == 0 {
		t.Errorf("the cache holds %d bytes of answers and %d of others, want some of both", good, failed)
	}
	lookup(t, r, "api.corp.example", "zone corp.example", "10.0.0.1") // addresses are another question
	r.SetZones(map[string]Zone{"corp.example": {}})
	if got := recordsOf(t, r, "api.corp.example", dns.TypeTXT); got != "nxdomain" {
		t.Errorf("after a change of the zones: %s, want nxdomain", got)
	}
}

// TestRecordsAreShared checks that clients which wait for the same records share one
// lookup, that it is admitted as others are, and that a refusal reaches its client.
func TestRecordsAreShared(t *testing.T) {
	release := make(chan struct{})
	zone := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		<-release
		return records(`api.corp.example. 60 IN TXT "a"`)(n, q)
	}, "udp")
	var mu sync.Mutex
	var entered []string
	full := false
	r := newResolver(t, Options{
		Timeout: 30 * time.Second,
		Zones:   map[string]Zone{"corp.example": {Servers: []string{"10.9.9.1"}}},
		Enter: func(client netip.Addr, source string) (func(), error) {
			mu.Lock()
			defer mu.Unlock()
			entered = append(entered, client.String()+" "+source)
			if full {
				return nil, &flow.Error{Class: flow.Overloaded, Hint: "try again"}
			}
			return func() {}, nil
		},
	}, map[string]*server{"10.9.9.1": zone})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if got := recordsOf(t, r, "api.corp.example", dns.TypeTXT); got != `ok "a"` {
				t.Errorf("got %s, want the text", got)
			}
		})
	}
	close(release)
	wg.Wait()
	if want := someClient.String() + " zone corp.example"; len(entered) != 1 || entered[0] != want {
		t.Errorf("entered %q, want %q once", entered, want)
	}
	full = true
	if got := recordsOf(t, r, "other.corp.example", dns.TypeTXT); got != "overloaded" {
		t.Errorf("a lookup that is not admitted: %s, want overloaded", got)
	}
}

// TestRecordsAreJudged checks that each name to which a CNAME leads is judged before its
// records are used, also from the cache, and also if the CNAME is what was asked for.
func TestRecordsAreJudged(t *testing.T) {
	zone := newServer(t, records("www.corp.example. 60 IN CNAME mid.corp.example.", "mid.corp.example. 60 IN CNAME end.corp.example.", `end.corp.example. 60 IN TXT "secret"`))
	r := newResolver(t, Options{Zones: map[string]Zone{"corp.example": {Servers: []string{"10.9.9.1"}}}}, map[string]*server{"10.9.9.1": zone})
	for _, c := range []struct {
		qtype  uint16
		denied string
		class  flow.Class
	}{
		{dns.TypeTXT, "", flow.OK},
		{dns.TypeTXT, "end.corp.example", flow.Denied},
		{dns.TypeTXT, "mid.corp.example", flow.Denied},
		{dns.TypeSRV, "mid.corp.example", flow.Denied}, // there is none, but for the CNAMEs
		{dns.TypeCNAME, "mid.corp.example", flow.Denied},
		{dns.TypeCNAME, "end.corp.example", flow.OK},
		{dns.TypeTXT, "www.corp.example", flow.OK}, // judged by the caller
	} {
		judge := func(alias string) error {
			if alias == c.denied {
				return &flow.Error{Class: flow.Denied}
			}
			return nil
		}
		answer, _, err := r.Records(t.Context(), someClient, "www.corp.example", c.qtype, judge)
		if flow.ClassOf(err) != c.class || (len(answer) > 0) != (c.class == flow.OK) {
			t.Errorf("%v with %q denied: %v, %v; want class %v, and records only if it is ok", dns.Type(c.qtype), c.denied, answer, err, c.class)
		}
	}
}

// TestRecordsWhileNoServerAnswers checks that old records are used, as old addresses are
// (RFC 8767).
func TestRecordsWhileNoServerAnswers(t *testing.T) {
	var broken sync.Map
	zone := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		if _, yes := broken.Load(true); yes {
			return rcode(dns.RcodeServerFailure)(n, q)
		}
		return records(`api.corp.example. 1 IN TXT "a"`)(n, q)
	})
	r := newResolver(t, Options{MinTTL: time.Millisecond, MaxTTL: time.Millisecond, Zones: map[string]Zone{"corp.example": {Servers: []string{"10.9.9.1"}}}}, map[string]*server{"10.9.9.1": zone})
	if got := recordsOf(t, r, "api.corp.example", dns.TypeTXT); got != `ok "a"` {
		t.Fatalf("got %s, want the text", got)
	}
	broken.Store(true, true)
	time.Sleep(10 * time.Millisecond) // the record expires
	if got := recordsOf(t, r, "api.corp.example", dns.TypeTXT); got != `ok "a"` {
		t.Errorf("while the server fails: %s, want the old text", got)
	}
	if got := recordsOf(t, r, "api.corp.example", dns.TypeMX); got != "resolve_failed" {
		t.Errorf("MX while the server fails: %s, want resolve_failed", got)
	}
}

// TestLongRecordsAreCounted checks that the cache counts what large records take.
func TestLongRecordsAreCounted(t *testing.T) {
	zone := newServer(t, func(_ string, q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		for range 20 {
			m.Answer = append(m.Answer, &dns.TXT{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
				Txt: []string{strings.Repeat("x", 250)},
			})
		}
		return m
	})
	const most = 64 << 10
	r := newResolver(t, Options{CacheBytes: most, Zones: map[string]Zone{"corp.example": {Servers: []string{"10.9.9.1"}}}}, map[string]*server{"10.9.9.1": zone})
	for i := range 20 {
		name := "n" + string(rune('a'+i)) + ".corp.example"
		if _, exists, err := r.Records(context.WithoutCancel(t.Context()), someClient, name, dns.TypeTXT, nil); err != nil || !exists {
			t.Fatal(exists, err)
		}
	}
	kept := 0
	for i := range 20 {
		e, ok := r.answers.Get(question{"n" + string(rune('a'+i)) + ".corp.example", dns.TypeTXT}.key())
		if !ok {
			continue
		}
		kept++
		if e.bytes() < 20*250 {
			t.Errorf("an entry of 5000 bytes counts as %d", e.bytes())
		}
	}
	if kept == 0 || kept > most/5000 {
		t.Errorf("%d entries of 5000 bytes are kept in %d bytes, want some, and no more than fit", kept, most)
	}
}
