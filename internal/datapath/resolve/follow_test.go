package resolve

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/host"
)

var errJudged = errors.New("denied")

// denying returns a judge that denies one name, and the list of those it has judged.
func denying(name string) (Judge, *[]string) {
	var judged []string
	return func(alias string) error {
		judged = append(judged, alias)
		if alias == name {
			return errJudged
		}
		return nil
	}, &judged
}

// aliasWorld is a resolver with a private zone, the pod's resolver, and names that
// lead to db.corp.example in all ways.
func aliasWorld(t *testing.T) (r *Resolver, zone, pod *server) {
	zone = newServer(t, records("db.corp.example. 60 IN A 10.0.0.1", "inside.corp.example. 60 IN CNAME db.corp.example.", "two.corp.example. 60 IN CNAME inside.corp.example."))
	pod = newServer(t, records(
		"across.public.known. 60 IN CNAME db.corp.example.",
		"external.shop.svc.cluster.local. 5 IN CNAME db.corp.example.",
		"mixed.public.known. 60 IN CNAME DB.Corp.EXAMPLE.",
		"same.public.known. 60 IN CNAME hop.public.known.", "hop.public.known. 60 IN CNAME across.public.known.",
		"answered.public.known. 60 IN CNAME target.public.known.", "target.public.known. 60 IN A 203.0.113.1",
		"six.public.known. 60 IN CNAME target6.public.known.", "target6.public.known. 60 IN AAAA 2001:db8::1"))
	r = newResolver(t, Options{
		Tailnet:    up(TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.1"}}}),
		ResolvConf: file(t, "nameserver "+base+"\nsearch shop.svc.cluster.local svc.cluster.local\n"),
	}, map[string]*server{"10.9.9.1": zone, base: pod})
	return r, zone, pod
}

// TestAliasIsJudgedBeforeItIsAsked checks each way in which an alias can lead to a
// name: the name is judged, and if it is denied, no server is asked for it.
func TestAliasIsJudgedBeforeItIsAsked(t *testing.T) {
	for _, tc := range []struct {
		name, host, denied string
		judged             []string // all of them, if denied is empty
	}{
		{"across_zones", "across.public.known", "db.corp.example", []string{"db.corp.example"}},
		{"inside_one_answer", "inside.corp.example", "db.corp.example", []string{"db.corp.example"}},
		{"inside_one_answer_in_the_middle", "two.corp.example", "inside.corp.example", []string{"inside.corp.example", "db.corp.example"}},
		{"in_the_middle_across_zones", "same.public.known", "hop.public.known", []string{"hop.public.known", "across.public.known", "db.corp.example"}},
		{"external_name", "external.shop.svc.cluster.local", "db.corp.example", []string{"db.corp.example"}},
		{"search_domain", "external", "db.corp.example", []string{"db.corp.example"}},
		{"mixed_case", "mixed.public.known", "db.corp.example", []string{"db.corp.example"}},
		{"mixed_case_and_dot_of_the_client", "MIXED.Public.known.", "db.corp.example", []string{"db.corp.example"}},
		{"answer_with_addresses", "answered.public.known", "target.public.known", []string{"target.public.known"}},
		{"ipv6_alone", "six.public.known", "target6.public.known", []string{"target6.public.known"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, zone, _ := aliasWorld(t)
			h, err := host.Parse(tc.host)
			if err != nil {
				t.Fatal(err)
			}
			deny, _ := denying(tc.denied)
			for range 2 { // the second answer is cached
				a, err := r.LookupJudged(t.Context(), netip.Addr{}, h, deny)
				if !errors.Is(err, errJudged) || len(a.Addrs) > 0 {
					t.Errorf("LookupJudged(%s) = %+v, %v, want the judge's error", tc.host, a, err)
				}
			}
			if q := zone.queries(" db.corp.example"); len(q) > 0 {
				t.Errorf("sent %v, want no query for the denied name", q)
			}
			allow, judged := denying("")
			a, err := r.LookupJudged(t.Context(), netip.Addr{}, h, allow)
			if err != nil || len(a.Addrs) == 0 || !slices.Equal(*judged, tc.judged) || !slices.Equal(a.Aliases, tc.judged) {
				t.Errorf("of another client: %+v, %v after judging %q, want %q", a, err, *judged, tc.judged)
			}
			if _, err := r.LookupJudged(t.Context(), netip.Addr{}, h, deny); !errors.Is(err, errJudged) {
				t.Errorf("after another client: %v, want the judge's error", err)
			}
			if _, _, err := r.Explain(t.Context(), h, deny); !errors.Is(err, errJudged) {
				t.Errorf("Explain: %v, want the judge's error", err)
			}
		})
	}
}

// TestCompletedAliasIsJudged checks that the name that a search domain makes of an
// alias is judged before its address is used.
func TestCompletedAliasIsJudged(t *testing.T) {
	zone := newServer(t, func(n string, q *dns.Msg) *dns.Msg {
		m := records("www.corp.example. 60 IN CNAME db.")(n, q)
		m.Rcode = dns.RcodeSuccess
		return m
	})
	r := newResolver(t, Options{
		Zones:   map[string]Zone{"corp.example": {Servers: []string{"10.9.9.1"}}, "other.example": {Servers: []string{"10.9.9.2"}}},
		Tailnet: up(TailnetDNS{Search: []string{"other.example"}}),
	}, map[string]*server{"10.9.9.1": zone, "10.9.9.2": newServer(t, records("db.other.example. 60 IN A 10.0.0.1")), base: newServer(t, records())})
	deny, judged := denying("db.other.example")
	a, err := r.LookupJudged(t.Context(), netip.Addr{}, host.Host{Name: "www.corp.example"}, deny)
	if !errors.Is(err, errJudged) || !slices.Equal(*judged, []string{"db", "db.other.example"}) {
		t.Errorf("LookupJudged = %+v, %v after judging %q, want db, then the denial of db.other.example", a, err, *judged)
	}
}

// TestFamiliesWithDifferentAliases checks that the aliases of both families are judged.
func TestFamiliesWithDifferentAliases(t *testing.T) {
	r, _ := bubble(t, Options{}, func(n string, q *dns.Msg) *dns.Msg {
		return records("www.corp.example. 60 IN CNAME "+strings.ToLower(dns.TypeToString[q.Question[0].Qtype])+".corp.example.", "a.corp.example. 60 IN A 10.0.0.1", "aaaa.corp.example. 60 IN AAAA fd00::1")(n, q)
	})
	for _, name := range []string{"a.corp.example", "aaaa.corp.example"} {
		deny, _ := denying(name)
		if a, err := r.LookupJudged(t.Context(), netip.Addr{}, host.Host{Name: "www.corp.example"}, deny); !errors.Is(err, errJudged) {
			t.Errorf("denying %s: %+v, %v, want the judge's error", name, a, err)
		}
	}
}

// TestAliasAcrossZonesLivesAsLongAsEachPart checks the lifetimes of the parts of a
// chain, and the bound on the time for all of them.
func TestAliasAcrossZonesLivesAsLongAsEachPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, asked := bubble(t, Options{Hosts: map[string][]netip.Addr{"db.known": addrs("10.0.0.1")}}, records("www.corp.example. 9 IN CNAME db.known."))
		ask := func() Answer {
			a, err := r.Lookup(t.Context(), host.Host{Name: "www.corp.example"})
			if err != nil || a.Source != SourceHosts {
				t.Fatalf("Lookup = %+v, %v, want the address of the host table", a, err)
			}
			return a
		}
		if a := ask(); a.Cached || a.TTL != 9*time.Second {
			t.Errorf("first answer: %+v, want 9s, not cached", a)
		}
		time.Sleep(8 * time.Second)
		if a := ask(); a.TTL != time.Second || asked() != 1 {
			t.Errorf("8s later: %+v after %d queries, want 1s left and one query", a, asked())
		}
		time.Sleep(2 * time.Second)
		ask()
		if asked() != 2 {
			t.Errorf("%d queries after the alias has expired, want 2", asked())
		}
	})
}
