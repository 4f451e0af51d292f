package httpproxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// badResponse is the error for a response that can't be passed on.
type badResponse struct{ error }

func (e *badResponse) Unwrap() error { return e.error }

// evidence is what is known of an exchange that ended before its response was
// complete.
type evidence struct {
	err    error // what ended the exchange
	upload error // why the request body is not whole; nil if it is, or is still on its way
	cut    bool  // Proxy.Cut was called
	left   bool  // the client hung up while its response was awaited
}

// cause is one thing that can end an exchange.
type cause struct {
	applies func(evidence) bool
	class   flow.Class
	hint    string
	status  int  // of the response; 0 means that of the class
	upload  bool // the error is evidence.upload
}

// causes holds every cause, in the order in which one brings about another: the
// gateway, then the client, then the origin. A cut closes both connections. When
// the client leaves, the exchange closes the origin's connection. So the effect
// of one cause looks like a later cause, and the first row that applies is the
// cause.
var causes = []cause{
	{
		applies: func(e evidence) bool { return e.cut },
		class:   flow.Cut,
		hint:    "the replica was shutting down and the drain time was over",
	},
	// The upload closes the origin's connection when it can't read the client's.
	{
		applies: func(e evidence) bool { return isReadError(e.upload) && hasLeft(e.upload) },
		class:   flow.Canceled,
		upload:  true,
	},
	{
		applies: func(e evidence) bool { return isReadError(e.upload) && errors.Is(e.upload, os.ErrDeadlineExceeded) },
		class:   flow.Timeout,
		hint:    "the request's body did not arrive in time",
		status:  http.StatusRequestTimeout,
		upload:  true,
	},
	{
		// The client may still read a response.
		applies: func(e evidence) bool { return isReadError(e.upload) },
		class:   flow.BadRequest,
		hint:    "the request's body ended before it was complete, or is malformed",
		upload:  true,
	},
	// The watch closes the origin's connection when the client hangs up.
	{
		applies: func(e evidence) bool { return e.left || isWriteError(e.err) },
		class:   flow.Canceled,
	},
	// From here on the origin failed. What it sent comes before how it ended.
	{
		applies: func(e evidence) bool { _, ok := errors.AsType[*badResponse](e.err); return ok },
		class:   flow.BadResponse,
		hint:    "the target's answer is not a valid HTTP/1.1 response",
	},
	{
		// ETIMEDOUT is a net.Error with Timeout too, so it comes before that.
		applies: func(e evidence) bool { return errors.Is(e.err, syscall.ETIMEDOUT) },
		class:   flow.Timeout,
		hint:    "the target stopped answering in the middle of the connection",
	},
	{
		applies: func(e evidence) bool { ne, ok := errors.AsType[net.Error](e.err); return ok && ne.Timeout() },
		class:   flow.Idle,
		hint:    "the target was silent for longer than tunnel.idleTimeout",
	},
	{
		applies: func(evidence) bool { return true },
		class:   flow.Reset,
		hint:    "the target closed the connection before its response was complete",
	},
}

// cause returns the first of causes that applies, and its error.
func (e evidence) cause() (cause, error) {
	for _, c := range causes {
		if c.applies(e) {
			if c.upload {
				return c, e.upload
			}
			return c, e.err
		}
	}
	panic("the last cause always applies")
}

// failure turns err, which ended the exchange, into the error for the client
// and the log. status is that of the response; 0 means that of the class. Call
// it before release, which closes connections and so adds evidence of its own.
func (x *exchange) failure(err error) (fe *flow.Error, status int) {
	if why, ok := errors.AsType[*flow.Error](x.whyRevoked()); ok {
		return why, 0
	}
	_, uploadErr := x.upload.done(0)
	for _, err := range []error{uploadErr, x.watch.Err()} {
		if fe, ok := errors.AsType[*flow.Error](err); ok { // it has panicked
			return fe, 0
		}
	}
	c, err := evidence{
		err:    err,
		upload: uploadErr,
		cut:    x.s.p.isCut(),
		left:   x.watch.Left(),
	}.cause()
	return &flow.Error{
		Class:  c.class,
		Op:     "http",
		Target: x.rec.Target(),
		Hint:   c.hint,
		Err:    err,
	}, c.status
}

// hasLeft reports whether err means that the client's connection is gone.
func hasLeft(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, net.ErrClosed)
}

// isBroken reports whether err is of the connection, not of what came over it.
func isBroken(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func isReadError(err error) bool {
	_, ok := errors.AsType[*wire.ReadError](err)
	return ok
}

func isWriteError(err error) bool {
	_, ok := errors.AsType[*wire.WriteError](err)
	return ok
}
