package mux

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/testkit"
)

// clientHello is the beginning of TLS 1.2 and 1.3, RFC 8446 section 5.1.
var clientHello = []byte{0x16, 3, 1, 0, 0xf8, 1, 0, 0, 0xf4, 3, 3}

// header2 begins a header of the PROXY protocol, version 2.
const header2 = "\r\n\r\n\x00\r\nQUIT\n"

// FuzzDetect compares detect with what net/http reads.
func FuzzDetect(f *testing.F) {
	for _, b := range [][]byte{
		[]byte("GET http://api.corp.example/ HTTP/1.1\r\nHost: api.corp.example\r\n\r\n"),
		[]byte("CONNECT api.corp.example:443 HTTP/1.1\r\nHost: api.corp.example:443\r\n\r\n"),
		[]byte("m-search * HTTP/1.1\r\nHost: x\r\n\r\n"), []byte("\r\nGET / HTTP/1.1\r\n\r\n"),
		{5, 1, 0}, {4, 1, 0, 80, 192, 0, 2, 1, 0}, clientHello, []byte("SSH-2.0-OpenSSH_9.9\r\n"),
		[]byte("PROXY TCP4 192.0.2.7 192.0.2.1 4000 1055\r\n"), []byte("PROXYX / HTTP/1.1\r\n\r\n"), []byte(header2),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		p := detect(b)
		want := map[byte]protocol{5: protoSOCKS5, 4: protoSOCKS4, clientHello[0]: protoTLS}[b[0]]
		if b[0] == '\r' || b[0] == '\n' {
			want = protoHTTP // an empty line before the request, RFC 9112 section 2.2
		}
		// Methods are tokens (RFC 9110 section 9.1), and those in use begin with a letter.
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err == nil && unicode.IsLetter(rune(req.Method[0])) {
			want = protoHTTP
		} else if p == protoHTTP && unicode.IsLetter(rune(b[0])) {
			want = protoHTTP // the front says what is wrong with the rest
		}
		if bytes.HasPrefix(b, []byte("PROXY ")) || bytes.HasPrefix(b, []byte(header2)) {
			want = protoPROXY
		}
		if p != want || p.String() == "" {
			t.Errorf("detect of %q = %v, want %v", b, p, want)
		}
	})
}

// served is a Mux that serves. Its fronts send each connection to taken,
// and close it when release is closed.
type served struct {
	*Mux
	ln      *net.TCPListener
	log     testkit.Buffer
	ended   chan error // gets what Serve returns
	taken   chan handed
	mute    atomic.Int32 // calls of Mux.Silent
	release chan struct{}
}

// handed is a connection and the front that got it.
type handed struct {
	to protocol
	c  *net.TCPConn
}

func start(t *testing.T, peekTimeout time.Duration) *served {
	t.Helper()
	return startLimited(t, peekTimeout, nil, nil)
}

func startLimited(t *testing.T, peekTimeout time.Duration, enter func(netip.Addr) error, leave func(netip.Addr)) *served {
	t.Helper()
	s := listen(t)
	s.Mux.Enter = enter
	s.Mux.Leave = leave
	s.Mux.PeekTimeout = peekTimeout
	s.serve(t)
	return s
}

// listen returns a Mux whose clients wait until it serves.
func listen(t *testing.T) *served {
	t.Helper()
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	s := &served{
		ln:      ln,
		ended:   make(chan error, 1),
		taken:   make(chan handed, 16),
		release: make(chan struct{}),
	}
	s.Mux = &Mux{
		HTTP:   &front{s, protoHTTP},
		SOCKS5: &front{s, protoSOCKS5},
		SOCKS4: &front{s, protoSOCKS4},
		Silent: func() { s.mute.Add(1) },
		Log:    slog.New(slog.NewTextHandler(&s.log, nil)),
	}
	t.Cleanup(func() { ln.Close() })
	return s
}

// serve serves until the end of the test.
func (s *served) serve(t *testing.T) { s.serveAs(t, Role{}) }

