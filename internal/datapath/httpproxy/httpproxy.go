// Package httpproxy is the HTTP/1.1 front end: CONNECT (RFC 9110 section
// 9.3.6) and requests in absolute-form (RFC 9112 section 3.2.2), or, for
// clients that know of no proxy, requests in origin-form told apart by Host. Each client
// connection is served by one goroutine, which reads a request, sends it on
// over a pooled connection to its origin, and copies the answer back; a second
// one runs only while a request body is on its way, so that an origin may
// answer early. Every request is judged anew.
//
// Heads are parsed by net/http; what is written is written here. The package
// does not decide, resolve or dial, and copies the bytes of no tunnel.
package httpproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Road is what lies behind the front end.
type Road interface {
	Connect(context.Context, *flow.Record) (net.Conn, error)
	Judge(context.Context, *flow.Record) ([]flow.Target, error)
	Dial(context.Context, *flow.Record, []flow.Target) (net.Conn, error)
	Tunnel(*flow.Record, flow.Pair)
	Finish(*flow.Record)
}

// Defaults, used where a field of Proxy is zero.
const (
	DefaultHeaderTimeout  = 30 * time.Second
	DefaultIdleTimeout    = 90 * time.Second
	DefaultBodyTimeout    = time.Minute
	DefaultMaxHeaderBytes = 64 << 10
	DefaultMaxHeaders     = 256
)

// Proxy speaks HTTP to clients. Its fields must not change once it is in use.
type Proxy struct {
	Road Road
	// Name is this proxy's name in Via and Proxy-Status fields: a token, and
	// its own, for a request that comes back with it is a loop. Empty means
	// "pando".
	Name string
	// Front is the front end that requests are counted as, except CONNECT. Empty
	// means flow.HTTP.
	Front flow.Front
	// Target returns the host and port that a request is for, or a *flow.Error of
	// class BadRequest. Nil means AbsoluteForm.
	Target func(*http.Request) (host string, port uint16, err error)
	// Authenticate checks a username and password; it must take the same time
	// for all of them. Nil means that clients are not asked.
	Authenticate func(user, password string) bool

	HeaderTimeout  time.Duration // from a request's first byte to the end of its head; zero means the default
	IdleTimeout    time.Duration // between requests, towards clients and origins; zero means the default
	BodyTimeout    time.Duration // between two reads of a request's body; zero means the default
	SilenceTimeout time.Duration // how long an origin may say nothing while its answer is awaited; zero means for ever
	MaxHeaderBytes int           // size of a request's or response's head; zero means the default
	MaxHeaders     int           // number of a request's fields; zero means the default

	pool     pool
	closing  atomic.Bool
	mu       sync.Mutex
	draining bool              // nobody may wait for another request
	sessions map[*session]bool // true while it is between requests
	cut      bool              // no exchange outlives it
}

// session is one client connection.
type session struct {
	p      *Proxy
	c      *net.TCPConn
	client netip.AddrPort
	limit  limitReader // c, with the bound on heads
	tape   []byte      // the last head as it came, and maybe more
	origin *origin     // in use by the current request; guarded by p.mu
	br     *bufio.Reader
	bw     *bufio.Writer
}

const ioBuffer = 4 << 10

var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, ioBuffer) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, ioBuffer) }}
)

// Serve speaks to one client. It takes c and closes it, unless it became a
// tunnel, which it reports.
func (p *Proxy) Serve(ctx context.Context, c *net.TCPConn) (tunnelled bool) {
	s := &session{p: p, c: c, client: socket.ClientAddr(c), br: readers.Get().(*bufio.Reader), bw: writers.Get().(*bufio.Writer)}
	s.limit.r, s.limit.tape = c, &s.tape
	s.br.Reset(&s.limit)
	s.bw.Reset(c)
	p.add(s)
	defer func() {
		p.remove(s)
		s.br.Reset(nil)
		s.bw.Reset(nil)
		readers.Put(s.br)
		writers.Put(s.bw)
	}()
	for first := true; ; first = false {
		switch s.next(ctx, first) {
		case keep:
		case closeNow:
			c.Close()
			return false
		case closeGently:
			socket.CloseGently(c)
			return false
		case handedOver:
			return true
		}
	}
}

