// Package watch notices a client that leaves while its request is with the
// origin. It reads nothing.
package watch

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// watchAfter is how long an exchange runs before its client is watched, so that
// quick ones need no goroutine.
const watchAfter = time.Second

// past is a deadline that ends a pending read at once.
var past = time.Unix(1, 0)

// Watch notices a client that leaves while its request is with the origin and
// nothing is read from it. A reset counts as leaving. An end of stream does
// not: a client may half-close and wait for its response. A client that has
// closed its socket looks the same at first. Its kernel forgets the connection
// after about a minute, and then answers a keep-alive probe with a reset. The
// zero value is ready.
type Watch struct {
	c     *net.TCPConn
	timer *time.Timer // nil until Start
	ended chan struct{}
	left  atomic.Bool // the client has left

	panicked atomic.Pointer[error]
}

// Start watches c, and calls onLeave, once, if its client leaves before Stop, or if
// the watch panics. Nothing may read c meanwhile.
func (w *Watch) Start(c *net.TCPConn, onLeave func()) {
	w.c = c
	w.ended = make(chan struct{})
	w.timer = time.AfterFunc(watchAfter, func() {
		defer close(w.ended)
		defer flow.CatchTo(func(err error) {
			w.panicked.Store(&err)
			onLeave()
		})
		if socket.AwaitHangUp(c) == nil {
			w.left.Store(true)
			onLeave()
		}
	})
}

// Stop ends the watch if it runs, and reports whether the client has left.
func (w *Watch) Stop() bool {
	timer := w.timer
	w.timer = nil
	if timer != nil && !timer.Stop() {
		w.c.SetReadDeadline(past)
		<-w.ended
		w.c.SetReadDeadline(time.Time{})
	}
	return w.left.Load()
}

// Left reports whether the client has left.
func (w *Watch) Left() bool { return w.left.Load() }

// Err returns the panic of the watch; nil if there was none so far.
func (w *Watch) Err() error {
	if p := w.panicked.Load(); p != nil {
		return *p
	}
	return nil
}
