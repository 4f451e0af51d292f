package dnsclient

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestPeer asks a peer over HTTP, as the resolvers of app connectors are asked, and takes
// nothing but a reply to the question.
func TestPeer(t *testing.T) {
	const peer = "http://100.64.0.7:40001/dns-query"
	answer := func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(10, 1, 2, 3)}}
		return m
	}
	for _, c := range []struct {
		name   string
		serve  func(w http.ResponseWriter, q *dns.Msg)
		errHas string // empty means an answer
	}{
		{"answers", func(w http.ResponseWriter, q *dns.Msg) { write(w, answer(q)) }, ""},
		{"fails", func(w http.ResponseWriter, q *dns.Msg) { w.WriteHeader(http.StatusBadGateway) }, "502"},
		{"refuses", func(w http.ResponseWriter, q *dns.Msg) { write(w, new(dns.Msg).SetRcode(q, dns.RcodeRefused)) }, "REFUSED"},
		{"another_question", func(w http.ResponseWriter, q *dns.Msg) { q.Question[0].Name = "x."; write(w, answer(q)) }, "another question"},
		{"another_type", func(w http.ResponseWriter, q *dns.Msg) { io.WriteString(w, "<html>") }, "text/html"},
		{"redirects", func(w http.ResponseWriter, q *dns.Msg) {
			w.Header().Set("Location", "http://10.0.0.1/")
			w.WriteHeader(302)
		}, "302"},
		{"short", func(w http.ResponseWriter, q *dns.Msg) {
			w.Header().Set("Content-Type", messageType)
			w.Write([]byte{1, 2})
		}, "2 bytes"},
		{"too_long", func(w http.ResponseWriter, q *dns.Msg) {
			w.Header().Set("Content-Type", messageType)
			for range 100 {
				w.Write(make([]byte, 64<<10))
			}
		}, "another question"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				wire, _ := io.ReadAll(r.Body)
				q := new(dns.Msg)
				if err := q.Unpack(wire); err != nil || r.Method != "POST" || r.URL.Path != "/dns-query" || r.Header.Get("Content-Type") != messageType {
					t.Errorf("got %s %s with %v and %v, want a query in a POST", r.Method, r.URL, r.Header, err)
				}
				c.serve(w, q)
			}))
			defer srv.Close()
			dial := func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
				if network != "tcp" || addr != netip.MustParseAddrPort("100.64.0.7:40001") {
					t.Errorf("dialled %s %v, want the peer", network, addr)
				}
				var d net.Dialer
				return d.DialContext(ctx, "tcp", srv.Listener.Addr().String())
			}
			client := Client{Timeout: 30 * time.Second}
			q := new(dns.Msg).SetQuestion(dnsName, dns.TypeA)
			q.SetEdns0(UDPSize, false)
			reply, _, err := client.Ask(t.Context(), dial, []string{peer}, q)
			switch {
			case c.errHas == "" && (err != nil || len(reply.Answer) != 1):
				t.Errorf("Ask = %v, %v; want one answer", reply, err)
			case c.errHas != "" && (err == nil || !strings.Contains(err.Error(), c.errHas)):
				t.Errorf("Ask = %v, %v; want an error with %q", reply, err, c.errHas)
			}
		})
	}
}

func write(w http.ResponseWriter, m *dns.Msg) {
	wire, err := m.Pack()
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", messageType)
	w.Write(wire)
}

// TestServerAddr checks which resolvers can be asked. HTTP is for nodes of the tailnet
// alone: elsewhere others could read and change it.
func TestServerAddr(t *testing.T) {
	for s, want := range map[string]string{
		"10.12.0.2":                         "10.12.0.2:53",
		"10.12.0.2:5353":                    "10.12.0.2:5353",
		"fd00::1":                           "[fd00::1]:53",
		"[fd00::1]:5353":                    "[fd00::1]:5353",
		"http://100.64.0.7:40001/dns-query": "100.64.0.7:40001",
		"http://[fd7a:115c:a1e0::7]:40001/dns-query": "[fd7a:115c:a1e0::7]:40001",
		"http://100.64.0.7/dns-query":                "100.64.0.7:80",
		"http://10.12.0.2/dns-query":                 "",
		"http://dns.example/dns-query":               "",
		"http://100.64.0.7:x/":                       "",
		"https://100.64.0.7/dns-query":               "",
		"dns.example":                                "",
		"":                                           "",
	} {
		addr, err := ServerAddr(s)
		if want == "" && err == nil || want != "" && (err != nil || addr.String() != want) {
			t.Errorf("ServerAddr(%q) = %v, %v; want %q", s, addr, err, want)
		}
	}
}
