package httpproxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// forward sends a request in absolute-form to its origin and the response
// back.
func (s *session) forward(ctx context.Context, req *http.Request, rec *flow.Record) fate {
	if done, f := s.maxForwards(req, rec); done {
		return f
	}
	targets, err := s.p.Road.Judge(ctx, rec)
	if err != nil {
		return s.refuse(rec, req, err)
	}
	for fresh := false; ; fresh = true {
		o, err := s.reach(ctx, rec, targets, fresh)
		if err != nil {
			return s.refuse(rec, req, err)
		}
		s.p.setOrigin(s, o)
		x := &exchange{s: s, o: o, req: req, rec: rec}
		f, again := x.run()
		s.p.setOrigin(s, nil)
		if !again {
			return f
		}
	}
}

// maxForwards answers a TRACE or OPTIONS that may go no further, and counts
// down (RFC 9110 section 7.6.2).
func (s *session) maxForwards(req *http.Request, rec *flow.Record) (bool, fate) {
	v := req.Header.Get("Max-Forwards")
	if v == "" || req.Method != http.MethodTrace && req.Method != http.MethodOptions {
		return false, keep
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return true, s.refuse(rec, req, badRequest("Max-Forwards wants a number", errors.New("malformed Max-Forwards")))
	}
	if n > 0 {
		req.Header.Set("Max-Forwards", strconv.Itoa(n-1))
		return false, keep
	}
	rec.Status = http.StatusOK
	s.bw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 " + s.p.name() + "\r\nConnection: close\r\n\r\n")
	s.bw.Flush()
	return true, closeGently
}

// reach returns a connection to one of targets: a pooled one, unless fresh.
func (s *session) reach(ctx context.Context, rec *flow.Record, targets []flow.Target, fresh bool) (*origin, error) {
	if !fresh {
		if o := s.p.pool.take(targets); o != nil {
			rec.Addr, rec.Path, rec.Reused = o.target.Addr, o.target.Path, true
			return o, nil
		}
	}
	rec.Reused = false
	c, err := s.p.Road.Dial(ctx, rec, targets)
	if err != nil {
		return nil, err
	}
	o := &origin{
		Conn: c, target: flow.Target{Addr: rec.Addr, Path: rec.Path},
		bw: bufio.NewWriterSize(c, ioBuffer),
	}
	o.silence.c, o.silence.bound = c, s.p.SilenceTimeout
	o.limit = limitReader{r: &o.silence, left: noLimit}
	o.br = bufio.NewReaderSize(&o.limit, ioBuffer)
	return o, nil
}

// exchange is one request on its way, over one origin connection.
type exchange struct {
	s   *session
	o   *origin
	req *http.Request
	rec *flow.Record

	sent      chan error // gets the outcome of the request body; nil when there is none on its way
	sentWhole bool       // that outcome was nil
	bodyMu    sync.Mutex // orders the deadlines of its reads
	bodyEnded bool       // it is not to be read any further; guarded by bodyMu
	watch     watch      // runs once the request is out
	heard     bool       // the origin sent something
	answered  bool       // some of the response reached the client
}

// badResponse is a response that can't be passed on.
type badResponse struct{ error }

var errHeadTooLong = &badResponse{errors.New("its response head is larger than this gateway accepts")}

// run sends the request and copies the response. again says that nothing was
// lost and the request may go out once more over a fresh connection.
func (x *exchange) run() (f fate, again bool) {
	if err := x.send(); err != nil {
		return x.failed(err)
	}
	if x.sent == nil {
		x.watchClient()
	}
	x.o.silence.restart()
	// All heads of one response, interim ones included, share the bound.
	limit := orDefault(x.s.p.MaxHeaderBytes, DefaultMaxHeaderBytes)
	x.o.limit.left = limit
	for {
		resp, err := http.ReadResponse(x.o.br, x.req)
		x.heard = x.o.limit.left < limit
		if err != nil {
			switch {
			case x.o.limit.left <= 0:
				err = errHeadTooLong
			case x.heard && !broken(err):
				err = &badResponse{err}
			}
			return x.failed(err)
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			x.o.limit.left = noLimit
		}
		switch {
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return x.upgrade(resp), false
		case resp.StatusCode >= 200:
			return x.respond(resp), false
		case x.req.ProtoAtLeast(1, 1): // RFC 9110 section 15.2: not to HTTP/1.0 clients
			x.answered = true
			x.writeHead(resp, nil)
			x.s.bw.WriteString("\r\n")
			if err := x.s.flush(); err != nil {
				return x.failed(err)
			}
		}
	}
}

