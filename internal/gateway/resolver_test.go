package gateway_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// answers returns a server that answers every name with records, in zone file
// form without the name.
func answers(records ...string) testnet.AnswerDNS {
	return func(_ string, q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		for _, s := range records {
			rr, err := dns.NewRR(q.Question[0].Name + " " + s)
			if err != nil {
				panic(err)
			}
			if kind := rr.Header().Rrtype; kind == q.Question[0].Qtype || kind == dns.TypeCNAME {
				m.Answer = append(m.Answer, rr)
			}
		}
		return m
	}
}

// Answers of servers behind the subnet router, good and bad.
var (
	answersRight         = answers("60 A 10.12.3.4")
	answersWrong         = answers("60 A 10.12.66.6") // no flow may go there
	answersNXDomain      = altered(answers(), func(m *dns.Msg) { m.Rcode = dns.RcodeNameError })
	answersRefused       = altered(answers(), func(m *dns.Msg) { m.Rcode = dns.RcodeRefused })
	truncates            = altered(answersWrong, func(m *dns.Msg) { m.Truncated = true })
	answersOtherID       = altered(answersWrong, func(m *dns.Msg) { m.Id++ })
	answersOtherQuestion = altered(answersWrong, func(m *dns.Msg) { m.Question[0].Name = "www." + m.Question[0].Name })

	// answersForAlias adds an address of the alias's target, which belongs to a
	// zone of another server.
	answersForAlias = altered(answers("60 CNAME "+testnet.APIName+"."), func(m *dns.Msg) {
		h := dns.RR_Header{Name: testnet.APIName + ".", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
		m.Answer = append(m.Answer, &dns.A{Hdr: h, A: []byte{10, 12, 66, 6}})
	})
)

func staysSilent(string, *dns.Msg) *dns.Msg { return nil }

// altered returns a server that changes its answers by do before it sends them.
func altered(a testnet.AnswerDNS, do func(*dns.Msg)) testnet.AnswerDNS {
	return func(network string, q *dns.Msg) *dns.Msg {
		m := a(network, q)
		do(m)
		return m
	}
}

// slowly returns a server that answers after d.
func slowly(d time.Duration, a testnet.AnswerDNS) testnet.AnswerDNS {
	return func(network string, q *dns.Msg) *dns.Msg {
		time.Sleep(d) // the pace of a slow server
		return a(network, q)
	}
}

// overUDPAndTCP returns a server that answers by network.
func overUDPAndTCP(udp, tcp testnet.AnswerDNS) testnet.AnswerDNS {
	return func(network string, q *dns.Msg) *dns.Msg {
		if network == "udp" {
			return udp(network, q)
		}
		return tcp(network, q)
	}
}

// queries counts the queries to a server, by name in lower case with its dot.
type queries struct {
	mu sync.Mutex
	n  map[string]int
}

func (a *queries) of(name string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.n[dns.Fqdn(name)]
}

// names is how many different names were in the queries.
func (a *queries) names() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.n)
}

// dnsServer starts a DNS server at a new address of the private site, and counts
// its queries.
func (w *world) dnsServer(answer testnet.AnswerDNS) (addr string, a *queries) {
	a = &queries{n: map[string]int{}}
	at := w.cloud.NewHost()
	w.cloud.ServeDNS(netip.AddrPortFrom(at, 53), func(network string, q *dns.Msg) *dns.Msg {
		a.mu.Lock()
		a.n[strings.ToLower(q.Question[0].Name)]++
		a.mu.Unlock()
		return answer(network, q)
	})
	return at.String(), a
}

// flowTo sends curl to host through the replica, and returns the flow's line.
func (w *world) flowTo(t *testing.T, r *replica, host string) map[string]any {
	t.Helper()
	before := len(r.flows.matching(host + ":80"))
	w.curl(t, "-o", "/dev/null", "-x", "http://"+r.addr, "http://"+host+"/")
	var f map[string]any
	testkit.Eventually(t, "the flow line of "+host, func() bool {
		list := r.flows.matching(host + ":80")
		if len(list) > before {
			f = list[len(list)-1]
		}
		return f != nil
	})
	return f
}

// zoneOf is the zone of a case: host names have no underscores.
func zoneOf(name string) string { return strings.ReplaceAll(name, "_", "-") + ".example" }

// minTTL and maxTTL are how long answers are kept where servers give a useless
// TTL: longer than a few runs of curl, and not longer than a test can wait.
const (
	minTTL = 1500 * time.Millisecond
	maxTTL = 2500 * time.Millisecond
)

// fault is a zone whose servers have a fault, and what a flow to it must be.
type fault struct {
	name    string
	servers []testnet.AnswerDNS
	class   string        // empty means ok
	addr    string        // the address that was dialled; empty means the API's, or none when the flow fails
	source  string        // the zone that has answered; empty means the fault's own
	took    time.Duration // the least time
	says    string        // words of the line's error or hint
}

