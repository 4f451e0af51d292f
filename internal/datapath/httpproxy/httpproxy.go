// Package httpproxy is the HTTP/1.1 front. It serves clients that have a
// proxy setting: CONNECT (RFC 9110 section 9.3.6) and requests in absolute-form
// (RFC 9112 section 3.2.2). On other ports it serves clients without a proxy
// setting: the Host field of their requests names the target. The policy judges
// each request by itself.
//
// Each client connection is served by one goroutine. It reads a request
// (session.go), sends it over a pooled connection to its origin (exchange.go)
// and copies the response back (response.go). A second goroutine runs only
// while a request body is on its way (upload.go), so that an origin may answer
// early, and a third one waits for a client that leaves (package watch).
//
// net/http parses heads. Below this package, target finds the target of a
// request, wire writes messages, and origin keeps connections. The package does
// not decide, resolve or dial, and does not copy the bytes of tunnels.
package httpproxy

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/reply"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/secure"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Road is what lies behind the front.
type Road interface {
	Connect(context.Context, *flow.Record) (net.Conn, error)
	Judge(context.Context, *flow.Record) ([]flow.Target, error)
	Dial(context.Context, *flow.Record, []flow.Target) (net.Conn, error)
	Serving(rec *flow.Record, end func(error))
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
	// Memory is where requests are held. Nil means that they cost nothing.
	Memory flow.Memory

	// Pace returns for each request what takes n bytes of one direction from client's
	// rate and returns how long they must wait; or nil. A Pace of nil means no rate.
	Pace func(client netip.Addr) func(up bool, n int) (wait time.Duration)

	// Front is the front that requests are counted as, except CONNECT. Empty
	// means flow.HTTP.
	Front flow.Front
	// Target returns the host and port that a request is for, or a *flow.Error of
	// class BadRequest. Nil means target.AbsoluteForm.
	Target func(*http.Request) (host string, port uint16, err error)
	// Secure opens TLS to origins, for requests for https:// URLs in absolute-form. Nil
	// means that they are refused. It has an effect only without Target.
	Secure *secure.Client
	// Name is this proxy's name in Via and Proxy-Status fields. It is a token,
	// and no other proxy has it: a request that comes with it is a loop. Empty
	// means "pando".
	Name string
	// Authenticate checks a client's username and password. Its error is a
	// *flow.Error. It must take the same time for all wrong ones. Nil means that
	// clients need none.
	Authenticate func(client netip.Addr, user, password string) error

	// HeaderTimeout bounds the time from the first byte of a request to the end
	// of its head. Zero means the default.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection, to a client or to an origin, stays
	// open between requests. Zero means the default.
	IdleTimeout time.Duration
	// BodyTimeout bounds the time between two reads of a request's body. Zero
	// means the default.
	BodyTimeout time.Duration
	// SilenceTimeout is how long an origin may send nothing while its response
	// is awaited. Zero means no bound.
	SilenceTimeout time.Duration
	// MaxHeaderBytes bounds the size of a request's and of a response's head, in
	// bytes. Zero means the default.
	MaxHeaderBytes int
	// MaxHeaders bounds the number of a request's header fields. Zero means the
	// default.
	MaxHeaders int
	// Reuse says which requests use a connection to an origin that has served
	// another one. Empty means origin.ReuseClient.
	Reuse origin.Reuse
	// Released is called with what becomes of a connection to an origin after a
	// request. Nil means nothing to call.
	Released func(origin.Outcome)
	// DroppedTrailers is called with a number of trailer fields that were not passed
	// on. Nil means nothing to call.
	DroppedTrailers func(int)

	pool    origin.Pool
	closing atomic.Bool // responses say "Connection: close"

	mu       sync.Mutex
	draining bool              // no session may wait for another request
	cut      bool              // no exchange may run any more
	sessions map[*session]bool // true while it is between requests
}

// Serve speaks to one client. It takes c and closes it, unless it became a
// tunnel, which it reports.
func (p *Proxy) Serve(ctx context.Context, c *net.TCPConn) (tunnelled bool) {
	s := newSession(p, c)
	p.add(s)
	defer func() {
		p.remove(s)
		s.free()
	}()
	for first := true; ; first = false {
		switch s.next(ctx, first) {
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

// Refuse answers a client with why, a *flow.Error, without reading its request.
// It takes c and closes it.
func (p *Proxy) Refuse(c *net.TCPConn, why error) {
	rec := flow.NewRecord(p.front(), socket.ClientAddr(c))
	rec.Err = why
	rec.Status = reply.StatusFor(flow.ClassOf(why)).Code
	s := newSession(p, c)
	s.writeError(rec, nil, false)
	s.free()
	socket.CloseGently(c)
	p.Road.Finish(rec)
}

// AnnounceClose makes every response from now on the last one of its
// connection ("Connection: close", RFC 9112 section 9.6).
func (p *Proxy) AnnounceClose() { p.closing.Store(true) }

// Drain ends every client connection after its current request. It closes
// those between requests at once; the other clients get "Connection: close".
func (p *Proxy) Drain() {
	p.AnnounceClose()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	for s, waiting := range p.sessions {
		if waiting {
			s.c.Close()
		}
	}
}

// Cut resets every client connection, with the connection to the origin that
// it uses, and returns how many there were. After Drain, these are the
// requests in progress.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for s := range p.sessions {
		socket.Abort(s.c)
		if s.current != nil {
			s.current.o.Close()
		}
	}
	return len(p.sessions)
}

// Close closes the pooled connections to origins.
func (p *Proxy) Close() { p.pool.Close() }

// front is the front that requests are counted as, except CONNECT.
func (p *Proxy) front() flow.Front {
	if p.Front == "" {
		return flow.HTTP
	}
	return p.Front
}

func (p *Proxy) name() string {
	if p.Name == "" {
		return "pando"
	}
	return p.Name
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

// setWaiting records whether s is between requests. It reports false when s
// may not wait because the proxy drains.
func (p *Proxy) setWaiting(s *session, waiting bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if waiting && p.draining {
		return false
	}
	p.sessions[s] = waiting
	return true
}

// setExchange records the exchange of s, for whatever may end it. Nil means none.
func (p *Proxy) setExchange(s *session, x *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.current = x
	if p.cut && x != nil {
		x.o.Close()
	}
}

func (p *Proxy) isCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
