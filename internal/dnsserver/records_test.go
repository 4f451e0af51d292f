package dnsserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// zoneFile is what the resolver of the zones in TestRecords has.
const zoneFile = `
api.corp.example.         60 IN A     10.12.3.4
api.corp.example.         60 IN TXT   "v=1" "two strings"
api.corp.example.         60 IN CAA   0 issue "ca.example"
api.corp.example.         60 IN HTTPS 1 . mandatory=ipv4hint,alpn alpn=h2 ipv4hint=10.12.3.4 ipv6hint=fd00::4
api.corp.example.         60 IN TYPE65400 \# 3 010203
_pg._tcp.corp.example.    60 IN SRV   1 2 5432 api.corp.example.
corp.example.             60 IN MX    10 api.corp.example.
corp.example.             60 IN NS    ns.corp.example.
www.corp.example.         60 IN CNAME api.corp.example.
bad.corp.example.         60 IN CNAME denied.corp.example.
denied.corp.example.      60 IN TXT   "secret"
_pg._tcp.denied.corp.example. 60 IN SRV 1 2 5432 denied.corp.example.
corp.example.             60 IN SOA   ns.corp.example. admin.corp.example. 77 1 2 3 4
sub.corp.example.         60 IN SOA   ns.sub.corp.example. admin.corp.example. 5 1 2 3 4
away.corp.example.        60 IN CNAME txt.other.example.
gone.corp.example.        60 IN CNAME none.other.example.
bare.corp.example.        60 IN CNAME txt.other.example.
txt.other.example.        60 IN TXT   "of another zone"
loop.corp.example.        60 IN CNAME loop.corp.example.
table.corp.example.       60 IN TXT   "of the zone"
4.3.12.10.in-addr.arpa.   60 IN PTR   api.corp.example.
api.real.corp.example.     3 IN HTTPS 1 . alpn=h2 ipv4hint=10.12.3.4
long.real.corp.example.   60 IN TXT   "%s" "%s" "%s"
`

// startZone starts the resolver of zoneFile, over UDP and TCP. It fails for names that
// begin with broken.
func startZone(t *testing.T) string {
	t.Helper()
	long := strings.Repeat("x", 250)
	var rrs []dns.RR
	for p := dns.NewZoneParser(strings.NewReader(fmt.Sprintf(zoneFile, long, long, long)), "", ""); ; {
		rr, ok := p.Next()
		if !ok {
			if err := p.Err(); err != nil {
				t.Fatal(err)
			}
			break
		}
		rrs = append(rrs, rr)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Rcode = dns.RcodeNameError
		name := strings.ToLower(q.Question[0].Name)
		if strings.HasPrefix(name, "broken.") {
			m.Rcode = dns.RcodeServerFailure
		}
		for _, rr := range rrs {
			if rr.Header().Name != name {
				continue
			}
			m.Rcode = dns.RcodeSuccess
			if rr.Header().Rrtype == q.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME {
				m.Answer = append(m.Answer, dns.Copy(rr))
			}
		}
		w.WriteMsg(m)
	})
	pc, ln, err := Listen(t.Context(), net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: ln, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return ln.Addr().String()
}

// startRecords starts a server of zones whose names a real resolver looks up.
func startRecords(t *testing.T) string {
	t.Helper()
	addr := startZone(t)
	zone := resolve.Zone{Servers: []string{addr}, Direct: true}
	r := resolve.New(resolve.Options{
		Zones: map[string]resolve.Zone{"corp.example": zone, "12.10.in-addr.arpa": zone, "other.example": zone},
		Hosts: map[string][]netip.Addr{
			"table.corp.example":   {netip.MustParseAddr("10.0.0.9")},
			"*.table.corp.example": {netip.MustParseAddr("10.0.0.9")},
		},
	})
	judge := func(alias string) error {
		if strings.HasPrefix(alias, "denied.") {
			return &flow.Error{Class: flow.Denied}
		}
		return nil
	}
	s := server()
	s.Zones = append(s.Zones, Zone{Suffix: "12.10.in-addr.arpa"})
	s.TTL = 30 * time.Second
	s.Lookup = func(ctx context.Context, client netip.Addr, name string) ([]netip.Addr, time.Duration, error) {
		a, err := r.LookupJudged(ctx, client, host.Host{Name: name}, judge)
		return a.Addrs, a.TTL, err
	}
	s.Records = func(ctx context.Context, client netip.Addr, name string, qtype uint16) ([]dns.RR, bool, error) {
		return r.Records(ctx, client, name, qtype, judge)
	}
	served, _ := serve(t, s)
	return served
}

