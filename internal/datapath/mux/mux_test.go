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
)

// clientHello is how TLS 1.2 and 1.3 begin, RFC 8446 section 5.1.
var clientHello = []byte{0x16, 3, 1, 0, 0xf8, 1, 0, 0, 0xf4, 3, 3}

func FuzzDetect(f *testing.F) {
	for _, b := range [][]byte{
		[]byte("GET http://api.corp.example/ HTTP/1.1\r\nHost: api.corp.example\r\n\r\n"),
		[]byte("CONNECT api.corp.example:443 HTTP/1.1\r\nHost: api.corp.example:443\r\n\r\n"),
		[]byte("m-search * HTTP/1.1\r\nHost: x\r\n\r\n"), []byte("\r\nGET / HTTP/1.1\r\n\r\n"),
		{5, 1, 0}, {4, 1, 0, 80, 192, 0, 2, 1, 0}, clientHello, []byte("SSH-2.0-OpenSSH_9.9\r\n"),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		p := Detect(b[0])
		want := map[byte]Protocol{5: SOCKS5, 4: SOCKS4, clientHello[0]: TLS}[b[0]]
		// Methods are tokens (RFC 9110 section 9.1), and those in use begin with a letter.
		if b[0] == '\r' || b[0] == '\n' {
			want = HTTP // an empty line before the request, RFC 9112 section 2.2
		}
		if req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b))); err == nil && unicode.IsLetter(rune(req.Method[0])) {
			want = HTTP
		} else if p == HTTP && unicode.IsLetter(rune(b[0])) {
			want = HTTP // whatever comes behind it: the front end says what is wrong
		}
		if p != want || p.String() == "" {
			t.Errorf("%q is taken for %v, want %v", b, p, want)
		}
	})
}

// served is a Mux at work. Its handlers send each connection to taken, and
// close it when release is closed.
type served struct {
	*Mux
	ln      *net.TCPListener
	log     lockedLog
	ended   chan error // gets what Serve returns
	taken   chan handed
	mute    atomic.Int32 // clients that said nothing in time
	release chan struct{}
}

type handed struct {
	to Protocol
	c  *net.TCPConn
}

func start(t *testing.T, peekTimeout time.Duration) *served {
	t.Helper()
	return startLimited(t, peekTimeout, nil, nil)
}

