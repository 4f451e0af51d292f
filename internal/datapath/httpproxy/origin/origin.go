// Package origin holds connections to origin servers: one that is in use, with
// its buffers and a bound on its silence, and a pool of idle ones. It does not
// dial.
package origin

import (
	"bufio"
	"net"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

const bufferSize = 4 << 10

// Conn is a connection to an origin server.
type Conn struct {
	net.Conn
	Target flow.Target
	// Server is the server whose certificate was verified; empty without TLS.
	Server string
	// R reads the connection through Head, which bounds the heads of responses.
	R    *bufio.Reader
	Head wire.HeadReader
	W    *bufio.Writer
	// Reused is set when the connection has served another request before.
	Reused bool
	// HadBody is set when the connection has carried a request with a body.
	HadBody bool

	hints hints // what the origin has said of the connection

	closed      chan struct{} // closed by Close
	closeOnce   sync.Once
	maxSilence  time.Duration // zero means no bound
	silentSince flow.Moment   // when the read deadline was set
	pooled      pooled        // guarded by the pool's lock
}

// New returns a connection to target, with TLS for server unless that is empty.
// maxSilence bounds the time for which the origin may send nothing once BoundSilence
// was called; zero means no bound.
func New(c net.Conn, target flow.Target, server string, maxSilence time.Duration) *Conn {
	o := &Conn{
		Conn:       c,
		Target:     target,
		Server:     server,
		W:          bufio.NewWriterSize(c, bufferSize),
		closed:     make(chan struct{}),
		maxSilence: maxSilence,
	}
	o.Head.R = boundReader{o}
	if server == "" { // a record of TLS may have come in part
		o.Head.Readable = o.readable
	}
	o.R = bufio.NewReaderSize(&o.Head, bufferSize)
	return o
}

// BoundSilence starts the time for which the origin may send nothing. After it
// reads fail with os.ErrDeadlineExceeded.
func (o *Conn) BoundSilence() {
	if o.maxSilence > 0 {
		o.silentSince.SetNow()
		o.SetReadDeadline(time.Now().Add(o.maxSilence))
	}
}

// Progress starts that time again because bytes move, in either direction. To
// set a deadline costs more than to read the clock, so Progress does so only
// when an eighth of the time has passed: the bound may be that much early.
func (o *Conn) Progress() {
	if o.maxSilence > 0 && o.silentSince.Elapsed() > o.maxSilence/8 {
		o.BoundSilence()
	}
}

// UnboundSilence lets the origin be silent.
func (o *Conn) UnboundSilence() { o.SetReadDeadline(time.Time{}) }

// Close closes the connection.
func (o *Conn) Close() error {
	o.closeOnce.Do(func() { close(o.closed) })
	return o.Conn.Close()
}

// Closed returns a channel that Close closes.
func (o *Conn) Closed() <-chan struct{} { return o.closed }

// CloseWrite ends the write side of the connection. It fails if the connection
// can't do that: with nil the caller would wait for an origin that waits too.
func (o *Conn) CloseWrite() error { return socket.CloseWrite(o.Conn) }

// hints are what an origin has said of a connection.
type hints struct {
	timeout time.Duration // how long the origin keeps it while it is idle; zero if not known
	more    int           // requests that it still takes
	counted bool          // more is known
}

// Hint records what the origin has said in a response (wire.KeepAlive). It reports false
// if the origin takes no other request. timeout and most are negative if the origin has
// not said them; what it said before holds then.
//
// Apache counts most down with each response. Node repeats its whole number.
func (o *Conn) Hint(timeout time.Duration, most int) (takesMore bool) {
	h := &o.hints
	if timeout >= 0 {
		h.timeout = timeout
	}
	h.more--
	if most >= 0 && (!h.counted || most < h.more) {
		h.more = most
		h.counted = true
	}
	return timeout != 0 && (!h.counted || h.more > 0)
}

// closingMargin is how long before its origin the pool closes an idle connection: a
// request that is on its way must arrive in time.
const closingMargin = time.Second

// idleFor returns for how long the connection may be idle, and at most most.
func (o *Conn) idleFor(most time.Duration) time.Duration {
	if o.hints.timeout == 0 {
		return most
	}
	return min(most, o.hints.timeout-min(closingMargin, o.hints.timeout/2))
}

// readable reports whether a read of the connection returns at once: with bytes, with
// its end or with an error. It does not look at what R holds.
func (o *Conn) readable() bool { return socket.Readable(o.Conn) }

// stale reports whether an idle connection is of no use any more: its time is over, the
// origin has ended it, or has sent bytes that no request asked for.
func (o *Conn) stale() bool {
	return o.R.Buffered() > 0 || time.Since(o.pooled.until) >= 0 || o.readable()
}

// boundReader reads a connection, and takes each read for progress.
type boundReader struct{ o *Conn }

func (r boundReader) Read(b []byte) (int, error) {
	r.o.Progress()
	return r.o.Conn.Read(b)
}