// TestRecords checks that each type of record is answered as the resolver of the zone
// answers, but for the addresses of the fleet.
func TestRecords(t *testing.T) {
	addr := startRecords(t)
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string // the code, and the records without name, TTL, class and type
	}{
		{"api.corp.example.", dns.TypeA, "NOERROR 10.96.0.7"},
		{"api.corp.example.", dns.TypeTXT, `NOERROR "v=1" "two strings"`},
		{"api.corp.example.", dns.TypeCAA, `NOERROR 0 issue "ca.example"`},
		{"api.corp.example.", dns.TypeHTTPS, `NOERROR 1 . mandatory="alpn" alpn="h2"`},
		{"api.corp.example.", 65400, "NOERROR api.corp.example.\t30\tCLASS1\tTYPE65400\t\\# 3 010203"}, // an unknown type is printed whole
		{"api.corp.example.", dns.TypeSRV, "NOERROR"},                                                  // it has none
		{"api.corp.example.", dns.TypeCNAME, "NOERROR"},
		{"_pg._tcp.corp.example.", dns.TypeSRV, "NOERROR 1 2 5432 api.corp.example."},
		{"corp.example.", dns.TypeMX, "NOERROR 10 api.corp.example."},
		{"corp.example.", dns.TypeNS, "NOERROR ns.corp.example."},
		{"corp.example.", dns.TypeTXT, "NOERROR"},
		{"www.corp.example.", dns.TypeCNAME, "NOERROR api.corp.example."},
		{"www.corp.example.", dns.TypeTXT, `NOERROR api.corp.example. "v=1" "two strings"`},
		{"away.corp.example.", dns.TypeTXT, `NOERROR txt.other.example. "of another zone"`},
		{"gone.corp.example.", dns.TypeTXT, "NXDOMAIN none.other.example."}, // RFC 6604
		{"bare.corp.example.", dns.TypeMX, "NOERROR txt.other.example."},
		{"loop.corp.example.", dns.TypeTXT, "NOERROR loop.corp.example."},
		{"bad.corp.example.", dns.TypeCNAME, "NXDOMAIN"},
		{"table.corp.example.", dns.TypeTXT, `NOERROR "of the zone"`},
		{"wild.table.corp.example.", dns.TypeTXT, "NOERROR"}, // only the table has the name
		{"wild.table.corp.example.", dns.TypeA, "NOERROR 10.96.0.7"},
		{"_pg._tcp.denied.corp.example.", dns.TypeSRV, "NXDOMAIN"},
		{"corp.example.", dns.TypeSOA, "NOERROR ns.corp.example. admin.corp.example. 77 1 2 3 4"},
		{"real.corp.example.", dns.TypeSOA, "NOERROR pando.real.corp.example. hostmaster.real.corp.example. 1 3600 600 86400 30"}, // it has none
		{"sub.corp.example.", dns.TypeSOA, "NOERROR ns.sub.corp.example. admin.corp.example. 5 1 2 3 4"},
		{"WwW.Corp.eXample.", dns.TypeCNAME, "NOERROR api.corp.example."},
		{"4.3.12.10.in-addr.arpa.", dns.TypePTR, "NOERROR api.corp.example."},
		{"api.real.corp.example.", dns.TypeHTTPS, `NOERROR 1 . alpn="h2" ipv4hint="10.12.3.4"`},
		{"none.corp.example.", dns.TypeTXT, "NXDOMAIN"},
		{"denied.corp.example.", dns.TypeTXT, "NXDOMAIN"},
		{"bad.corp.example.", dns.TypeTXT, "NXDOMAIN"},
		{"broken.corp.example.", dns.TypeSRV, "SERVFAIL"},
		{"broken.corp.example.", dns.TypeA, "NOERROR 10.96.0.7"},
		{"api.corp.example.", dns.TypeANY, `NOERROR "RFC8482" ""`},
		{"corp.example.", dns.TypeAXFR, "REFUSED"},
		{"other.example.", dns.TypeTXT, "REFUSED"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(fmt.Sprintf("%s%s/%s", c.name, dns.Type(c.qtype), network), func(t *testing.T) {
				q := new(dns.Msg).SetQuestion(c.name, c.qtype)
				q.SetEdns0(1232, true)
				q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(192, 0, 2, 0)}}
				m, _, err := (&dns.Client{Net: network, Timeout: 30 * time.Second}).ExchangeContext(t.Context(), q, addr)
				if err != nil {
					t.Fatal(err)
				}
				got := []string{dns.RcodeToString[m.Rcode]}
				for i, rr := range m.Answer {
					got = append(got, strings.TrimSpace(strings.TrimPrefix(rr.String(), rr.Header().String())))
					if i == 0 && rr.Header().Name != c.name {
						t.Errorf("a record of %s, want the spelling of the query, %s", rr.Header().Name, c.name)
					}
					if ttl := rr.Header().Ttl; c.qtype != dns.TypeANY && (ttl < 1 || ttl > 30) {
						t.Errorf("TTL %d, want at most that of the server", ttl)
					}
				}
				if text := strings.Join(got, " "); text != c.want {
					t.Errorf("got  %s\nwant %s", text, c.want)
				}
				if m.Question[0].Name != c.name || m.AuthenticatedData || m.IsEdns0() == nil || !m.IsEdns0().Do() || len(m.IsEdns0().Option) > 0 && m.Rcode == dns.RcodeSuccess {
					t.Errorf("the reply has question %v, AD %v and %v; want the query's spelling, no AD, and EDNS with DO and without a subnet", m.Question, m.AuthenticatedData, m.IsEdns0())
				}
			})
		}
	}
}

