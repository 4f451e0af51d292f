package resolve

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

var (
	alice = netip.MustParseAddr("10.0.0.11")
	bob   = netip.MustParseAddr("10.0.0.12")
)

// lookupFor is lookup for a client, without a check of the addresses.
func lookupFor(t *testing.T, r *Resolver, client netip.Addr, name string) (Answer, error) {
	t.Helper()
	return r.LookupJudged(t.Context(), client, host.Host{Name: name}, nil)
}

// many answers each question with n addresses, over TCP only.
func many(n int) answer {
	return func(network string, q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Compress = true
		if network == "udp" {
			m.Truncated = true
			return m
		}
		h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 60}
		for i := range n {
			if h.Rrtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{Hdr: h, A: []byte{10, 1, byte(i >> 8), byte(i)}})
			} else if i < n/2 {
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: []byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}})
			}
		}
		return m
	}
}

// TestAddressesAreBounded checks how many addresses of a name are kept, that both
// families are among them, that explain says so, and that those of the fleet's own
// Service are not cut.
func TestAddressesAreBounded(t *testing.T) {
	r := newResolver(t, Options{}, map[string]*server{base: newServer(t, many(3900))})
	a, err := r.Lookup(t.Context(), host.Host{Name: "many.known"})
	v6 := slices.IndexFunc(a.Addrs, netip.Addr.Is4)
	if err != nil || len(a.Addrs) != dnsclient.MaxAddrs || v6 != dnsclient.MaxAddrs/2 {
		t.Fatalf("Lookup = %d addresses, %d of them IPv6, %v, want %d, half of them IPv6", len(a.Addrs), v6, err, dnsclient.MaxAddrs)
	}
	if e, _ := r.answers.Get("many.known"); e.bytes() > 4096 {
		t.Errorf("the name takes %d bytes in the cache, want at most 4096", e.bytes())
	}
	_, steps, err := r.Explain(t.Context(), host.Host{Name: "many.known"}, nil)
	if err != nil || !strings.Contains(fmt.Sprint(steps), "more that are not used") {
		t.Errorf("Explain = %v, %v, want a word about addresses that are not used", steps, err)
	}
	if list, err := r.LookupPod(t.Context(), "many.known"); err != nil || len(list) < 200 {
		t.Errorf("LookupPod = %d addresses, %v, want 200 or more", len(list), err)
	}
}

// TestCacheIsBounded checks that neither names with addresses nor unknown names make
// the cache larger than its bound, and that one client's names do not push out
// another's.
func TestCacheIsBounded(t *testing.T) {
	const most = 256 << 10
	r, asked := bubble(t, Options{CacheBytes: most}, func(_ string, q *dns.Msg) *dns.Msg {
		if strings.HasPrefix(q.Question[0].Name, "none-") {
			return rcode(dns.RcodeNameError)("", q)
		}
		return records(q.Question[0].Name+" 60 IN A 10.0.0.1")("", q)
	})
	for i := range 20 {
		lookupFor(t, r, alice, "api-"+strconv.Itoa(i)+".corp.example")
	}
	for i := range 2000 {
		lookupFor(t, r, bob, "random-"+strconv.Itoa(i)+".corp.example")
		lookupFor(t, r, bob, "none-"+strconv.Itoa(i)+".corp.example")
		good, failed := r.answers.Use()
		if good > most*3/4 || failed > most/4 {
			t.Fatalf("after %d names the cache holds %d and %d bytes, want at most %d in all", i, good, failed, most)
		}
	}
	before := asked()
	for i := range 20 {
		if a, err := lookupFor(t, r, alice, "api-"+strconv.Itoa(i)+".corp.example"); err != nil || !a.Cached {
			t.Errorf("Lookup = %+v, %v after another client's 4,000 names, want it cached", a, err)
		}
	}
	if asked() != before || before < 4020 {
		t.Errorf("%d queries, then %d, want 4020 and no more", before, asked())
	}
}

// TestUnknownNamesPushOutNoAnswer checks that the unknown names of a client do not
// push out even its own answers, not when these have expired either.
func TestUnknownNamesPushOutNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		r, _ := bubble(t, Options{CacheBytes: 64 << 10}, func(n string, q *dns.Msg) *dns.Msg {
			switch {
			case q.Question[0].Name != "api.corp.example.":
				return rcode(dns.RcodeNameError)(n, q)
			case fails.Load():
				return rcode(dns.RcodeServerFailure)(n, q)
			}
			return records(apiA)(n, q)
		})
		lookup(t, r, "api.corp.example", SourceMagicDNS, "10.0.0.1")
		time.Sleep(2 * time.Minute)
		fails.Store(true)
		for i := range 1000 {
			r.Lookup(t.Context(), host.Host{Name: strconv.Itoa(i) + ".corp.example"})
		}
		lookup(t, r, "api.corp.example", SourceMagicDNS, "10.0.0.1")
	})
}

