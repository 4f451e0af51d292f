package mux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/testkit"
)

var (
	everyone = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	nobody   = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
)

// header1 is a header of version 1 of a client.
const header1 = "PROXY TCP4 192.0.2.7 192.0.2.1 4000 1055\r\n"

// local2 is a header of version 2 of a sender that speaks for itself.
const local2 = header2 + "\x20\x00\x00\x00"

// TestHeaderNamesTheClient checks that the client of a header is the client for the
// limits and for the front, and that the front gets the connection as if there had been
// no header, without a wrapper.
func TestHeaderNamesTheClient(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	note := func(what string, client netip.Addr) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, what+" "+client.String())
	}
	s := listen(t)
	s.EnterSender = func(sender netip.Addr) (func(), error) {
		note("sender", sender)
		return func() { note("named", sender) }, nil
	}
	s.Pace = func(client netip.Addr) (time.Duration, error) {
		note("pace", client)
		return 0, nil
	}
	s.Enter = func(client netip.Addr) error {
		note("enter", client)
		return nil
	}
	s.Leave = func(client netip.Addr) { note("leave", client) }
	s.serveAs(t, Role{Senders: everyone})
	for _, c := range []struct{ name, header, client string }{
		{"v1", header1, "192.0.2.7:4000"},
		{"v2", header2 + "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\x0f\xa0\x04\x1f", "192.0.2.7:4000"},
		{"local", local2, "127.0.0.1"},
		{"loopback_of_loopback", "PROXY TCP4 127.0.0.2 127.0.0.1 4000 1055\r\n", "127.0.0.2:4000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mu.Lock()
			asked = nil
			mu.Unlock()
			client := s.dial(t, []byte(c.header))
			client.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			h := <-s.taken
			if got := socket.ClientAddr(h.c); h.to != protoHTTP || !strings.HasPrefix(got.String(), c.client) {
				t.Errorf("front %v got client %v, want http, %s", h.to, got, c.client)
			}
			b := make([]byte, 18)
			if _, err := io.ReadFull(h.c, b); err != nil || string(b) != "GET / HTTP/1.1\r\n\r\n" {
				t.Errorf("the front reads %q, %v; want what follows the header", b, err)
			}
			await := func(want string) {
				t.Helper()
				testkit.Eventually(t, want, func() bool {
					mu.Lock()
					defer mu.Unlock()
					return fmt.Sprint(asked) == want
				})
			}
			addr := strings.TrimSuffix(c.client, ":4000")
			await(fmt.Sprintf("[sender 127.0.0.1 pace %[1]s enter %[1]s named 127.0.0.1]", addr))
			s.release <- struct{}{}
			await(fmt.Sprintf("[sender 127.0.0.1 pace %[1]s enter %[1]s named 127.0.0.1 leave %[1]s]", addr))
			if got := socket.ClientAddr(h.c); got.Addr().String() == "192.0.2.7" {
				t.Errorf("the connection is still introduced as %v", got)
			}
		})
	}
}

// TestLoopbackOfOthers checks that a sender on another host cannot name a process of
// this one.
func TestLoopbackOfOthers(t *testing.T) {
	for header, want := range map[string]string{
		"PROXY TCP4 127.0.0.1 192.0.2.1 4000 1055\r\n": "127.0.0.1",
		"PROXY TCP6 ::1 2001:db8::1 4000 1055\r\n":     "127.0.0.1",
		header1: "192.0.2.7",
	} {
		client, server := testkit.TCPPair(t)
		io.WriteString(client, header)
		m := &Mux{}
		if err := m.readHeader(server, netip.MustParseAddr("10.0.0.9")); err != nil {
			t.Fatal(err)
		}
		// Without an introduction, the client is the other end of this connection.
		if got := socket.ClientAddr(server); got.Addr().String() != want || want == "127.0.0.1" && got.Port() == 4000 {
			t.Errorf("%q: the client is %v, want %s", header, got, want)
		}
		socket.Forget(server)
	}
}

