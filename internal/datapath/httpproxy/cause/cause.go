// Package cause says why an exchange with an origin ended before its response was
// complete. Connections of an exchange end one another, so an error alone does not say
// who began. The package closes nothing and writes nothing.
package cause

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

// BadResponse is the error for a response that can't be passed on.
type BadResponse struct{ Err error }

func (e *BadResponse) Error() string { return e.Err.Error() }
func (e *BadResponse) Unwrap() error { return e.Err }

// Evidence is what is known of an exchange that ended before its response was
// complete.
type Evidence struct {
	Err    error // what ended the exchange
	Upload error // why the request body is not whole; nil if it is, or is still on its way
	Cut    bool  // the gateway ended all exchanges
	Left   bool  // the client hung up while its response was awaited
}

// cause is one thing that can end an exchange.
type cause struct {
	applies func(Evidence) bool
	class   flow.Class
	hint    string
	status  int  // of the response; 0 means that of the class
	upload  bool // the error is Evidence.Upload
}

// causes holds every cause, in the order in which one brings about another: the
// gateway, then the client, then the origin. A cut closes both connections. When
// the client leaves, the exchange closes the origin's connection. So the effect
// of one cause looks like a later cause, and the first row that applies is the
// cause.
var causes = []cause{
	{
		applies: func(e Evidence) bool { return e.Cut },
		class:   flow.Cut,
		hint:    "the replica was shutting down and the drain time was over",
	},
	// The upload closes the origin's connection when it can't read the client's.
	{
		applies: func(e Evidence) bool { return IsReadError(e.Upload) && HasLeft(e.Upload) },
		class:   flow.Canceled,
		upload:  true,
	},
	{
		applies: func(e Evidence) bool { return IsReadError(e.Upload) && errors.Is(e.Upload, os.ErrDeadlineExceeded) },
		class:   flow.Timeout,
		hint:    "the request's body did not arrive in time",
		status:  http.StatusRequestTimeout,
		upload:  true,
	},
	{
		// The client may still read a response.
		applies: func(e Evidence) bool { return IsReadError(e.Upload) },
		class:   flow.BadRequest,
		hint:    "the request's body ended before it was complete, or is malformed",
		upload:  true,
	},
	// The watch closes the origin's connection when the client hangs up.
	{
		applies: func(e Evidence) bool { return e.Left || isWriteError(e.Err) },
		class:   flow.Canceled,
	},
	// From here on the origin failed. What it sent comes before how it ended.
	{
		applies: func(e Evidence) bool { _, ok := errors.AsType[*BadResponse](e.Err); return ok },
		class:   flow.BadResponse,
		hint:    "the target's answer is not a valid HTTP/1.1 response",
	},
	{
		// ETIMEDOUT is a net.Error with Timeout too, so it comes before that.
		applies: func(e Evidence) bool { return errors.Is(e.Err, syscall.ETIMEDOUT) },
		class:   flow.Timeout,
		hint:    "the target stopped answering in the middle of the connection",
	},
	{
		applies: func(e Evidence) bool { ne, ok := errors.AsType[net.Error](e.Err); return ok && ne.Timeout() },
		class:   flow.Idle,
		hint:    "the target was silent for longer than tunnel.idleTimeout",
	},
	{
		applies: func(Evidence) bool { return true },
		class:   flow.Reset,
		hint:    "the target closed the connection before its response was complete",
	},
}

// find returns the first of causes that applies, and its error.
func (e Evidence) find() (cause, error) {
	for _, c := range causes {
		if c.applies(e) {
			if c.upload {
				return c, e.Upload
			}
			return c, e.Err
		}
	}
	panic("the last cause always applies")
}

// Failure returns the error for the client and the log. target is that of the
// exchange. status is that of the response; 0 means that of the class.
func (e Evidence) Failure(target string) (fe *flow.Error, status int) {
	c, err := e.find()
	return &flow.Error{
		Class:  c.class,
		Op:     "http",
		Target: target,
		Hint:   c.hint,
		Err:    err,
	}, c.status
}

// HasLeft reports whether err means that the client's connection is gone.
func HasLeft(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, net.ErrClosed)
}

// IsBroken reports whether err is of the connection, not of what came over it.
func IsBroken(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// IsReadError reports whether err is of a body that could not be read.
func IsReadError(err error) bool {
	_, ok := errors.AsType[*wire.ReadError](err)
	return ok
}

func isWriteError(err error) bool {
	_, ok := errors.AsType[*wire.WriteError](err)
	return ok
}