// places is an Options.Enter with a number of places for each client.
type places struct {
	mu     sync.Mutex
	most   int
	held   map[string]int // by client and source
	taken  int            // in all
	refuse atomic.Bool    // refuses all
}

func (p *places) enter(client netip.Addr, source string) (func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := client.String() + " " + source
	if p.refuse.Load() || p.held[key] == p.most {
		return nil, &flow.Error{Class: flow.Overloaded, Hint: "it has its share"}
	}
	if p.held == nil {
		p.held = map[string]int{}
	}
	p.held[key]++
	p.taken++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held[key]--
	}, nil
}

// TestLookupsAreBounded checks that a client without a place is refused at once,
// that another client and another source are not, and that joining a lookup takes no
// place.
func TestLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &places{most: 2}
		release := make(chan struct{})
		r, _ := bubble(t, Options{Enter: p.enter, Hosts: map[string][]netip.Addr{"typed.known": addrs("10.0.0.9")}}, func(n string, q *dns.Msg) *dns.Msg {
			<-release
			return records(q.Question[0].Name+" 60 IN A 10.0.0.1")(n, q)
		})
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() { lookupFor(t, r, alice, strconv.Itoa(i)+".corp.example") })
		}
		synctest.Wait()
		_, err := lookupFor(t, r, alice, "3.corp.example")
		if flow.ClassOf(err) != flow.Overloaded || flow.HintOf(err) != "it has its share" {
			t.Errorf("third lookup of a client: %v with hint %q, want class overloaded with the hint of Enter", err, flow.HintOf(err))
		}
		if _, err := lookupFor(t, r, alice, "typed.known"); err != nil {
			t.Errorf("a lookup without a query: %v, want no error", err)
		}
		for range 50 {
			wg.Go(func() {
				if _, err := lookupFor(t, r, alice, "1.corp.example"); err != nil {
					t.Errorf("joining a lookup: %v, want no error", err)
				}
			})
		}
		wg.Go(func() {
			if _, err := lookupFor(t, r, bob, "3.corp.example"); err != nil {
				t.Errorf("a lookup of another client: %v, want no error", err)
			}
		})
		synctest.Wait()
		close(release)
		wg.Wait()
		for key, n := range p.held {
			if n != 0 {
				t.Errorf("%d places of %s are left, want none", n, key)
			}
		}
		if a, err := lookupFor(t, r, alice, "3.corp.example"); err != nil || p.taken != 3 {
			t.Errorf("later: %+v, %v after %d places, want an answer after 3: a refusal is not kept", a, err, p.taken)
		}
	})
}

// TestRefusalIsNotShared checks that a client which joins a lookup is not refused
// because of the client that began it.
func TestRefusalIsNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		joined := make(chan struct{})
		r, _ := bubble(t, Options{Enter: func(client netip.Addr, _ string) (func(), error) {
			if client == alice {
				<-joined
				return nil, &flow.Error{Class: flow.Overloaded}
			}
			return func() {}, nil
		}}, records(apiA))
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := lookupFor(t, r, alice, "api.corp.example"); flow.ClassOf(err) != flow.Overloaded {
				t.Errorf("the client that began: %v, want class overloaded", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := lookupFor(t, r, bob, "api.corp.example"); err != nil {
				t.Errorf("the client that joined: %v, want no error", err)
			}
		})
		synctest.Wait()
		close(joined)
		wg.Wait()
	})
}

// TestRefusedGetsStale checks that a refused client gets an old answer, if there is
// one, and that the next lookup asks again.
func TestRefusedGetsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &places{most: 10}
		r, asked := bubble(t, Options{Enter: p.enter}, records(apiA))
		lookup(t, r, "api.corp.example", SourceMagicDNS, "10.0.0.1")
		time.Sleep(2 * time.Minute)
		p.refuse.Store(true)
		if a, err := r.Lookup(t.Context(), host.Host{Name: "api.corp.example"}); err != nil || a.TTL > staleTTL || asked() != 1 {
			t.Errorf("refused Lookup = %+v, %v after %d queries, want the old answer after 1", a, err, asked())
		}
		p.refuse.Store(false)
		lookup(t, r, "api.corp.example", SourceMagicDNS, "10.0.0.1")
		if asked() != 2 {
			t.Errorf("%d queries, want 2: a refusal is not kept", asked())
		}
	})
}

