package resolve

import (
	"context"
	"errors"
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

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

const apiA = "api.corp.example. 60 IN A 10.0.0.1"

// lookup resolves name and checks its source and its addresses, in order.
func lookup(t *testing.T, r *Resolver, name, source string, want ...string) {
	t.Helper()
	a, err := r.Lookup(t.Context(), host.Host{Name: name})
	if err != nil || a.Source != source || !slices.Equal(a.Addrs, addrs(want...)) {
		t.Errorf("Lookup(%s) = %+v, %v, want %v from %s", name, a, err, want, source)
	}
}

func lookupFails(t *testing.T, r *Resolver, name string, class flow.Class, hint string) {
	t.Helper()
	a, err := r.Lookup(t.Context(), host.Host{Name: name})
	if flow.ClassOf(err) != class || !strings.Contains(flow.HintOf(err), hint) || a.Addrs != nil {
		t.Errorf("Lookup(%s) = %+v, %v with hint %q, want class %s and %q in the hint", name, a, err, flow.HintOf(err), class, hint)
	}
}

func TestLiteralAsksNobody(t *testing.T) {
	r := newResolver(t, Options{Tailnet: func() (TailnetDNS, bool) { return TailnetDNS{}, false }}, nil)
	a, err := r.Lookup(t.Context(), host.Host{Addr: netip.MustParseAddr("10.0.0.1")})
	if err != nil || a.Source != SourceLiteral || !slices.Equal(a.Addrs, addrs("10.0.0.1")) {
		t.Errorf("Lookup of an address = %+v, %v, want 10.0.0.1 from literal", a, err)
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
					a, err := r.Lookup(t.Context(), host.Host{Name: "api.corp.example"})
					return a.Cached, err
				}
				cached, first := ask()
				if cached || asked() != 1 {
					t.Fatalf("first lookup: cached %v after %d queries, want not cached after 1", cached, asked())
				}
				if tc.want > 0 {
					time.Sleep(tc.want - time.Nanosecond)
					if cached, err := ask(); !cached || flow.ClassOf(err) != flow.ClassOf(first) || asked() != 1 {
						t.Errorf("just before the TTL ends: cached %v, %v after %d queries, want cached after 1", cached, err, asked())
					}
					time.Sleep(time.Nanosecond)
				}
				if cached, _ := ask(); cached || asked() != 2 {
					t.Errorf("after the TTL: cached %v after %d queries, want not cached after 2", cached, asked())
				}
			})
		})
	}
}

// TestServesStale checks that a name keeps its answer while its resolver fails or
// is silent.
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
			start := time.Now()
			before := asked()
			lookup(t, r, "api.corp.example", SourceMagicDNS, "10.0.0.1")
			d := time.Since(start)
			n := asked() - before
			if d != took || n != times {
				t.Errorf("%s: answer after %v and %d queries, want %v and %d", what, d, n, took, times)
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
		if a, err := r.Lookup(t.Context(), host.Host{Name: "api.corp.example"}); err != nil || a.TTL > staleTTL {
			t.Errorf("a stale answer has TTL %v, %v, want at most %v", a.TTL, err, staleTTL)
		}
		silent.Store(false)
		time.Sleep(2 * staleTime)
		lookupFails(t, r, "api.corp.example", flow.ResolveFailed, "usable answer")
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
			t.Errorf("50 lookups at once sent %d queries, want 1", asked())
		}
	})
}

func TestCallerGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r, asked := bubble(t, Options{}, func(n string, q *dns.Msg) *dns.Msg { <-gate; return records(apiA)(n, q) })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := r.Lookup(ctx, host.Host{Name: "api.corp.example"}); flow.ClassOf(err) != flow.Canceled || !errors.Is(err, context.Canceled) {
			t.Errorf("Lookup with a canceled context: %v, want class canceled", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Lookup(ctx, host.Host{Name: "api.corp.example"}); flow.ClassOf(err) != flow.Timeout {
			t.Errorf("Lookup with an expired context: %v, want class timeout", err)
		}
		close(gate)
		synctest.Wait()
		if a, err := r.Lookup(t.Context(), host.Host{Name: "api.corp.example"}); err != nil || !a.Cached || asked() != 1 {
			t.Errorf("later Lookup = %+v, %v after %d queries, want the cached answer of the first", a, err, asked())
		}
	})
}

// BenchmarkCached measures the lookup of a cached name.
func BenchmarkCached(b *testing.B) {
	names := make([]host.Host, 1000)
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