// serveAs is serve for a listener with a role.
func (s *served) serveAs(t *testing.T, role Role) {
	go func() { s.ended <- s.Serve(t.Context(), s.ln, role) }()
	t.Cleanup(func() {
		close(s.release)
		s.ln.Close()
		s.Drain()
		if err := s.Wait(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// front is the front of protocol p.
type front struct {
	s *served
	p protocol
}

func (f *front) Serve(_ context.Context, c *net.TCPConn) bool {
	f.s.taken <- handed{f.p, c}
	<-f.s.release
	c.Close()
	return false
}

func (f *front) Refuse(c *net.TCPConn, why error) {
	io.WriteString(c, f.p.String()+": "+why.Error())
	socket.CloseGently(c)
}

// dial connects a client, which sends b.
func (s *served) dial(t *testing.T, b []byte) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, s.ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	return c
}

// expectClosed fails the test unless the mux closes c and sends nothing.
func expectClosed(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("the client reads %q, %v; want an end of stream", b, err)
	}
}

// TestHandsOverWhatCameIn checks that a front gets the whole connection,
// without a wrapper.
func TestHandsOverWhatCameIn(t *testing.T) {
	s := start(t, 0)
	for _, c := range []struct {
		name string
		to   protocol
		send []byte
	}{
		{"http", protoHTTP, []byte("GET http://api.corp.example/ HTTP/1.1\r\n\r\n")},
		{"http_one_byte", protoHTTP, []byte("C")},
		{"socks5", protoSOCKS5, []byte{5, 1, 0, 5, 1}},
		{"socks5_one_byte", protoSOCKS5, []byte{5}},
		{"socks4", protoSOCKS4, []byte{4, 1, 0, 80, 192, 0, 2, 1, 0}},
		{"socks4_one_byte", protoSOCKS4, []byte{4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := s.dial(t, c.send)
			client.CloseWrite()
			h := <-s.taken
			if h.to != c.to || h.c.RemoteAddr().String() != client.LocalAddr().String() {
				t.Fatalf("front %v got client %v, want %v and %v", h.to, h.c.RemoteAddr(), c.to, client.LocalAddr())
			}
			if got, err := io.ReadAll(h.c); err != nil || !bytes.Equal(got, c.send) {
				t.Errorf("the front reads %q, %v; want %q", got, err, c.send)
			}
			// Half-close works in both directions, so it is the connection itself.
			var _ *net.TCPConn = h.c
			h.c.Write([]byte("bye"))
			if err := h.c.CloseWrite(); err != nil {
				t.Errorf("CloseWrite = %v, want nil", err)
			}
			if got, err := io.ReadAll(client); err != nil || string(got) != "bye" {
				t.Errorf("the client reads %q, %v; want %q", got, err, "bye")
			}
		})
	}
}

// TestPace checks that a connection above a rate waits before it is served, without a
// byte being read, and that one which would wait for too long is refused.
func TestPace(t *testing.T) {
	const wait = 300 * time.Millisecond
	s := listen(t)
	var calls atomic.Int32
	s.Mux.Pace = func(netip.Addr) (time.Duration, error) {
		if calls.Add(1) > 1 {
			return 0, errors.New("too many")
		}
		return wait, nil
	}
	s.serve(t)
	begin := time.Now()
	s.dial(t, []byte("GET"))
	<-s.taken
	if took := time.Since(begin); took < wait {
		t.Errorf("a connection that must wait for %v is served after %v", wait, took)
	}
	if b, err := io.ReadAll(s.dial(t, []byte("GET"))); err != nil || string(b) != "http: too many" {
		t.Errorf("a connection above the rate reads %q, %v; want the refusal", b, err)
	}
}

// TestRefuses checks the answers to protocols that no front speaks.
func TestRefuses(t *testing.T) {
	s := start(t, 0)
	for _, c := range []struct {
		name       string
		send, want []byte
	}{
		{"tls", clientHello[:1], []byte{21, 3, 1, 0, 2, 2, 10}},
		{"unknown", []byte{0}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := s.dial(t, c.send)
			got := make([]byte, len(c.want))
			if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("the client reads %v, %v; want %v", got, err, c.want)
			}
			if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the client reads %d more bytes, %v; want the end", n, err)
			}
		})
	}
	if len(s.taken) != 0 {
		t.Errorf("%d of the clients came to a front, want none", len(s.taken))
	}
}

// TestPeekTimeout checks that the deadline ends silent clients and no others:
// when the second client is closed, the deadline of the first has passed too.
func TestPeekTimeout(t *testing.T) {
	s := listen(t)
	s.PeekTimeout = 200 * time.Millisecond
	// These clients have done all that they do before the mux accepts them, so a
	// slow machine does not make them late.
	talker := s.dial(t, []byte("G"))
	silent := s.dial(t, nil)
	left := s.dial(t, nil)
	left.CloseWrite()
	s.serve(t)
	h := <-s.taken
	expectClosed(t, silent)
	talker.Write([]byte("ET"))
	if got, err := io.ReadAll(io.LimitReader(h.c, 3)); err != nil || string(got) != "GET" {
		t.Errorf("the front reads %q, %v; want %q", got, err, "GET")
	}
	expectClosed(t, left)
	if len(s.taken) != 0 {
		t.Error("a silent client came to a front")
	}
	if n := s.mute.Load(); n != 1 { // the last client left before the deadline
		t.Errorf("Silent was called %d times, want 1", n)
	}
}