// TestQueriesOfAName counts the queries that a name costs, with the search domains
// of a pod.
func TestQueriesOfAName(t *testing.T) {
	const search = "\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
	soa := func(zone string) dns.RR {
		rr, _ := dns.NewRR(zone + " 60 IN SOA ns. admin. 1 2 3 4 60")
		return rr
	}
	known := records("www.corp.known. 60 IN A 192.0.2.1", "db.shop.svc.cluster.local. 60 IN A 10.96.0.1", "web.ns.svc.cluster.local. 60 IN A 10.96.0.2")
	for _, tc := range []struct {
		name, host string
		zone       string // that says that the name as it is does not exist
		class      flow.Class
		queries    []string
	}{
		{"exists", "www.corp.known", "", flow.OK, []string{"A www.corp.known", "AAAA www.corp.known"}},
		{"unknown_in_a_zone", "x.corp.known", "corp.known.", flow.NotFound, []string{"A x.corp.known", "AAAA x.corp.known"}},
		{"unknown_top", "x.corp.unknown", ".", flow.NotFound, []string{"A x.corp.unknown", "AAAA x.corp.unknown",
			"A x.corp.unknown.ns.svc.cluster.local", "A x.corp.unknown.svc.cluster.local", "A x.corp.unknown.cluster.local"}},
		{"service_of_a_namespace", "db.shop", "shop.", flow.OK, []string{"A db.shop", "AAAA db.shop",
			"A db.shop.ns.svc.cluster.local", "A db.shop.svc.cluster.local", "AAAA db.shop.svc.cluster.local"}},
		{"service", "web", ".", flow.OK, []string{"A web.ns.svc.cluster.local", "AAAA web.ns.svc.cluster.local"}},
		{"unknown_service", "x", ".", flow.NotFound, []string{"A x.ns.svc.cluster.local", "A x.svc.cluster.local", "A x.cluster.local", "A x", "AAAA x"}},
		{"soa_of_another_zone", "x.corp.known", "other.known.", flow.NotFound, []string{"A x.corp.known", "AAAA x.corp.known",
			"A x.corp.known.ns.svc.cluster.local", "A x.corp.known.svc.cluster.local", "A x.corp.known.cluster.local"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
				m := known(n, q)
				if m.Rcode == dns.RcodeNameError {
					zone := tc.zone
					if strings.HasSuffix(q.Question[0].Name, ".cluster.local.") {
						zone = "cluster.local."
					}
					m.Ns = []dns.RR{soa(zone)}
				}
				return m
			})
			r := newResolver(t, Options{ResolvConf: file(t, "nameserver "+base+search)}, map[string]*server{base: s})
			_, err := r.Lookup(t.Context(), host.Host{Name: tc.host})
			var got []string
			for _, q := range s.queries("") {
				if !strings.HasPrefix(q, "tcp ") { // a busy machine may take long for an answer
					got = append(got, strings.TrimPrefix(q, "udp "))
				}
			}
			slices.Sort(got)
			slices.Sort(tc.queries)
			if flow.ClassOf(err) != tc.class || !slices.Equal(got, tc.queries) {
				t.Errorf("Lookup(%s): %v after %q, want class %s after %q", tc.host, err, got, tc.class, tc.queries)
			}
		})
	}
}

// TestGuessIsNotSlower checks that a silent server of a name that is only a guess is
// asked for the other family soon.
func TestGuessIsNotSlower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		res := dnsclient.Lookup(t.Context(), "db.corp.example", true, func(ctx context.Context, q *dns.Msg) (*dns.Msg, []dnsclient.Query, error) {
			if q.Question[0].Qtype == dns.TypeA {
				<-ctx.Done()
				return nil, nil, ctx.Err()
			}
			return records("db.corp.example. 60 IN AAAA fd00::1")("", q), nil, nil
		})
		if took := time.Since(start); res.Err != nil || len(res.Addrs) != 1 || took != 2*dnsclient.OtherFamily {
			t.Errorf("Lookup = %+v after %v, want an address after %v", res, took, 2*dnsclient.OtherFamily)
		}
	})
}