// send writes the head, and sees the body off.
func (x *exchange) send() error {
	w := x.o.bw
	req := x.req
	w.WriteString(req.Method + " " + originForm(req) + " HTTP/1.1\r\nHost: " + req.Host + "\r\n")
	options := connectionOptions(req.Header)
	hasBody := req.Body != http.NoBody
	for k, vs := range req.Header {
		if hopByHop[k] || options[k] || k == "Via" || k == "Expect" && !(hasBody && req.ProtoAtLeast(1, 1)) {
			continue
		}
		writeField(w, k, vs)
	}
	writeField(w, "Via", []string{via(req.Header["Via"], req.ProtoMajor, req.ProtoMinor, x.s.p.name())})
	switch {
	case options["Upgrade"] && req.Header.Get("Upgrade") != "" && req.ProtoAtLeast(1, 1):
		w.WriteString("Connection: Upgrade\r\n")
		writeField(w, "Upgrade", req.Header["Upgrade"])
	case headerHasToken(req.Header["Te"], "trailers"):
		w.WriteString("Connection: TE\r\nTE: trailers\r\n")
	}
	chunked := hasBody && req.ContentLength < 0
	switch {
	case chunked:
		w.WriteString("Transfer-Encoding: chunked\r\n")
		writeTrailerField(w, req.Trailer)
	case hasBody || len(req.Header["Content-Length"]) > 0:
		w.WriteString("Content-Length: " + strconv.FormatInt(max(req.ContentLength, 0), 10) + "\r\n")
	}
	w.WriteString("\r\n")
	switch {
	case !hasBody:
	case !chunked && req.ContentLength <= int64(x.s.br.Buffered()):
		// The whole body is here: no need for a second goroutine.
		n, err := io.Copy(w, req.Body)
		x.rec.Up += n
		if err != nil {
			return err
		}
	default:
		if err := w.Flush(); err != nil {
			return err
		}
		x.sent = make(chan error, 1)
		go x.sendBody(chunked)
		return nil
	}
	return w.Flush()
}

// sendBody copies the request body to the origin. It ends when the body does,
// or when either connection is closed or timed out by the exchange.
func (x *exchange) sendBody(chunked bool) {
	w := x.o.bw
	var dst io.Writer = w
	var cw io.WriteCloser
	if chunked {
		cw = httputil.NewChunkedWriter(w)
		dst = cw
	}
	n, err := copyFlushing(dst, w, x.req.Body, x.s.br, func() {
		x.setBodyDeadline(time.Now().Add(orDefault(x.s.p.BodyTimeout, DefaultBodyTimeout)))
		x.o.silence.progress() // the origin has no reason to speak yet
	})
	x.setBodyDeadline(time.Time{})
	x.rec.Up += n // read by others only after sent
	if err == nil && chunked {
		if err = cw.Close(); err == nil {
			writeTrailers(w, x.req.Trailer)
			_, err = w.WriteString("\r\n")
		}
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		x.o.silence.restart()
		x.watchClient()
	}
	x.sent <- err
	if _, ok := errors.AsType[*readError](err); ok {
		x.o.Close() // the client broke off: the origin must not wait for the rest
	}
}

// watchClient has the exchange end when its client leaves.
func (x *exchange) watchClient() { x.watch.start(x.s.c, func() { x.o.Close() }) }

// settle ends the request body, if it is still on its way, and pools or
// closes the origin connection. It reports whether the client's connection is
// at the start of the next request.
func (x *exchange) settle(reusable bool) bool {
	whole := x.sent == nil || x.bodySent(0)
	if !whole {
		x.endBody() // ends the copier's read
		x.o.Close() // and its write
		<-x.sent
		x.s.c.SetReadDeadline(time.Time{})
	}
	gone := x.watch.stop()
	if whole && reusable && !gone && x.o.br.Buffered() == 0 {
		x.s.p.pool.put(x.o, orDefault(x.s.p.IdleTimeout, DefaultIdleTimeout))
	} else {
		x.o.Close()
	}
	return whole
}

// setBodyDeadline bounds the reading of the request body, unless that has been
// ended.
func (x *exchange) setBodyDeadline(t time.Time) {
	x.bodyMu.Lock()
	defer x.bodyMu.Unlock()
	if !x.bodyEnded {
		x.s.c.SetReadDeadline(t)
	}
}

// endBody ends the reading of the request body.
func (x *exchange) endBody() {
	x.bodyMu.Lock()
	defer x.bodyMu.Unlock()
	x.bodyEnded = true
	x.s.c.SetReadDeadline(time.Unix(1, 0))
}