func startLimited(t *testing.T, peekTimeout time.Duration, enter func(netip.Addr) error, leave func(netip.Addr)) *served {
	t.Helper()
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	s := &served{ln: ln, ended: make(chan error, 1), taken: make(chan handed, 16), release: make(chan struct{})}
	s.Mux = &Mux{HTTP: &front{s, HTTP}, SOCKS5: &front{s, SOCKS5}, Enter: enter, Leave: leave, PeekTimeout: peekTimeout, Silent: func() { s.mute.Add(1) }, Log: slog.New(slog.NewTextHandler(&s.log, nil))}
	go func() { s.ended <- s.Serve(t.Context(), ln, Role{}) }()
	t.Cleanup(func() {
		close(s.release)
		ln.Close()
		s.Drain()
		if err := s.Wait(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

type front struct {
	s *served
	p Protocol
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

// dial connects, and sends b if there is any.
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

// closed fails the test unless the mux closes c without a word.
func closed(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("got %q, %v; want a clean end", b, err)
	}
}

func TestHandsOverWhatCameIn(t *testing.T) {
	s := start(t, 0)
	for _, c := range []struct {
		name string
		to   Protocol
		send []byte
	}{
		{"http", HTTP, []byte("GET http://api.corp.example/ HTTP/1.1\r\n\r\n")},
		{"http_one_byte", HTTP, []byte("C")},
		{"socks5", SOCKS5, []byte{5, 1, 0, 5, 1}},
		{"socks5_one_byte", SOCKS5, []byte{5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := s.dial(t, c.send)
			client.CloseWrite()
			h := <-s.taken
			if h.to != c.to || h.c.RemoteAddr().String() != client.LocalAddr().String() {
				t.Fatalf("%v got %v, want %v to get %v", h.to, h.c.RemoteAddr(), c.to, client.LocalAddr())
			}
			if got, err := io.ReadAll(h.c); err != nil || !bytes.Equal(got, c.send) {
				t.Errorf("the handler reads %q, %v; want %q", got, err, c.send)
			}
			// It is the connection itself: half-close works in both directions.
			var _ *net.TCPConn = h.c
			h.c.Write([]byte("bye"))
			if err := h.c.CloseWrite(); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(client); err != nil || string(got) != "bye" {
				t.Errorf("the client reads %q, %v; want bye", got, err)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	s := start(t, 0)
	for _, c := range []struct {
		name       string
		send, want []byte
	}{
		{"tls", clientHello[:1], []byte{21, 3, 1, 0, 2, 2, 10}},
		{"socks4", []byte{4}, []byte{0, 0x5b, 0, 0, 0, 0, 0, 0}},
		{"unknown", []byte{0}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := s.dial(t, c.send)
			got := make([]byte, len(c.want))
			if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("got %v, %v; want %v", got, err, c.want)
			}
			if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %d bytes more, %v; want the end", n, err)
			}
		})
	}
	if len(s.taken) != 0 {
		t.Error("a handler got one of them")
	}
}

// The deadline ends silent clients, and only them: by the time that the second
// one is closed, the first one's deadline would have passed.
func TestPeekTimeout(t *testing.T) {
	s := start(t, 100*time.Millisecond)
	talker := s.dial(t, []byte("G"))
	h := <-s.taken
	closed(t, s.dial(t, nil))
	talker.Write([]byte("ET"))
	if got, err := io.ReadAll(io.LimitReader(h.c, 3)); err != nil || string(got) != "GET" {
		t.Errorf("the handler reads %q, %v; want GET", got, err)
	}
	left := s.dial(t, nil)
	left.CloseWrite()
	closed(t, left)
	if len(s.taken) != 0 {
		t.Error("a handler got a silent client")
	}
	if n := s.mute.Load(); n != 1 { // the other had left before its time
		t.Errorf("%d silent clients were told of, want 1", n)
	}
}

func TestDrain(t *testing.T) {
	s := start(t, time.Hour)
	talker := s.dial(t, []byte("G"))
	h := <-s.taken
	silent := []*net.TCPConn{s.dial(t, nil), s.dial(t, nil), s.dial(t, nil)}
	for s.silentClients() < len(silent) { // else Drain would close them as late ones
		runtime.Gosched()
	}
	s.Drain()
	for _, c := range slices.Concat(silent, []*net.TCPConn{s.dial(t, nil)}) { // the last one is late
		closed(t, c)
	}
	talker.Write([]byte("ET"))
	if got, err := io.ReadAll(io.LimitReader(h.c, 3)); err != nil || string(got) != "GET" {
		t.Errorf("the handler reads %q, %v; want GET: a drain leaves work alone", got, err)
	}
}

// Who is over the limit is told so by the front end of its protocol, and once
// too many are being told, reset.
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
	for send, want := range map[string]string{"GET": "http: full", "\x05\x01": "socks5: full"} {
		if b, err := io.ReadAll(s.dial(t, []byte(send))); err != nil || string(b) != want {
			t.Errorf("%q gets %q, %v; want %q", send, b, err, want)
		}
	}
	for _, send := range [][]byte{{0}, nil} {
		if b, err := io.ReadAll(s.dial(t, send)); !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
			t.Errorf("%q gets %q, %v; want a reset", send, b, err)
		}
	}
	var silent []*net.TCPConn
	for range refusals {
		silent = append(silent, s.dial(t, nil))
	}
	var b []byte
	c, err := net.Dial("tcp", s.ln.Addr().String())
	if err == nil { // it may be reset as soon as that
		b, err = io.ReadAll(c)
	}
	if !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		t.Errorf("one too many gets %q, %v; want a reset", b, err)
	}
	for _, c := range silent { // they don't keep their places
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a silent one: %v", err)
		}
	}
	if b, err := io.ReadAll(s.dial(t, []byte("GET"))); err != nil || string(b) != "http: full" {
		t.Errorf("after them: %q, %v", b, err)
	}
	if left.Load() != 0 {
		t.Error("one that never came in has left")
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

func TestServeEndsWithItsListener(t *testing.T) {
	s := start(t, 0)
	s.dial(t, []byte("G"))
	<-s.taken
	s.ln.Close()
	if err := <-s.ended; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestWait(t *testing.T) {
	s := start(t, 0)
	s.dial(t, []byte("G"))
	<-s.taken
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that a handler still runs", err)
	}
}
