package dnsserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/flow"
)

// server serves corp.example with the fleet's address and real.corp.example with
// the real addresses. Its Lookup knows names that stand for one case each. A test
// of package gateway uses a real resolver.
func server() *Server {
	return &Server{
		Zones: []Zone{{Suffix: "corp.example", Fleet: true}, {Suffix: "real.corp.example"}},
		Addrs: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.96.0.7")}, nil },
		Lookup: func(ctx context.Context, _ netip.Addr, name string) ([]netip.Addr, time.Duration, error) {
			first, _, _ := strings.Cut(name, ".")
			switch first {
			case "api", "denied":
				return []netip.Addr{netip.MustParseAddr("10.12.3.4"), netip.MustParseAddr("fd00::4")}, time.Minute, nil
			case "brief":
				return []netip.Addr{netip.MustParseAddr("10.12.3.4")}, 2 * time.Second, nil
			case "mail":
				return nil, 0, &flow.Error{Class: flow.NotFound, Err: flow.ErrNoAddress}
			case "silent":
				<-ctx.Done()
				return nil, 0, &flow.Error{Class: flow.Timeout, Err: ctx.Err()}
			case "broken":
				return nil, 0, &flow.Error{Class: flow.Timeout, Hint: "the resolvers did not answer"}
			}
			return nil, 0, &flow.Error{Class: flow.NotFound}
		},
		Records: func(context.Context, netip.Addr, string, uint16) ([]dns.RR, bool, error) { return nil, true, nil },
		Denied:  func(name string) bool { return strings.HasPrefix(name, "denied.") },
		Log:     slog.New(slog.DiscardHandler),
	}
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		name, ask string
		qtype     uint16
		rcode     int
		want      []string
		ttl       uint32
	}{
		{"fleet", "API.Corp.Example.", dns.TypeA, dns.RcodeSuccess, []string{"10.96.0.7"}, 5},
		{"no_ipv6_of_the_fleet", "api.corp.example.", dns.TypeAAAA, dns.RcodeSuccess, nil, 0},
		{"fleet_when_it_cannot_be_told", "broken.corp.example.", dns.TypeA, dns.RcodeSuccess, []string{"10.96.0.7"}, 5},
		{"real", "api.real.corp.example.", dns.TypeA, dns.RcodeSuccess, []string{"10.12.3.4"}, 5},
		{"real_ipv6", "api.real.corp.example.", dns.TypeAAAA, dns.RcodeSuccess, []string{"fd00::4"}, 5},
		{"no_longer_than_it_is_good", "brief.real.corp.example.", dns.TypeA, dns.RcodeSuccess, []string{"10.12.3.4"}, 2},
		{"real_when_it_cannot_be_told", "broken.real.corp.example.", dns.TypeA, dns.RcodeServerFailure, nil, 0},
		{"no_address", "mail.corp.example.", dns.TypeA, dns.RcodeSuccess, nil, 0},
		{"no_address_of_the_real", "mail.real.corp.example.", dns.TypeA, dns.RcodeSuccess, nil, 0},
		{"no_such_name", "none.corp.example.", dns.TypeA, dns.RcodeNameError, nil, 0},
		{"denied_to_every_client", "denied.corp.example.", dns.TypeA, dns.RcodeNameError, nil, 0},
		{"other_type", "api.corp.example.", dns.TypeHTTPS, dns.RcodeSuccess, nil, 0},
		{"the_zone_itself", "corp.example.", dns.TypeA, dns.RcodeSuccess, nil, 0},
		{"other_zone", "example.", dns.TypeA, dns.RcodeRefused, nil, 0},
		{"name_that_ends_alike", "notcorp.example.", dns.TypeA, dns.RcodeRefused, nil, 0},
		{"dot_within_a_label", `api\.corp.example.`, dns.TypeA, dns.RcodeRefused, nil, 0},
		{"root", ".", dns.TypeNS, dns.RcodeRefused, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := new(dns.Msg).SetQuestion(c.ask, c.qtype)
			q.SetEdns0(1232, false)
			m := server().Answer(t.Context(), netip.Addr{}, q)
			var got []string
			for _, rr := range m.Answer {
				if h := rr.Header(); h.Name != c.ask || h.Ttl != c.ttl {
					t.Errorf("got record %v, want name %s and TTL %d", rr, c.ask, c.ttl)
				}
				switch rr := rr.(type) {
				case *dns.A:
					got = append(got, rr.A.String())
				case *dns.AAAA:
					got = append(got, rr.AAAA.String())
				}
			}
			if m.Rcode != c.rcode || !slices.Equal(got, c.want) || m.Id != q.Id {
				t.Errorf("got %s %v, want %s %v", dns.RcodeToString[m.Rcode], got, dns.RcodeToString[c.rcode], c.want)
			}
			negative := m.Rcode == dns.RcodeNameError || m.Rcode == dns.RcodeSuccess && len(m.Answer) == 0
			if negative != (len(m.Ns) == 1) || m.Authoritative == (c.rcode == dns.RcodeRefused) {
				t.Errorf("got SOA records %v, authoritative %v, want an SOA record for negative answers alone, and authoritative for served zones", m.Ns, m.Authoritative)
			}
		})
	}
	for _, c := range []struct {
		name   string
		change func(*dns.Msg)
		rcode  int
	}{
		{"update", func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		{"no_question", func(q *dns.Msg) { q.Question = nil }, dns.RcodeFormatError},
		{"chaos", func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		{"edns_1", func(q *dns.Msg) { q.SetEdns0(1232, false); q.IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
	} {
		q := new(dns.Msg).SetQuestion("api.corp.example.", dns.TypeA)
		c.change(q)
		if m := server().Answer(t.Context(), netip.Addr{}, q); m.Rcode != c.rcode || len(m.Answer) > 0 {
			t.Errorf("%s: got code %s with %d records, want %s with none", c.name, dns.RcodeToString[m.Rcode], len(m.Answer), dns.RcodeToString[c.rcode])
		}
	}
	s := server()
	s.Addrs = func() ([]netip.Addr, error) { return nil, errors.New("not known") }
	if m := s.Answer(t.Context(), netip.Addr{}, new(dns.Msg).SetQuestion("api.corp.example.", dns.TypeA)); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("Answer while the fleet's address is unknown = %v, want SERVFAIL", m)
	}
}

func TestServe(t *testing.T) {
	s := server()
	s.Lookup = func(context.Context, netip.Addr, string) (list []netip.Addr, _ time.Duration, _ error) { // more than UDP takes
		for i := range 200 {
			list = append(list, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
		}
		return list, time.Minute, nil
	}
	addr, stop := serve(t, s)
	for network, whole := range map[string]bool{"udp": false, "tcp": true} {
		q := new(dns.Msg).SetQuestion("api.real.corp.example.", dns.TypeA)
		m, _, err := (&dns.Client{Net: network, UDPSize: 512}).ExchangeContext(t.Context(), q, addr)
		if err != nil || m.Truncated == whole || (len(m.Answer) == 200) != whole {
			t.Errorf("200 addresses over %s: %v, %v, want all of them: %v", network, m, err, whole)
		}
	}
	stop()
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the server listens after it has stopped, want no connection")
	}
}

// serve runs s on loopback until stop is called, or until the test ends.
func serve(t *testing.T, s *Server) (addr string, stop func()) {
	t.Helper()
	pc, ln, err := Listen(t.Context(), net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, []net.PacketConn{pc}, []net.Listener{ln}) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// TestCountsAnswers checks that every answer is counted by its code, also the
// answers that the library gives.
func TestCountsAnswers(t *testing.T) {
	s := server()
	codes := make(chan string, 1)
	s.Answered = func(rcode string) { codes <- rcode }
	addr, _ := serve(t, s)
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	query := func(change func(*dns.Msg)) []byte {
		q := new(dns.Msg).SetQuestion("api.corp.example.", dns.TypeA)
		change(q)
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	whole := query(func(*dns.Msg) {})
	for _, q := range []struct {
		want string
		code int
		b    []byte
	}{
		{"NOERROR", dns.RcodeSuccess, whole},
		{"REFUSED", dns.RcodeRefused, query(func(q *dns.Msg) { q.Question[0].Name = "example.com." })},
		{"BADVERS", dns.RcodeBadVers, query(func(q *dns.Msg) { q.SetEdns0(1232, false).IsEdns0().SetVersion(1) })},
		{"FORMERR", dns.RcodeFormatError, query(func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) })},
		{"FORMERR", dns.RcodeFormatError, whole[:len(whole)-3]},
		{"NOTIMP", dns.RcodeNotImplemented, query(func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate })},
	} {
		c.Write(q.b)
		b := make([]byte, 512)
		n, err := c.Read(b)
		m := new(dns.Msg)
		if err != nil || m.Unpack(b[:n]) != nil {
			t.Fatalf("got answer %q, %v, want one with code %s", b[:n], err, q.want)
		}
		if got := <-codes; got != q.want || m.Rcode != q.code {
			t.Errorf("counted as %s with answer %v, want %s", got, m, q.want)
		}
	}
}

// TestRefusedLookups checks that Begin admits each lookup by client and zone, over
// UDP and TCP, that its end is called, and what a refused query gets.
func TestRefusedLookups(t *testing.T) {
	s := server()
	var mu sync.Mutex
	var begun []string
	ended := 0
	s.Begin = func(client netip.Addr, zone string) (func(), error) {
		mu.Lock()
		defer mu.Unlock()
		begun = append(begun, client.String()+" "+zone)
		if len(begun) > 2 {
			return nil, &flow.Error{Class: flow.Overloaded, Hint: "try again"}
		}
		return func() {
			mu.Lock()
			defer mu.Unlock()
			ended++
		}, nil
	}
	addr, _ := serve(t, s)
	for _, c := range []struct {
		network, ask string
		rcode        int
		want         string // the address, or the reason
	}{
		{"udp", "api.real.corp.example.", dns.RcodeSuccess, "10.12.3.4"},
		{"tcp", "api.corp.example.", dns.RcodeSuccess, "10.96.0.7"},
		{"udp", "api.corp.example.", dns.RcodeSuccess, "10.96.0.7"}, // the fleet says what is wrong
		{"udp", "api.real.corp.example.", dns.RcodeServerFailure, "try again"},
		{"udp", "denied.corp.example.", dns.RcodeNameError, ""}, // needs no lookup
	} {
		q := new(dns.Msg).SetQuestion(c.ask, dns.TypeA)
		q.SetEdns0(1232, false)
		m, _, err := (&dns.Client{Net: c.network, Timeout: 20 * time.Second}).ExchangeContext(t.Context(), q, addr)
		if err != nil || m.Rcode != c.rcode || !strings.Contains(m.String(), c.want) {
			t.Errorf("%s over %s: %v, %v, want code %s and %q", c.ask, c.network, m, err, dns.RcodeToString[c.rcode], c.want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	want := []string{"127.0.0.1 real.corp.example", "127.0.0.1 corp.example", "127.0.0.1 corp.example", "127.0.0.1 real.corp.example"}
	if !slices.Equal(begun, want) || ended != 2 {
		t.Errorf("begun %q, %d of them ended, want %q, and 2", begun, ended, want)
	}
}

// TestPanicEndsOneAnswer checks that a panic is reported with its stack, that its query
// gets no answer, and that the server answers the next ones.
func TestPanicEndsOneAnswer(t *testing.T) {
	var reported []error
	s := server()
	s.Panicked = func(err error) { reported = append(reported, err) }
	known := s.Lookup
	s.Lookup = func(ctx context.Context, client netip.Addr, name string) ([]netip.Addr, time.Duration, error) {
		if strings.HasPrefix(name, "boom.") {
			panic("boom in the lookup")
		}
		return known(ctx, client, name)
	}
	for i := range 3 {
		w := &sent{local: &net.UDPAddr{}}
		s.serve(t.Context(), w, new(dns.Msg).SetQuestion("boom.corp.example.", dns.TypeA))
		if w.m != nil || len(reported) != i+1 {
			t.Fatalf("after %d panics: answer %v, %d reported", i+1, w.m, len(reported))
		}
		if p, ok := errors.AsType[*flow.Panic](reported[i]); !ok || !strings.Contains(p.Stack, "Answer") {
			t.Errorf("reported %v, want a panic with its stack", reported[i])
		}
		w = &sent{local: &net.UDPAddr{}}
		s.serve(t.Context(), w, new(dns.Msg).SetQuestion("api.corp.example.", dns.TypeA))
		if w.m == nil || len(w.m.Answer) != 1 {
			t.Errorf("after a panic: answer %v, want the fleet's address", w.m)
		}
	}
}

// FuzzAnswer checks that each query gets an answer that can be sent, and that
// only served zones have records.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"api.corp.example.", "x.real.corp.example.", "."} {
		b, _ := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		f.Add(b)
	}
	s := server()
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		m := s.Answer(t.Context(), netip.Addr{}, q)
		if m.Id != q.Id || !m.Response {
			t.Fatalf("got %v, want an answer to %v", m, q)
		}
		if len(m.Answer) > 0 && !dns.IsSubDomain("corp.example.", strings.ToLower(m.Answer[0].Header().Name)) {
			t.Fatalf("got records of a zone that is not served: %v", m)
		}
		if _, err := m.Pack(); err != nil {
			t.Fatalf("the answer cannot be packed: %v", err)
		}
	})
}

