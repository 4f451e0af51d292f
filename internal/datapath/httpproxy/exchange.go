package httpproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/cause"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/target"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/watch"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// exchange sends a request to its origin and the response back.
func (s *session) exchange(ctx context.Context, req *http.Request, rec *flow.Record) fate {
	if f, done := s.maxForwards(req, rec); done {
		return f
	}
	targets, err := s.p.Road.Judge(ctx, rec)
	if err != nil {
		return s.refuse(rec, req, err)
	}
	var server string // for TLS
	req.Host, server, err = target.HostField(req, rec.Host, rec.Port)
	if err != nil {
		return s.refuse(rec, req, err)
	}
	// An origin may close an idle connection while a request is on its way. It is not known
	// then whether the origin has served the request. So a request that must not be sent
	// twice gets a connection that has served no other one.
	for fresh := !wire.Replayable(req); ; fresh = true {
		o, err := s.reach(ctx, rec, targets, server, fresh)
		if err != nil {
			return s.refuse(rec, req, err)
		}
		x := newExchange(s, o, req, rec)
		s.p.setExchange(s, x)
		s.p.Road.Serving(rec, x.revoke)
		f := x.run()
		s.p.setExchange(s, nil)
		if f != resend {
			return f
		}
	}
}

// maxForwards answers a TRACE or OPTIONS that may go no further. done reports that
// the request has been answered.
func (s *session) maxForwards(req *http.Request, rec *flow.Record) (f fate, done bool) {
	last, err := wire.CountMaxForwards(req)
	if err != nil {
		return s.refuse(rec, req, badRequest("Max-Forwards needs a number", err)), true
	}
	if !last {
		return keep, false
	}
	rec.Status = http.StatusOK
	s.w.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 " + s.p.name() + "\r\nConnection: close\r\n\r\n")
	s.w.Flush()
	return closeGently, true
}

// reach returns a connection to one of targets: a pooled one if there is one,
// or always a new one if fresh is set. It has TLS for server, unless that is empty.
func (s *session) reach(ctx context.Context, rec *flow.Record, targets []flow.Target, server string, fresh bool) (*origin.Conn, error) {
	if !fresh {
		if o := s.p.pool.Take(owner(rec), targets, server); o != nil {
			rec.Addr = o.Target.Addr
			rec.Path = o.Target.Path
			rec.Reused = true
			return o, nil
		}
	}
	rec.Reused = false
	c, err := s.p.Road.Dial(ctx, rec, targets)
	if err != nil {
		return nil, err
	}
	if server != "" {
		start := time.Now()
		c, err = s.p.Secure.Open(ctx, c, server)
		rec.Dial += time.Since(start)
		if err != nil {
			return nil, err
		}
	}
	return origin.New(c, flow.Target{Addr: rec.Addr, Path: rec.Path}, server, s.p.SilenceTimeout), nil
}

// exchange is one request and its response, over one origin connection. It
// ends with either respond, upgrade or failed.
type exchange struct {
	s   *session
	o   *origin.Conn
	req *http.Request
	rec *flow.Record

	pace     func(up bool, n int) time.Duration // nil without a rate of bytes
	upload   upload                             // the request body
	watch    watch.Watch                        // runs once the request is with the origin
	answered bool                               // some of a response has been written to the client
	early    bool                               // the final response began before the request was sent whole
	revoked  error                              // why it was ended from outside, a *flow.Error; guarded by s.p.mu
}

func newExchange(s *session, o *origin.Conn, req *http.Request, rec *flow.Record) *exchange {
	x := &exchange{
		s:   s,
		o:   o,
		req: req,
		rec: rec,
	}
	x.upload.x = x
	if s.p.Pace != nil {
		x.pace = s.p.Pace(rec.Client.Addr())
	}
	return x
}

