package gateway_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func (p page) ask(host, path string) {
	fmt.Fprintf(p.conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host)
}

// ask sends one query to the answerer.
func ask(t *testing.T, server, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype), server)
	if err != nil {
		t.Fatalf("%s over %s: %v", name, network, err)
	}
	return m
}

func TestDNSAnswerer(t *testing.T) { userspace(t, sharedTailnet, dnsAnswerer) }

func dnsAnswerer(t *testing.T, w *world) {
	free := testkit.FreePorts(t, 1)
	const alone = "alone.example"
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Listen.DNS = free[0]
		c.DNS.Fleet = []config.FleetHost{{Addr: netip.MustParseAddr("10.96.0.7")}}
		c.DNS.Zones = []config.ServedZone{{Suffix: testnet.Zone}, {Suffix: "real." + testnet.Zone, Answer: "real"}, {Suffix: alone}}
		c.Policy.Direct = "any"
		c.Policy.Rules = []config.Rule{{Names: []string{"denied." + testnet.Zone}, Action: "deny"}}
	})
	w.cloud.SetRecord("db.real."+testnet.Zone, testnet.APIAddr)
	defer w.cloud.SetRecord("db.real." + testnet.Zone)
	w.cloud.SetRecord("denied."+testnet.Zone, testnet.APIAddr)
	defer w.cloud.SetRecord("denied." + testnet.Zone)
	w.cloud.SetRecord("back."+testnet.Zone, netip.MustParseAddr("10.96.0.7"))
	defer w.cloud.SetRecord("back." + testnet.Zone)
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{testnet.APIName, dns.TypeA, "NOERROR 10.96.0.7"},
		{testnet.APIName, dns.TypeAAAA, "NOERROR"},
		{"db.real." + testnet.Zone, dns.TypeA, "NOERROR " + testnet.APIAddr.String()},
		{"none." + testnet.Zone, dns.TypeA, "NXDOMAIN"},
		{"denied." + testnet.Zone, dns.TypeA, "NXDOMAIN"},
		{"www.example.com", dns.TypeA, "REFUSED"},
		{"x." + alone, dns.TypeA, "NOERROR 10.96.0.7"}, // no server answers for it; the fleet then gives its own address
	} {
		for _, network := range []string{"udp", "tcp"} {
			var got string
			answered := func() bool {
				m := ask(t, free[0], network, c.name, c.qtype)
				got = dns.RcodeToString[m.Rcode]
				for _, rr := range m.Answer {
					got += " " + rr.(*dns.A).A.String()
				}
				return got == c.want
			}
			// While a lookup lasts too long, the answer is late, and no other is accepted.
			begin := time.Now()
			for !answered() && got == late(c.name) && time.Since(begin) < 20*time.Second {
				t.Logf("%s over %s: a lookup lasts too long: %s", c.name, network, got)
			}
			if got != c.want {
				t.Errorf("%s %s over %s: %s, want %s", c.name, dns.TypeToString[c.qtype], network, got, c.want)
			}
		}
	}
	if n := w.cloud.Queries("denied." + testnet.Zone); n > 0 {
		t.Errorf("a denied name was looked up %d times", n)
	}
	// A zone that only Pando serves is not asked of the pod's resolver, which
	// would ask Pando; and what leads back to the fleet ends here.
	for host, want := range map[string]string{"x." + alone: "no resolver", "back." + testnet.Zone: "forbidden address"} {
		w.curl(t, "-x", "http://"+r.addr, "http://"+host+"/")
		if f := r.flows.find(t, host); !strings.Contains(fmt.Sprint(f["err"]), want) {
			t.Errorf("%s: flow line %v, want %s", host, f, want)
		}
	}
	if n := value(t, r, `pando_dns_answers_total{rcode="REFUSED"}`); n != 2 {
		t.Errorf("%v refusals were counted, want 2", n)
	}
}

// late is the answer for a name while its lookup lasts too long (docs/names.md).
func late(name string) string {
	if strings.HasSuffix(name, "real."+testnet.Zone) {
		return "SERVFAIL"
	}
	return "NOERROR 10.96.0.7"
}

func TestDNSRecords(t *testing.T) { userspace(t, sharedTailnet, dnsRecords) }