// sent is a client over some network. It keeps its answer.
type sent struct {
	dns.ResponseWriter
	local net.Addr
	m     *dns.Msg
}

func (w *sent) LocalAddr() net.Addr       { return w.local }
func (w *sent) RemoteAddr() net.Addr      { return w.local }
func (w *sent) WriteMsg(m *dns.Msg) error { w.m = m; return nil }

// FuzzServe checks that no answer is larger than its client accepts.
func FuzzServe(f *testing.F) {
	for _, name := range []string{"api.real.corp.example.", "none.corp.example.", "."} {
		for _, size := range []uint16{0, 1, 1232, 65535} {
			q := new(dns.Msg).SetQuestion(name, dns.TypeA)
			if size > 0 {
				q.SetEdns0(size, true)
			}
			b, _ := q.Pack()
			f.Add(b)
		}
	}
	s := server()
	known := s.Lookup
	s.Lookup = func(ctx context.Context, client netip.Addr, name string) (list []netip.Addr, ttl time.Duration, err error) {
		if !strings.HasPrefix(name, "api.") {
			return known(ctx, client, name)
		}
		for i := range 200 { // more than UDP takes
			list = append(list, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
		}
		return list, time.Minute, nil
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		takes := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			takes = max(takes, int(o.UDPSize()))
		}
		for _, c := range []struct {
			local net.Addr
			takes int
		}{{&net.UDPAddr{}, takes}, {&net.TCPAddr{}, dns.MaxMsgSize}} {
			w := &sent{local: c.local}
			s.serve(t.Context(), w, q)
			if w.m == nil || w.m.Id != q.Id {
				t.Fatalf("over %s: got %v, want an answer to %v", c.local.Network(), w.m, q)
			}
			if packed, err := w.m.Pack(); err != nil || len(packed) > c.takes {
				t.Fatalf("over %s: got %d bytes, %v, want at most %d", c.local.Network(), len(packed), err, c.takes)
			}
		}
	})
}