var (
	apiDialled  = testnet.APIAddr.String() + ":80"
	apiDialled6 = "[" + testnet.APIAddr6.String() + "]:80"
)

// slower is longer than UDP is tried alone, and far from the time that one server
// has to answer, also on a busy machine.
const slower = 500 * time.Millisecond

var faults = []fault{
	{name: "slow", servers: []testnet.AnswerDNS{overUDPAndTCP(slowly(200*time.Millisecond, answersRight), staysSilent)}, took: 200 * time.Millisecond},
	{name: "slower_than_tcp", servers: []testnet.AnswerDNS{overUDPAndTCP(slowly(slower, answersRight), staysSilent)}, took: slower},
	{name: "slow_tcp", servers: []testnet.AnswerDNS{overUDPAndTCP(staysSilent, slowly(slower, answersRight))}, took: slower},
	{name: "one_of_two_dead", servers: []testnet.AnswerDNS{staysSilent, answersRight}},
	{name: "one_of_two_refuses", servers: []testnet.AnswerDNS{answersRefused, answersRight}},
	{name: "dead", servers: []testnet.AnswerDNS{staysSilent}, class: "timeout", says: "gave a usable answer"},
	{name: "refuses", servers: []testnet.AnswerDNS{answersRefused}, class: "resolve_failed", says: "answered REFUSED"},
	{name: "tcp_only", servers: []testnet.AnswerDNS{overUDPAndTCP(staysSilent, answersRight)}},
	{name: "udp_only", servers: []testnet.AnswerDNS{overUDPAndTCP(answersRight, staysSilent)}},
	{name: "truncated", servers: []testnet.AnswerDNS{overUDPAndTCP(truncates, answersRight)}},
	{name: "nxdomain", servers: []testnet.AnswerDNS{answersNXDomain}, class: "not_found", says: "the name does not exist according to its source"},
	{name: "no_address", servers: []testnet.AnswerDNS{answers()}, class: "not_found"},
	{name: "other_ids_over_udp", servers: []testnet.AnswerDNS{overUDPAndTCP(answersOtherID, answersRight)}},
	{name: "other_ids", servers: []testnet.AnswerDNS{answersOtherID}, class: "timeout"},
	{name: "another_question_over_udp", servers: []testnet.AnswerDNS{overUDPAndTCP(answersOtherQuestion, answersRight)}},
	{name: "another_question", servers: []testnet.AnswerDNS{answersOtherQuestion}, class: "resolve_failed", says: "the reply is for another question"},
	{name: "only_aaaa", servers: []testnet.AnswerDNS{answers("60 AAAA " + testnet.APIAddr6.String())}, addr: apiDialled6},
	{name: "alias", servers: []testnet.AnswerDNS{answers("60 CNAME " + testnet.APIName + ".")}, source: testnet.Zone},
	{name: "alias_with_a_lie", servers: []testnet.AnswerDNS{answersForAlias}, source: testnet.Zone},
	{name: "alias_into_nothing", servers: []testnet.AnswerDNS{answers("60 CNAME none." + testnet.Zone + ".")}, class: "not_found", source: testnet.Zone},
}

// ttlLies are zones whose servers give a useless TTL, in seconds, with how long
// their answers are kept.
var ttlLies = map[string]struct {
	ttl  int
	kept time.Duration
}{"ttl_0": {0, minTTL}, "ttl_week": {7 * 24 * 3600, maxTTL}}

func TestResolverFaults(t *testing.T) { eachMode(t, ownTailnet, resolverFaults) }

// resolverFaults checks zones whose servers have one fault each. All servers are
// behind the subnet router.
func resolverFaults(t *testing.T, w *world) {
	var zones []config.Zone
	first := map[string]*queries{} // to the first server of each zone
	for _, c := range faults {
		z := config.Zone{Suffix: zoneOf(c.name)}
		for i, a := range c.servers {
			addr, asked := w.dnsServer(a)
			z.Servers = append(z.Servers, addr)
			if i == 0 {
				first[c.name] = asked
			}
		}
		zones = append(zones, z)
	}
	for name, lie := range ttlLies {
		addr, asked := w.dnsServer(answers(fmt.Sprintf("%d A %s", lie.ttl, testnet.APIAddr)))
		zones = append(zones, config.Zone{Suffix: zoneOf(name), Servers: []string{addr}})
		first[name] = asked
	}
	r := w.start(t, func(c *config.Config) {
		c.Resolve.Zones = zones
		c.Resolve.MinTTL = config.Duration(minTTL)
		c.Resolve.MaxTTL = config.Duration(maxTTL)
	})
	t.Run("zones", func(t *testing.T) { // ends with those that run side by side
		for _, c := range faults {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, w, r, first[c.name])
			})
		}
		for name, lie := range ttlLies {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				host := "api." + zoneOf(name)
				begin := time.Now()
				server := first[name]
				w.flowTo(t, r, host)
				once := server.of(host)
				w.flowTo(t, r, host)
				if took := time.Since(begin); server.of(host) > once && took < lie.kept {
					t.Errorf("asked again within %v", took)
				}
				time.Sleep(lie.kept) // the time that the answer is kept
				w.flowTo(t, r, host)
				if server.of(host) == once {
					t.Errorf("not asked again after %v", time.Since(begin))
				}
			})
		}
	})

	// 4via6: the name says which site's 10.12.3.4. No peer carries site 7 here.
	via := "10-12-3-4-via-7." + testnet.MagicSuffix
	if f := w.flowTo(t, r, via); f["source"] != "magicdns" || f["class"] != "no_route" || !strings.Contains(fmt.Sprint(f["err"]), "fd7a:115c:a1e0:b1a:0:7:a0c:304") {
		t.Errorf("4via6: flow line %v", f)
	}
}