// TestHeaders checks which senders are refused, and that a refusal is in the client's own protocol.
func TestHeaders(t *testing.T) {
	const (
		get        = "GET / HTTP/1.1\r\n\r\n"
		untrusted  = "only from addresses in listen.proxyProtocol"
		missing    = "must begin with a PROXY header"
		invalidOne = "the PROXY header of the load balancer is invalid"
	)
	for _, c := range []struct {
		name    string
		senders []netip.Prefix
		send    []string // in packets
		want    string   // what the client reads; empty means a reset
		hint    string   // in the refusal; empty means that a front serves the client
	}{
		{"untrusted_v1", nobody, []string{header1 + get}, "http: ", untrusted},
		{"untrusted_v1_socks5", nobody, []string{header1 + "\x05\x01\x00"}, "socks5: ", untrusted},
		{"untrusted_v1_tls", nobody, []string{header1, "\x16\x03\x01"}, "", untrusted},
		{"untrusted_v1_alone", nobody, []string{header1}, "", untrusted},
		{"untrusted_v2", nobody, []string{local2 + get}, "http: ", untrusted},
		{"not_set_up", nil, []string{header1 + get}, "http: ", untrusted},
		{"not_set_up_in_packets", nil, []string{"PR", "OXY", " TCP4 192.0.2.7 192.0.2.1", " 4000 1055\r", "\n", get}, "http: ", untrusted},
		{"not_set_up_v2_in_packets", nil, []string{"\r", "\n\r\n\x00\r", "\nQUIT\n\x20", "\x00\x00", "\x00GET / HTTP/1.1\r\n"}, "http: ", untrusted},
		{"not_set_up_malformed", nil, []string{"PROXY TCP4 x\r\n" + get}, "http: ", untrusted},
		{"a_method_with_P", nil, []string{"P", "OST / HTTP/1.1\r\n"}, "", ""},
		{"a_method_with_PROX", nil, []string{"PROX", "IMATE / HTTP/1.1\r\n"}, "", ""},
		{"an_empty_line", nil, []string{"\r\n", "GET / HTTP/1.1\r\n"}, "", ""},

		{"missing", everyone, []string{get}, "http: ", missing},
		{"missing_P", everyone, []string{"P", "UT / HTTP/1.1\r\n"}, "http: ", missing},
		{"missing_socks5", everyone, []string{"\x05\x01\x00"}, "socks5: ", missing},
		{"missing_tls", everyone, []string{"\x16\x03\x01"}, "", missing},
		{"malformed", everyone, []string{"PROXY TCP4 x y 1 2\r\n" + get}, "http: ", invalidOne},
		{"malformed_v2", everyone, []string{header2 + "\x21\x11\x00\x01x\x05\x01\x00"}, "socks5: ", invalidOne},
		{"endless", everyone, []string{"PROXY " + strings.Repeat("x", 200)}, "", invalidOne},
		{"twice", everyone, []string{header1 + header1 + get}, "http: ", untrusted},
		{"in_packets", everyone, []string{"PROX", "Y TCP4 192.0.2.7 192.0.2.1 4000", " 1055\r", "\n\x05", "\x01\x00"}, "", ""},
		{"v2_in_packets", everyone, []string{"\r\n\r", "\n\x00\r\nQUIT\n", "\x20\x00\x00", "\x00\x05", "\x01\x00"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := listen(t)
			s.HTTP = &explaining{&front{s, protoHTTP}}
			s.SOCKS5 = &explaining{&front{s, protoSOCKS5}}
			s.serveAs(t, Role{Senders: c.senders})
			client := s.dial(t, nil)
			client.SetNoDelay(true)
			for _, part := range c.send {
				client.Write([]byte(part))
			}
			if c.hint == "" {
				h := <-s.taken
				io.WriteString(h.c, "served")
				if b, err := io.ReadAll(io.LimitReader(client, 6)); string(b) != "served" {
					t.Errorf("the client reads %q, %v; want to be served", b, err)
				}
				return
			}
			b, err := io.ReadAll(client)
			if c.want == "" {
				if !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
					t.Errorf("the client reads %q, %v; want %v", b, err, syscall.ECONNRESET)
				}
				testkit.Eventually(t, "the log to give the hint", func() bool { return strings.Contains(s.log.String(), c.hint) })
				return
			}
			if err != nil || !strings.HasPrefix(string(b), c.want) || !strings.Contains(string(b), c.hint) {
				t.Errorf("the client reads %q, %v; want %q with the hint %q", b, err, c.want, c.hint)
			}
			if log := s.log.String(); strings.Contains(log, "refused") {
				t.Errorf("the log is %q, want nothing: the front logs the refusal", log)
			}
		})
	}
}

// explaining is a front that refuses with the hint.
type explaining struct{ *front }

func (f *explaining) Refuse(c *net.TCPConn, why error) {
	f.front.Refuse(c, errors.New(flow.HintOf(why)))
}

// TestHeadersOfFronts checks listeners that have a front of their own, also one whose
// targets speak first.
func TestHeadersOfFronts(t *testing.T) {
	for _, targetFirst := range []bool{false, true} {
		s := listen(t)
		s.serveAs(t, Role{
			Front:       &explaining{&front{s, protoTLS}},
			TargetFirst: targetFirst,
			Senders:     everyone,
		})
		s.dial(t, []byte(header1))
		if !targetFirst {
			s.dial(t, []byte(header1+"x")) // the first one waits for a byte of the client
		}
		h := <-s.taken
		if got := socket.ClientAddr(h.c); h.to != protoTLS || got.Addr().String() != "192.0.2.7" {
			t.Errorf("target first %v: the front gets %v as client, want 192.0.2.7", targetFirst, got)
		}
		if b, err := io.ReadAll(s.dial(t, []byte("GET /"))); err != nil || !strings.Contains(string(b), "must begin with a PROXY header") {
			t.Errorf("target first %v: without a header the client reads %q, %v; want the hint", targetFirst, b, err)
		}
	}
	// The bytes of a port whose targets speak first are not looked at.
	s := listen(t)
	s.serveAs(t, Role{Front: &front{s, protoTLS}, TargetFirst: true})
	s.dial(t, []byte(header1))
	h := <-s.taken
	b := make([]byte, len(header1))
	if _, err := io.ReadFull(h.c, b); err != nil || string(b) != header1 {
		t.Errorf("the front reads %q, %v; want the header, which is for the target", b, err)
	}
}

