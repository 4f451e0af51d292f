package httpproxy

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/socket"
)

// watchAfter is how long an exchange runs before its client is watched: quick
// ones pay for no goroutine.
const watchAfter = time.Second

// watch looks out for a client that leaves while nothing is read from it,
// because its request is with the origin. A reset counts as leaving. An end of
// stream does not: a client may half-close and wait for its answer; one that
// is gone altogether resets the connection when keep-alive asks (after a
// minute, as its kernel forgets it). The zero value is ready.
type watch struct {
	c     *net.TCPConn
	timer *time.Timer // nil until start
	done  chan struct{}
	left  atomic.Bool
}

// start watches c and calls gone, once, if its client leaves before stop.
// Nobody may read c meanwhile.
func (w *watch) start(c *net.TCPConn, gone func()) {
	w.c, w.done = c, make(chan struct{})
	w.timer = time.AfterFunc(watchAfter, func() {
		defer close(w.done)
		if socket.AwaitHangUp(c) == nil {
			w.left.Store(true)
			gone()
		}
	})
}

// stop ends the watch, if there still is one, and reports whether the client has
// left.
func (w *watch) stop() bool {
	timer := w.timer
	w.timer = nil
	if timer != nil && !timer.Stop() {
		w.c.SetReadDeadline(time.Unix(1, 0))
		<-w.done
		w.c.SetReadDeadline(time.Time{})
	}
	return w.left.Load()
}