// AnnounceClose makes every response from now on the last one of its
// connection ("Connection: close", RFC 9112 section 9.6).
func (p *Proxy) AnnounceClose() { p.closing.Store(true) }

// Drain makes every client leave after its current request: those between
// requests are closed, the others are told "Connection: close".
func (p *Proxy) Drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing.Store(true)
	p.draining = true
	for s, waiting := range p.sessions {
		if waiting {
			s.c.Close()
		}
	}
}

// Cut ends the requests in progress, with a reset, and returns how many there
// were.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for s := range p.sessions {
		socket.Abort(s.c)
		if s.origin != nil {
			s.origin.Close()
		}
	}
	return len(p.sessions)
}

// Close closes the pooled connections to origins.
func (p *Proxy) Close() { p.pool.close() }

// fate is what becomes of a client connection after a request.
type fate uint8

const (
	keep        fate = iota // read the next request
	closeNow                // it is broken or over
	closeGently             // let the client read the answer first
	handedOver              // somebody else owns it now
)

// next serves one request.
func (s *session) next(ctx context.Context, first bool) fate {
	if !s.awaitRequest(first) {
		return closeNow
	}
	rec := flow.NewRecord(s.p.front(), s.client)
	s.c.SetReadDeadline(rec.Start.Add(orDefault(s.p.HeaderTimeout, DefaultHeaderTimeout)))
	s.limit.left = orDefault(s.p.MaxHeaderBytes, DefaultMaxHeaderBytes)
	req, err := s.readRequest()
	tooLong := s.limit.left <= 0
	s.limit.left = noLimit
	s.c.SetReadDeadline(time.Time{})

	if err != nil {
		return s.unreadable(rec, err, tooLong)
	}
	f := s.serve(ctx, req, rec)
	if f != handedOver {
		s.p.Road.Finish(rec) // else the tunnel does, and rec is its own
	}
	return f
}

func (s *session) serve(ctx context.Context, req *http.Request, rec *flow.Record) fate {
	if req.Method == http.MethodConnect {
		rec.Front = flow.Connect
	} else {
		rec.Method = req.Method
	}
	if err := s.check(req, rec); err != nil {
		if _, ok := errors.AsType[*malformed](err); ok {
			req.Close = true // where it ends is anybody's guess
		}
		return s.refuse(rec, req, err)
	}
	if req.Method == http.MethodConnect {
		return s.connect(ctx, req, rec)
	}
	return s.forward(ctx, req, rec)
}

// awaitRequest waits for the first byte of a request. A drain ends the wait.
func (s *session) awaitRequest(first bool) bool {
	if first || s.br.Buffered() > 0 {
		return true
	}
	if !s.p.setWaiting(s, true) {
		return false
	}
	s.c.SetReadDeadline(time.Now().Add(orDefault(s.p.IdleTimeout, DefaultIdleTimeout)))
	_, err := s.br.Peek(1)
	s.p.setWaiting(s, false)
	return err == nil
}

// setWaiting notes that s is between requests, and reports whether it may be.
func (p *Proxy) setWaiting(s *session, waiting bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if waiting && p.draining {
		return false
	}
	p.sessions[s] = waiting
	return true
}

func (p *Proxy) add(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions == nil {
		p.sessions = map[*session]bool{}
	}
	p.sessions[s] = false
}

func (p *Proxy) remove(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, s)
}

func (p *Proxy) isCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut
}

// setOrigin notes the origin connection that s uses, nil for none, for Cut.
func (p *Proxy) setOrigin(s *session, o *origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.origin = o
	if p.cut && o != nil {
		o.Close()
	}
}