// TestDrain checks that a drain closes silent clients, also ones that come
// later, and leaves the others alone.
func TestDrain(t *testing.T) {
	s := start(t, time.Hour)
	talker := s.dial(t, []byte("G"))
	h := <-s.taken
	silent := []*net.TCPConn{s.dial(t, nil), s.dial(t, nil), s.dial(t, nil)}
	for s.silentClients() < len(silent) { // otherwise Drain would close them as late ones
		runtime.Gosched()
	}
	s.Drain()
	for _, c := range slices.Concat(silent, []*net.TCPConn{s.dial(t, nil)}) { // the last one comes after the drain
		expectClosed(t, c)
	}
	talker.Write([]byte("ET"))
	if got, err := io.ReadAll(io.LimitReader(h.c, 3)); err != nil || string(got) != "GET" {
		t.Errorf("the front reads %q, %v; want %q", got, err, "GET")
	}
}

// TestTurnsAway checks that a client over the limit gets an answer from the
// front of its protocol, and that it is reset once too many clients are
// being answered.
func TestTurnsAway(t *testing.T) {
	var inside, left atomic.Int32
	s := startLimited(t, 0, func(client netip.Addr) error {
		if client != netip.MustParseAddr("127.0.0.1") || inside.Add(1) > 1 {
			return errors.New("full")
		}
		return nil
	}, func(netip.Addr) { left.Add(1) })
	s.dial(t, []byte("G"))
	first := <-s.taken
	for send, want := range map[string]string{"GET": "http: full", "\x05\x01": "socks5: full", "\x04\x01": "socks4: full"} {
		if b, err := io.ReadAll(s.dial(t, []byte(send))); err != nil || string(b) != want {
			t.Errorf("a client that sends %q reads %q, %v; want %q", send, b, err, want)
		}
	}
	for _, send := range [][]byte{{0}, nil} {
		if b, err := io.ReadAll(s.dial(t, send)); !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
			t.Errorf("a client that sends %q reads %q, %v; want %v", send, b, err, syscall.ECONNRESET)
		}
	}
	// A client sees its reset before its place among the refusals is free.
	awaitNoRefusal := func() {
		for s.refusing.Load() > 0 {
			runtime.Gosched()
		}
	}
	awaitNoRefusal()
	var silent []*net.TCPConn
	for range maxRefusals {
		silent = append(silent, s.dial(t, nil))
	}
	var b []byte
	c, err := net.Dial("tcp", s.ln.Addr().String())
	if err == nil { // the reset may come before Dial returns
		b, err = io.ReadAll(c)
	}
	if !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		t.Errorf("client %d reads %q, %v; want %v", maxRefusals+1, b, err, syscall.ECONNRESET)
	}
	for _, c := range silent { // they do not occupy refusals for ever
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a silent client over the limit: error %v, want %v", err, syscall.ECONNRESET)
		}
	}
	awaitNoRefusal()
	if b, err := io.ReadAll(s.dial(t, []byte("GET"))); err != nil || string(b) != "http: full" {
		t.Errorf("the next client reads %q, %v; want %q", b, err, "http: full")
	}
	if n := left.Load(); n != 0 {
		t.Errorf("Leave was called %d times for clients without a place, want 0", n)
	}
	s.release <- struct{}{}
	for left.Load() == 0 {
		runtime.Gosched()
	}
	first.c.Close()
}

func (s *served) silentClients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.silent)
}

// TestServeEndsWithItsListener checks that Serve returns when its listener is
// closed, while a front still serves.
func TestServeEndsWithItsListener(t *testing.T) {
	s := start(t, 0)
	s.dial(t, []byte("G"))
	<-s.taken
	s.ln.Close()
	if err := <-s.ended; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
}

// TestWait checks that Wait waits for fronts.
func TestWait(t *testing.T) {
	s := start(t, 0)
	s.dial(t, []byte("G"))
	<-s.taken
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v, want %v while a front serves", err, context.Canceled)
	}
}