// TestLongRecords checks that records that do not fit in a datagram are truncated, and
// whole over TCP.
func TestLongRecords(t *testing.T) {
	addr := startRecords(t)
	for network, whole := range map[string]bool{"udp": false, "tcp": true} {
		q := new(dns.Msg).SetQuestion("long.real.corp.example.", dns.TypeTXT)
		m, _, err := (&dns.Client{Net: network, Timeout: 30 * time.Second}).ExchangeContext(t.Context(), q, addr)
		if err != nil || m.Truncated == whole || (len(m.Answer) == 1) != whole {
			t.Errorf("750 bytes over %s: %v, %v; want all of them: %v", network, m, err, whole)
		}
	}
}

// TestOddQueries sends what no resolver sends. The server answers with the right code, or
// not at all, and answers the next query.
func TestOddQueries(t *testing.T) {
	addr := startRecords(t)
	question := dns.Question{Name: "api.corp.example.", Qtype: dns.TypeA, Qclass: dns.ClassINET}
	for _, c := range []struct {
		name   string
		change func(*dns.Msg)
		want   string // "" means no answer
	}{
		{"two_questions", func(m *dns.Msg) { m.Question = []dns.Question{question, question} }, "FORMERR"},
		{"no_question", func(m *dns.Msg) { m.Question = nil }, "FORMERR"},
		{"chaos", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "REFUSED"},
		{"any_class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }, "REFUSED"},
		{"notify", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, "NOTIMP"},
		{"update", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, "NOTIMP"},
		{"status", func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }, "NOTIMP"},
		{"a_response", func(m *dns.Msg) { m.Response = true }, ""},
		{"edns_1", func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, "BADVERS"},
		{"two_opt_records", func(m *dns.Msg) { m.SetEdns0(1232, false); m.Extra = append(m.Extra, m.Extra[0]) }, "FORMERR"},
		{"small_buffer", func(m *dns.Msg) { m.SetEdns0(1, false) }, "NOERROR"},
		{"well", func(*dns.Msg) {}, "NOERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := new(dns.Msg)
			q.Id = dns.Id()
			q.Question = []dns.Question{question}
			c.change(q)
			wire, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			probe, err := new(dns.Msg).SetQuestion("api.corp.example.", dns.TypeTXT).Pack() // its answer comes after the one that must not come
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			conn.Write(wire)
			if c.want == "" {
				conn.Write(probe)
			}
			m, err := (&dns.Conn{Conn: conn}).ReadMsg()
			if err != nil {
				t.Fatal(err)
			}
			rcode := dns.RcodeToString[m.Rcode]
			if m.Rcode == dns.RcodeBadVers {
				rcode = "BADVERS"
			}
			switch {
			case c.want == "" && m.Id == q.Id:
				t.Errorf("got an answer, %s, want none", rcode)
			case c.want != "" && (m.Id != q.Id || rcode != c.want):
				t.Errorf("got %s, want %s", rcode, c.want)
			}
		})
	}
}

// TestThroughFleet checks that a record of type HTTPS keeps all but what leads past the
// fleet.
func TestThroughFleet(t *testing.T) {
	for in, want := range map[string]string{
		"1 . alpn=h2,h3 port=8443 ipv4hint=10.0.0.1":  `1 . alpn="h2,h3" port="8443"`,
		"1 . mandatory=ipv6hint ipv6hint=fd00::1":     `1 .`,
		"1 . alpn=h2 ech=AEX+DQ==":                    `1 . alpn="h2"`,
		"1 . mandatory=ech,alpn alpn=h2 ech=AEX+DQ==": `1 . mandatory="alpn" alpn="h2"`,
		"0 other.example.":                            `0 other.example.`,
	} {
		for _, kind := range []string{"HTTPS", "SVCB"} {
			rr, err := dns.NewRR("x. 60 IN " + kind + " " + in)
			if err != nil {
				t.Fatal(err)
			}
			rr = throughFleet(rr)
			if got := strings.TrimSpace(strings.TrimPrefix(rr.String(), rr.Header().String())); got != want {
				t.Errorf("%s %s: got %s, want %s", kind, in, got, want)
			}
		}
	}
}