// readRequest reads a request's head, and holds it to what net/http's parser
// hides by mending it.
func (s *session) readRequest() (*http.Request, error) {
	for range 4 { // empty lines before the request line, RFC 9112 section 2.2
		b, err := s.br.Peek(1)
		if err != nil {
			return nil, err
		}
		if b[0] != '\r' && b[0] != '\n' {
			break
		}
		s.br.Discard(1)
	}
	ahead, _ := s.br.Peek(s.br.Buffered())
	s.tape = append(s.tape[:0], ahead...)
	req, err := http.ReadRequest(s.br)
	if err == nil {
		head := s.tape[:len(s.tape)-s.br.Buffered()]
		if n := bytes.Count(head, []byte("\n")) - 2; n > orDefault(s.p.MaxHeaders, DefaultMaxHeaders) { // without the request line and the empty one
			err = tooManyFields(n)
		} else {
			err = checkFraming(req, head)
		}
	}
	if cap(s.tape) > ioBuffer {
		s.tape = nil
	}
	return req, err
}

// tooManyFields is a request with that many of them.
type tooManyFields int

func (n tooManyFields) Error() string { return strconv.Itoa(int(n)) + " header fields" }

// unreadable answers a head that could not be read, if anyone is there to
// read the answer.
func (s *session) unreadable(rec *flow.Record, err error, tooLong bool) fate {
	defer s.p.Road.Finish(rec)
	fe := &flow.Error{Class: flow.BadRequest, Op: "http", Hint: "the request could not be understood as HTTP/1.1", Err: err}
	rec.Err = fe
	rec.Status = http.StatusBadRequest
	if bad, ok := errors.AsType[framingError](err); ok {
		fe.Hint = string(bad)
	}
	if n, ok := errors.AsType[tooManyFields](err); ok {
		fe.Hint = "the request has more header fields than this gateway accepts: " + strconv.Itoa(int(n))
		rec.Status = http.StatusRequestHeaderFieldsTooLarge
	}
	switch {
	case tooLong:
		fe.Hint = "the request's header fields are larger than this gateway accepts"
		rec.Status = http.StatusRequestHeaderFieldsTooLarge
	case errors.Is(s.limit.err, os.ErrDeadlineExceeded):
		fe.Class, fe.Hint = flow.Timeout, "the request's head did not arrive in time"
		rec.Status = http.StatusRequestTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), gone(s.limit.err):
		fe.Class, rec.Status = flow.Canceled, 0
		return closeNow
	}
	s.writeError(rec, nil, false)
	return closeGently
}

// connect opens a tunnel. The 200 is all that is written: from there on the
// bytes are the client's and the target's.
func (s *session) connect(ctx context.Context, req *http.Request, rec *flow.Record) fate {
	target, err := s.p.Road.Connect(ctx, rec)
	if err != nil {
		return s.refuse(rec, req, err)
	}
	rec.Status = http.StatusOK
	s.bw.WriteString("HTTP/1.1 200 Connection established\r\n\r\n")
	if err := s.bw.Flush(); err != nil {
		target.Close()
		rec.Err = &flow.Error{Class: flow.Canceled, Op: "http", Target: rec.Target(), Err: err}
		return closeNow
	}
	s.p.remove(s)
	s.p.Road.Tunnel(rec, flow.Pair{Client: s.c, Target: target, ClientEarly: buffered(s.br)})
	return handedOver
}

// limitReader bounds what is read while left is not noLimit, and notes it on
// tape, when there is one.
type limitReader struct {
	r    io.Reader
	left int
	tape *[]byte
	err  error // of the last read: the line parser takes what it has for a line, and tells nobody
}

const noLimit = int(^uint(0) >> 1)

func (l *limitReader) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, io.EOF
	}
	if l.left != noLimit && len(b) > l.left {
		b = b[:l.left]
	}
	n, err := l.r.Read(b)
	l.err = err
	if l.left != noLimit {
		l.left -= n
		if l.tape != nil {
			*l.tape = append(*l.tape, b[:n]...)
		}
	}
	return n, err
}

// buffered copies out what has been read ahead.
func buffered(br *bufio.Reader) []byte {
	if br.Buffered() == 0 {
		return nil
	}
	b, _ := br.Peek(br.Buffered())
	return append([]byte(nil), b...)
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