// run sends curl to a name of the fault's zone. server is the zone's first one.
func (c fault) run(t *testing.T, w *world, r *replica, server *queries) {
	zone := zoneOf(c.name)
	begin := time.Now()
	f := w.flowTo(t, r, "api."+zone)
	took := time.Since(begin)
	if c.class == "" {
		c.class = "ok"
		c.addr = cmp.Or(c.addr, apiDialled)
	}
	if addr, _ := f["addr"].(string); f["class"] != c.class || addr != c.addr {
		t.Errorf("flow line %v, want class %s and address %q", f, c.class, c.addr)
	}
	if want := "zone " + cmp.Or(c.source, zone); f["source"] != want {
		t.Errorf("flow line %v, want source %s", f, want)
	}
	if said := fmt.Sprint(f["err"], f["hint"]); !strings.Contains(said, c.says) {
		t.Errorf("flow line %v, want %q in its error or hint", f, c.says)
	}
	// No upper bound is needed: a lookup that takes too long ends at resolve.timeout,
	// and the flow has another class.
	if took < c.took {
		t.Errorf("took %v, want at least %v", took, c.took)
	}
	if server.of("api."+zone) == 0 {
		t.Error("the zone's server was not asked")
	}
}

func TestResolversFollowTheNetmap(t *testing.T) { eachMode(t, ownTailnet, netmapChanges) }

// netmapChanges checks a resolver that moves, and global resolvers that are
// added.
func netmapChanges(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Tailnet.Hostname = "following"
		c.Resolve.Zones = []config.Zone{{Suffix: zoneOf("nxdomain"), Servers: []string{w.nxdomainServer()}}}
		c.Resolve.MinTTL = config.Duration(time.Minute) // so an answer that changes sooner was forgotten
	})
	const (
		moving  = "api.moving.example"
		nobodys = "www.nobodys.test"
	)
	a, _ := w.dnsServer(answersRight)
	b, _ := w.dnsServer(answers("60 AAAA " + testnet.APIAddr6.String()))
	w.sendDNS(t, r, a)
	testkit.Eventually(t, "the zone", func() bool { return w.flowTo(t, r, moving)["addr"] == apiDialled })
	w.sendDNS(t, r, b)
	testkit.Eventually(t, "the other resolver's answer", func() bool { return w.flowTo(t, r, moving)["addr"] == apiDialled6 })

	// A global resolver at a private address is reached through the tailnet. It is
	// not asked for a name that has an owner.
	global, seen := w.dnsServer(answersRight)
	w.sendDNS(t, r, b, global)
	if f := w.flowTo(t, r, nobodys); f["source"] != "global" || f["class"] != "ok" || f["addr"] != apiDialled {
		t.Errorf("global: flow line %v", f)
	}
	for _, host := range []string{"none." + testnet.Zone, "new." + zoneOf("nxdomain"), "none." + testnet.MagicSuffix} {
		if f := w.flowTo(t, r, host); f["class"] != "not_found" {
			t.Errorf("%s: flow line %v, want class not_found", host, f)
		}
	}
	if seen.of(nobodys) == 0 || seen.names() != 1 {
		t.Errorf("the global resolver was asked for %v, want %s alone", seen.n, nobodys)
	}
}

// nxdomainServer starts a DNS server that does not know any name, and returns its address.
func (w *world) nxdomainServer() string {
	addr, _ := w.dnsServer(answersNXDomain)
	return addr
}

// sendDNS gives the tailnet's zone moving.example another resolver, and the
// tailnet global ones. It returns when the engine knows them.
func (w *world) sendDNS(t *testing.T, r *replica, server string, global ...string) {
	t.Helper()
	routes := map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}, "moving.example": {server}}
	if err := w.net.SendDNSRoutes("following", routes, global...); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the engine to know", func() bool {
		d, _ := r.gw.Device().DNS()
		return slices.Equal(d.Routes["moving.example"], []string{server}) && slices.Equal(d.Resolvers, global)
	})
}
