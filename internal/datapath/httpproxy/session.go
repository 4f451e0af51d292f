package httpproxy

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/account"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/cause"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/target"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// session is one client connection.
type session struct {
	p       *Proxy
	c       *net.TCPConn
	client  netip.AddrPort
	head    wire.HeadReader // reads c
	r       *bufio.Reader   // reads head
	w       *bufio.Writer   // writes c
	account account.Account
	current *exchange // nil between exchanges; guarded by p.mu
}

const ioBuffer = 4 << 10

var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, ioBuffer) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, ioBuffer) }}
)

func newSession(p *Proxy, c *net.TCPConn) *session {
	s := &session{
		p:      p,
		c:      c,
		client: socket.ClientAddr(c),
		r:      readers.Get().(*bufio.Reader),
		w:      writers.Get().(*bufio.Writer),
	}
	s.head.R = c
	s.account.Memory = p.Memory
	s.account.Client = s.client.Addr()
	s.head.Charge = s.account.Head
	s.r.Reset(&s.head)
	s.w.Reset(c)
	return s
}

// free gives the buffers back. The session is not used after it.
func (s *session) free() {
	s.r.Reset(nil)
	s.w.Reset(nil)
	readers.Put(s.r)
	writers.Put(s.w)
}

// fate is what becomes of a client connection after a request.
type fate uint8

const (
	keep        fate = iota // read the next request
	closeNow                // the connection is broken or over
	closeGently             // let the client read the response first
	handedOver              // a tunnel owns the connection
	resend                  // not over yet: send the request again over another origin connection
)

// next serves one request.
func (s *session) next(ctx context.Context, first bool) fate {
	if !s.awaitRequest(first) {
		return closeNow
	}
	rec := flow.NewRecord(s.p.front(), s.client)
	defer s.account.Release()
	s.account.BeginHead()
	s.c.SetReadDeadline(rec.Start.Add(orDefault(s.p.HeaderTimeout, DefaultHeaderTimeout)))
	s.head.Begin(orDefault(s.p.MaxHeaderBytes, DefaultMaxHeaderBytes))
	req, err := s.head.ReadRequest(s.r, orDefault(s.p.MaxHeaders, DefaultMaxHeaders))
	tooLong := s.head.Exceeded()
	s.head.End()
	s.account.EndHead()
	s.c.SetReadDeadline(time.Time{})
	if err != nil {
		return s.unreadable(rec, err, tooLong)
	}
	f := s.serveOrFail(ctx, req, rec)
	if f != handedOver && rec.Err != nil {
		rec.Err = cmp.Or(s.account.Evicted(), rec.Err)
	}
	if f != handedOver { // a tunnel owns rec, and finishes it
		s.p.Road.Finish(rec)
	}
	return f
}

// awaitRequest waits for the first byte of a request. It reports false when the
// client leaves, when its idle time is over, or when the proxy drains.
func (s *session) awaitRequest(first bool) bool {
	if first || s.r.Buffered() > 0 {
		return true
	}
	if !s.p.setWaiting(s, true) {
		return false
	}
	s.c.SetReadDeadline(time.Now().Add(orDefault(s.p.IdleTimeout, DefaultIdleTimeout)))
	_, err := s.r.Peek(1)
	s.p.setWaiting(s, false)
	return err == nil
}

// unreadable answers a head that could not be read, unless the client has left.
func (s *session) unreadable(rec *flow.Record, err error, tooLong bool) fate {
	defer s.p.Road.Finish(rec)
	fe := &flow.Error{
		Class: flow.BadRequest,
		Op:    "http",
		Hint:  "the request could not be understood as HTTP/1.1",
		Err:   err,
	}
	rec.Err = fe
	rec.Status = http.StatusBadRequest
	if framing, ok := errors.AsType[wire.FramingError](err); ok {
		fe.Hint = string(framing)
	}
	if n, ok := errors.AsType[wire.TooManyFields](err); ok {
		fe.Hint = "the request has more header fields than Pando accepts, which is " + strconv.Itoa(int(n))
		rec.Status = http.StatusRequestHeaderFieldsTooLarge
	}
	overload := cmp.Or(s.head.Refused, s.account.Evicted())
	switch {
	case overload != nil:
		rec.Err = overload
		rec.Status = http.StatusServiceUnavailable
	case tooLong:
		fe.Hint = "the request's header fields are larger than Pando accepts"
		rec.Status = http.StatusRequestHeaderFieldsTooLarge
	case errors.Is(s.head.Err, os.ErrDeadlineExceeded):
		fe.Class = flow.Timeout
		fe.Hint = "the request's head did not arrive in time"
		rec.Status = http.StatusRequestTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), cause.HasLeft(s.head.Err):
		fe.Class = flow.Canceled
		rec.Status = 0
		return closeNow
	}
	s.writeError(rec, nil, false)
	return closeGently
}

// serveOrFail is serve, and survives a panic.
func (s *session) serveOrFail(ctx context.Context, req *http.Request, rec *flow.Record) (f fate) {
	defer flow.CatchTo(func(err error) {
		rec.Err = err
		rec.Status = 0
		socket.Abort(s.c) // some of a response may have been written
		f = closeNow
	})
	return s.serve(ctx, req, rec)
}

// serve answers one request.
func (s *session) serve(ctx context.Context, req *http.Request, rec *flow.Record) fate {
	if req.Method == http.MethodConnect {
		rec.Front = flow.Connect
	} else {
		rec.Method = req.Method
	}
	if err := s.check(req, rec); err != nil {
		if _, ok := errors.AsType[*malformed](err); ok {
			req.Close = true // it is not clear where the request ends
		}
		return s.refuse(rec, req, err)
	}
	if req.Method == http.MethodConnect {
		return s.connect(ctx, req, rec)
	}
	if err := s.account.Exchange(target.IsSecure(req)); err != nil {
		return s.refuse(rec, req, err)
	}
	return s.exchange(ctx, req, rec)
}

// connect opens a tunnel. The 200 is all that this package writes: from there
// on the bytes are the client's and the target's.
func (s *session) connect(ctx context.Context, req *http.Request, rec *flow.Record) fate {
	target, err := s.p.Road.Connect(ctx, rec)
	if err != nil {
		return s.refuse(rec, req, err)
	}
	rec.Status = http.StatusOK
	s.w.WriteString("HTTP/1.1 200 Connection established\r\n\r\n")
	if err := s.w.Flush(); err != nil {
		target.Close()
		rec.Err = &flow.Error{
			Class:  flow.Canceled,
			Op:     "http",
			Target: rec.Target(),
			Err:    err,
		}
		return closeNow
	}
	s.p.remove(s)
	s.p.Road.Tunnel(rec, flow.Pair{
		Client:      s.c,
		Target:      target,
		ClientEarly: wire.ReadAhead(s.r),
	})
	return handedOver
}
