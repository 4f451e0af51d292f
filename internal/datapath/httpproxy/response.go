package httpproxy

import (
	"errors"
	"net/http"
	"syscall"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/cause"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/socket"
)

var errHeadTooLong = &cause.BadResponse{Err: errors.New("the response head is larger than Pando accepts")}

// readHead reads the head of the next response, interim or final. The error is a
// *cause.BadResponse if the origin sent something that is not a response.
func (x *exchange) readHead() (*wire.Response, error) {
	head := &x.o.Head
	resp, err := head.ReadResponse(x.o.R, x.req)
	switch {
	case err != nil && head.Exceeded():
		return nil, errHeadTooLong
	case err != nil && head.Started() && !cause.IsBroken(err):
		return nil, &cause.BadResponse{Err: err}
	case err != nil:
		return nil, err
	}
	if err := wire.CheckResponse(resp.Response); err != nil {
		return nil, &cause.BadResponse{Err: err}
	}
	if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
		head.End()
		x.early = !x.upload.sent()
	}
	return resp, nil
}

// passInterim passes an interim response on. Clients of HTTP/1.0 do not know
// them (RFC 9110 section 15.2).
func (x *exchange) passInterim(resp *wire.Response) error {
	if !x.req.ProtoAtLeast(1, 1) {
		return nil
	}
	x.answered = true
	wire.WriteInterim(x.s.w, resp, x.s.p.name())
	return wire.Flush(x.s.w)
}

// respond copies the final response and releases both connections.
func (x *exchange) respond(resp *wire.Response) fate {
	x.rec.Status = resp.StatusCode
	x.answered = true
	f := x.framing(resp)
	wire.WriteFinal(x.s.w, x.req, resp, f, x.s.p.name())
	if err := x.copyBody(resp, f); err != nil {
		x.rec.Err, _ = x.failure(err) // the client has the origin's status already
		x.release(origin.Broken)
		x.s.c.SetLinger(0) // the client must not take this for a whole response
		return closeNow
	}
	if x.release(x.outcome(resp)) && f.Persist {
		return keep
	}
	return closeGently
}

// framing decides how resp reaches the client (RFC 9112 section 6.3).
func (x *exchange) framing(resp *wire.Response) wire.Framing {
	f := wire.Framing{
		Body:    wire.BodyAllowed(x.req, resp.Response),
		Persist: x.s.persistent(x.req),
	}
	if f.Body && resp.ContentLength < 0 {
		if x.req.ProtoAtLeast(1, 1) {
			f.Chunked = true
		} else {
			f.Persist = false // HTTP/1.0: the end of the connection is the end of the body
		}
	}
	if whole, _ := x.upload.done(bodyGrace); !whole {
		f.Persist = false // an early response: the rest of the request is still to come
	}
	return f
}

// copyBody copies the body of a final response, if it has one.
func (x *exchange) copyBody(resp *wire.Response, f wire.Framing) error {
	if !f.Body {
		return wire.Flush(x.s.w)
	}
	body := wire.Body{
		Reader:  wire.BodyReader(resp.TransferEncoding, resp.Body, x.o.R),
		Source:  &x.o.Head,
		Chunked: f.Chunked,
		Pace:    x.pace,
		Stop:    x.o.Closed(),
	}
	n, err := body.CopyTo(x.s.w)
	if err == nil && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && socket.Lost(x.o.Conn) {
		err = &wire.ReadError{Err: syscall.ECONNRESET} // the upload got it
	}
	x.rec.Down = n
	x.s.p.droppedTrailers(body.DroppedTrailers)
	return err
}