// TestSlowHeader checks that a header which does not come is awaited for its time only,
// that it takes no client's place, and that the replica counts it.
func TestSlowHeader(t *testing.T) {
	s := listen(t)
	s.HTTP = &explaining{&front{s, protoHTTP}}
	s.HeaderTimeout = 200 * time.Millisecond
	inside := make(chan struct{}, 10)
	s.EnterSender = func(netip.Addr) (func(), error) {
		inside <- struct{}{}
		return func() { <-inside }, nil
	}
	s.Enter = func(client netip.Addr) error {
		t.Errorf("Enter(%v) before the header has named a client", client)
		return nil
	}
	silent := s.dial(t, nil)
	slow := s.dial(t, []byte("PROXY TCP4 192.0.2.7"))
	left := s.dial(t, nil)
	left.CloseWrite()
	s.serveAs(t, Role{Senders: everyone})
	expectClosed(t, left)
	for name, c := range map[string]net.Conn{"silent": silent, "slow": slow} {
		if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
			t.Errorf("the %s sender reads %q, %v; want %v", name, b, err, syscall.ECONNRESET)
		}
	}
	testkit.Eventually(t, "all of them to have left", func() bool { return len(inside) == 0 })
	if n := s.mute.Load(); n != 2 {
		t.Errorf("Silent was called %d times, want 2", n)
	}
}

// TestDrainEndsHeaders checks that a drain does not wait for headers.
func TestDrainEndsHeaders(t *testing.T) {
	s := listen(t)
	s.HeaderTimeout = time.Hour
	s.serveAs(t, Role{Senders: everyone})
	silent := s.dial(t, nil)
	testkit.Eventually(t, "the sender to be awaited", func() bool { return s.silentClients() == 1 })
	s.Drain()
	expectClosed(t, silent)
	expectClosed(t, s.dial(t, nil)) // comes after the drain
	if err := s.Wait(testkit.Within(t, time.Minute)); err != nil {
		t.Error(err)
	}
}

// TestSenderRefused checks that a sender without a place is reset, and that the log says
// why.
func TestSenderRefused(t *testing.T) {
	s := listen(t)
	s.EnterSender = func(netip.Addr) (func(), error) {
		return nil, &flow.Error{Class: flow.Overloaded, Hint: "send it at once"}
	}
	s.serveAs(t, Role{Senders: everyone})
	var b []byte
	c, err := net.Dial("tcp", s.ln.Addr().String())
	if err == nil { // the reset may come before Dial returns
		defer c.Close()
		b, err = io.ReadAll(c)
	}
	if !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		t.Errorf("the sender reads %q, %v; want %v", b, err, syscall.ECONNRESET)
	}
	testkit.Eventually(t, "the log to give the hint", func() bool { return strings.Contains(s.log.String(), "send it at once") })
}

// TestClientRefused checks that the limits are those of the client, and that it is
// answered in its protocol.
func TestClientRefused(t *testing.T) {
	s := listen(t)
	s.Enter = func(client netip.Addr) error { return errors.New("full for " + client.String()) }
	s.serveAs(t, Role{Senders: everyone})
	if b, err := io.ReadAll(s.dial(t, []byte(header1+"GET"))); err != nil || string(b) != "http: full for 192.0.2.7" {
		t.Errorf("the client reads %q, %v; want the refusal of 192.0.2.7", b, err)
	}
}

// TestHeaderPanics checks that a panic while a header is read ends only its connection.
func TestHeaderPanics(t *testing.T) {
	s := listen(t)
	caught := make(chan error, 1)
	s.Panicked = func(err error) { caught <- err }
	s.Silent = func() { panic("in Silent") }
	s.HeaderTimeout = time.Millisecond
	s.serveAs(t, Role{Senders: everyone})
	c := s.dial(t, nil)
	if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the sender reads %q, %v; want %v", b, err, syscall.ECONNRESET)
	}
	if err := <-caught; !flow.IsPanic(err) {
		t.Errorf("Panicked got %v, want a panic", err)
	}
	if err := s.Wait(context.Background()); err != nil {
		t.Error(err)
	}
	if bytes.Contains([]byte(s.log.String()), []byte("refused")) {
		t.Errorf("the log is %q", s.log.String())
	}
}