// bodyGrace is how long a response waits for word that the request body it
// answers went out whole: the two often cross.
const bodyGrace = 5 * time.Millisecond

// bodySent reports whether the request body went out whole, and waits for that
// at most for grace.
func (x *exchange) bodySent(grace time.Duration) bool {
	if x.sentWhole {
		return true
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case err := <-x.sent:
		x.sentWhole = err == nil
		if err != nil {
			x.sent <- err // for those who ask why
		}
	case <-t.C:
	}
	return x.sentWhole
}

// upgrade turns the exchange into a tunnel (RFC 9110 section 7.8).
func (x *exchange) upgrade(resp *http.Response) fate {
	s, rec := x.s, x.rec
	if !connectionOptions(x.req.Header)["Upgrade"] {
		f, _ := x.failed(errors.New("the origin switched protocols unasked"))
		return f
	}
	if x.sent != nil && !x.bodySent(bodyGrace) {
		f, _ := x.failed(errors.New("the origin switched protocols in the middle of the request"))
		return f
	}
	if x.watch.stop() {
		f, _ := x.failed(net.ErrClosed)
		return f
	}
	x.writeHead(resp, nil)
	s.bw.WriteString("Connection: Upgrade\r\n")
	writeField(s.bw, "Upgrade", resp.Header["Upgrade"])
	s.bw.WriteString("\r\n")
	if err := s.flush(); err != nil {
		f, _ := x.failed(err)
		return f
	}
	x.o.silence.stop()
	rec.Status = http.StatusSwitchingProtocols
	s.p.remove(s)
	s.p.Road.Tunnel(rec, flow.Pair{Client: s.c, Target: x.o.Conn, ClientEarly: buffered(s.br), TargetEarly: buffered(x.o.br)})
	return handedOver
}

// failed ends an exchange that has no response.
func (x *exchange) failed(err error) (fate, bool) {
	err = x.classify(err)
	whole := x.settle(false)
	if flow.ClassOf(err) == flow.Reset && x.o.reused && x.sent == nil && !x.heard && x.rec.Up == 0 && replayable(x.req) {
		return keep, true // the origin closed an idle connection as we took it
	}
	x.rec.Err = err
	if x.answered || flow.ClassOf(err) == flow.Canceled {
		return closeNow, false
	}
	if !whole {
		if x.rec.Status == 0 {
			x.rec.Status = statusFor(flow.ClassOf(x.rec.Err)).code
		}
		x.s.writeError(x.rec, x.req, false)
		return closeGently, false
	}
	return x.s.refuse(x.rec, x.req, x.rec.Err), false
}

// classify says whose failure err is.
func (x *exchange) classify(err error) error {
	fe := &flow.Error{Class: flow.Reset, Op: "http", Target: x.rec.Target(), Err: err,
		Hint: "the target closed the connection before its response was complete"}
	ne, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ETIMEDOUT):
		fe.Class, fe.Hint = flow.Timeout, "the target stopped answering in the middle of the connection"
	case isNet && ne.Timeout():
		fe.Class, fe.Hint = flow.Idle, "the target was silent for longer than tunnel.idleTimeout"
	}
	if bad, ok := errors.AsType[*badResponse](err); ok {
		fe.Class, fe.Hint, fe.Err = flow.BadResponse, "the target's answer is no valid HTTP/1.1 response", bad.error
	}
	if _, ok := errors.AsType[*writeError](err); ok || x.watch.left.Load() {
		fe.Class, fe.Hint = flow.Canceled, ""
	}
	if x.s.p.isCut() {
		fe.Class, fe.Hint = flow.Cut, "the gateway was shutting down and the drain time was over"
		return fe
	}
	if x.sent != nil && !x.sentWhole {
		select {
		case serr := <-x.sent:
			x.sent <- serr // for settle
			re, ok := errors.AsType[*readError](serr)
			switch {
			case ok && gone(re):
				fe.Class, fe.Hint, fe.Err = flow.Canceled, "", re
			case ok:
				// Malformed, or cut short; the client may still be listening.
				fe.Class, fe.Hint, fe.Err = flow.BadRequest, "the request's body ended before it was complete, or is malformed", re
				if errors.Is(re, os.ErrDeadlineExceeded) {
					fe.Class, fe.Hint = flow.Timeout, "the request's body did not arrive in time"
					x.rec.Status = http.StatusRequestTimeout
				}
			}
		default:
		}
	}
	return fe
}

// broken reports whether err is of the connection, not of what came over it.
func broken(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// replayable reports whether req may be sent twice (RFC 9110 section 9.2.2).
func replayable(req *http.Request) bool {
	if req.Body != http.NoBody {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