// dnsRecords checks that the answerer passes on records of other types, which it asks of
// the zone's resolver through the tunnel, once for all its clients.
func dnsRecords(t *testing.T, w *world) {
	free := testkit.FreePorts(t, 1)
	const zone = "records.example"
	zoneDNS, asked := w.dnsServer(func(_ string, q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		for _, s := range []string{
			"_pg._tcp." + zone + ". 60 SRV 1 2 5432 db." + zone + ".",
			"_pg._tcp.denied." + zone + ". 60 SRV 1 2 5432 denied." + zone + ".",
			"www." + zone + ". 60 HTTPS 1 . alpn=h2 ipv4hint=10.12.3.4",
			"www." + zone + ". 60 A 10.12.3.4",
			"alias." + zone + ". 60 CNAME denied." + zone + ".",
			zone + ". 60 SOA ns." + zone + ". admin." + zone + ". 77 1 2 3 4",
		} {
			rr, err := dns.NewRR(s)
			if err != nil {
				panic(err)
			}
			if kind := rr.Header().Rrtype; rr.Header().Name == q.Question[0].Name && (kind == q.Question[0].Qtype || kind == dns.TypeCNAME) {
				m.Answer = append(m.Answer, rr)
			}
		}
		return m
	})
	w.start(t, func(c *config.Config) {
		c.Listen.DNS = free[0]
		c.DNS.Fleet = []config.FleetHost{{Addr: netip.MustParseAddr("10.96.0.7")}}
		c.DNS.Zones = []config.ServedZone{{Suffix: zone}}
		c.Resolve.Zones = []config.Zone{{Suffix: zone, Servers: []string{zoneDNS}}}
		c.Policy.Rules = []config.Rule{{Names: []string{"denied." + zone}, Action: "deny"}}
	})
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"_pg._tcp." + zone, dns.TypeSRV, "NOERROR 1 2 5432 db." + zone + "."},
		{"_pg._tcp.denied." + zone, dns.TypeSRV, "NXDOMAIN"},
		{"www." + zone, dns.TypeHTTPS, `NOERROR 1 . alpn="h2"`},
		{"www." + zone, dns.TypeA, "NOERROR 10.96.0.7"},
		{"www." + zone, dns.TypeTXT, "NOERROR"},
		{"alias." + zone, dns.TypeTXT, "NXDOMAIN"},
		{zone, dns.TypeSOA, "NOERROR ns." + zone + ". admin." + zone + ". 77 1 2 3 4"},
		{zone, dns.TypeAXFR, "REFUSED"},
	} {
		var got string
		// While a lookup lasts too long, there is no answer yet: CoreDNS asks again, too.
		testkit.EventuallyOr(time.Minute, func() bool {
			got = "" // for TCP and UDP
			for _, network := range []string{"udp", "tcp"} {
				m := ask(t, free[0], network, c.name, c.qtype)
				text := dns.RcodeToString[m.Rcode]
				for _, rr := range m.Answer {
					text += " " + strings.TrimPrefix(rr.String(), rr.Header().String())
				}
				if text != c.want {
					got = network + ": " + text
				}
			}
			return got == ""
		}, func() { t.Errorf("%s %s over %s, want %s", c.name, dns.Type(c.qtype), got, c.want) })
	}
	for name, most := range map[string]int{"_pg._tcp." + zone: 2, "denied." + zone: 0, "_pg._tcp.denied." + zone: 0} {
		if n := asked.of(name); n > most {
			t.Errorf("the zone's resolver got %d queries for %s, want at most %d", n, name, most)
		}
	}
}

func TestNodesOfOtherTailnets(t *testing.T) { userspace(t, ownTailnet, nodesOfOtherTailnets) }

// nodesOfOtherTailnets checks flows to a node that another tailnet shares, and to nodes
// while MagicDNS is off, also by their first label.
func nodesOfOtherTailnets(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) { c.Tailnet.Hostname = "names" })
	cloud := w.cloud.Addrs()[0].String() + ":80"
	for _, c := range []struct {
		magic bool
		name  string   // that the cloud has
		hosts []string // by which it is found
	}{
		{true, "cloud.other.example", []string{"cloud.other.example", "CLOUD.other.example."}},
		{false, "cloud." + testnet.MagicSuffix, []string{"cloud." + testnet.MagicSuffix, "cloud"}},
	} {
		if err := w.net.SendNames("names", c.magic, map[string]string{"cloud": c.name}); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, "the name "+c.name, func() bool {
			d, _ := r.gw.Device().DNS()
			return len(d.Nodes[c.name]) > 0
		})
		for _, host := range c.hosts {
			if f := w.flowTo(t, r, host); f["source"] != "node" || f["addr"] != cloud {
				t.Errorf("%s: flow line %v, want source node and address %s", host, f, cloud)
			}
		}
	}
}

func TestNamesFollowTheNetmap(t *testing.T) { userspace(t, ownTailnet, namesFollow) }

// namesFollow checks that a new split-DNS route applies soon: earlier answers
// about its names are forgotten.
func namesFollow(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Tailnet.Hostname = "following"
		c.Resolve.MinTTL = config.Duration(time.Minute) // so an answer that changes sooner was forgotten
	})
	const name = "api.late.example"
	w.cloud.SetRecord(name, testnet.APIAddr)
	defer w.cloud.SetRecord(name)
	get := func() string {
		return w.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "-x", "http://"+r.addr, "http://"+name+"/")
	}
	if code := get(); code != "502" {
		t.Fatalf("before the route: %s", code)
	}
	routes := map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}, "late.example": {testnet.DNSAddr.String()}}
	if err := w.net.SendDNSRoutes("following", routes); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the engine to know the route", func() bool {
		d, _ := r.gw.Device().DNS()
		return len(d.Routes["late.example"]) == 1
	})
	start := time.Now()
	testkit.Eventually(t, "the name", func() bool { return get() == "200" })
	t.Logf("a new route applied %v after the engine knew", time.Since(start).Round(time.Millisecond))
}