// run sends the request and copies the response. It returns resend if nothing
// is lost and the request may go out once more over a fresh connection.
func (x *exchange) run() (f fate) {
	defer flow.CatchTo(func(err error) {
		x.release(origin.Broken) // ends what else works for the exchange
		panic(err)               // serveOrFail ends the flow
	})
	// All heads of one response, interim ones included, share the bound.
	x.o.Head.Begin(orDefault(x.s.p.MaxHeaderBytes, DefaultMaxHeaderBytes))
	if err := x.send(); err != nil {
		return x.failed(err)
	}
	x.o.BoundSilence()
	for {
		resp, err := x.readHead()
		switch {
		case err != nil:
			return x.failed(err)
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return x.upgrade(resp)
		case x.answersIdle(resp):
			x.release(origin.Broken)
			return resend
		case resp.StatusCode >= 200:
			return x.respond(resp)
		}
		if err := x.passInterim(resp); err != nil {
			return x.failed(err)
		}
	}
}

// send writes the request's head and sends its body. A body that has a rate, or has not
// arrived whole yet, is sent by x.upload, while the response may come already.
func (x *exchange) send() error {
	hasBody := x.req.Body != http.NoBody
	x.o.HadBody = x.o.HadBody || hasBody
	wire.WriteRequestHead(x.o.W, x.req, x.s.head.Order, x.s.p.name())
	if hasBody && (x.pace != nil || wire.IsChunked(x.req) || x.req.ContentLength > int64(x.s.r.Buffered())) {
		if err := x.o.W.Flush(); err != nil {
			return err
		}
		x.upload.start()
		return nil
	}
	if hasBody {
		n, err := io.Copy(x.o.W, x.req.Body)
		x.rec.Up += n
		if err != nil {
			return err
		}
	}
	if err := x.o.W.Flush(); err != nil {
		return err
	}
	x.watchClient()
	return nil
}

// watchClient ends the exchange if its client leaves. The request is with the
// origin, so nothing reads the client's connection until the exchange ends.
func (x *exchange) watchClient() { x.watch.Start(x.s.c, func() { x.o.Close() }) }

// upgrade turns the exchange into a tunnel (RFC 9110 section 7.8).
func (x *exchange) upgrade(resp *wire.Response) fate {
	if err := wire.CheckSwitch(x.req, resp.Response); err != nil {
		return x.failed(&cause.BadResponse{Err: err})
	}
	if whole, _ := x.upload.done(bodyGrace); !whole {
		return x.failed(&cause.BadResponse{Err: errors.New("the origin switched protocols before the request was complete")})
	}
	if x.watch.Stop() {
		return x.failed(net.ErrClosed)
	}
	s := x.s
	wire.WriteSwitch(s.w, resp, s.p.name())
	if err := wire.Flush(s.w); err != nil {
		return x.failed(err)
	}
	x.o.UnboundSilence()
	x.rec.Status = http.StatusSwitchingProtocols
	s.p.remove(s)
	s.p.Road.Tunnel(x.rec, flow.Pair{
		Client:      s.c,
		Target:      x.o.Conn,
		ClientEarly: wire.ReadAhead(s.r),
		TargetEarly: wire.ReadAhead(x.o.R),
	})
	return handedOver
}

// answersIdle reports whether resp is not for the request, but says that the origin has
// closed an idle connection as this request took it (RFC 9110 section 15.5.9).
func (x *exchange) answersIdle(resp *wire.Response) bool {
	return resp.StatusCode == http.StatusRequestTimeout && x.o.Reused && !x.answered && wire.Replayable(x.req)
}

// failed ends an exchange that has no response.
func (x *exchange) failed(err error) fate {
	fe, status := x.failure(err)
	x.release(origin.Broken)
	if fe.Class == flow.Reset && x.o.Reused && !x.o.Head.Started() && wire.Replayable(x.req) {
		return resend // the origin closed the idle connection as this request took it
	}
	x.rec.Err = fe
	if x.answered || fe.Class == flow.Canceled || x.whyRevoked() != nil {
		return closeNow
	}
	x.rec.Status = status
	return x.s.refuse(x.rec, x.req, fe)
}
