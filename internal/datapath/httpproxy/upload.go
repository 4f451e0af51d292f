package httpproxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/cause"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// bodyGrace is how long a response waits until the request body that it answers
// has gone out whole: the two often cross.
const bodyGrace = 5 * time.Millisecond

// past is a deadline that ends a pending read at once.
var past = time.Unix(1, 0)

// upload sends the body of a request to the origin, in a goroutine of its own,
// so that the origin may answer before the body has ended. An upload that was
// never started counts as done.
type upload struct {
	x     *exchange
	ended chan struct{} // closed when the body has ended in some way; nil before start
	err   error         // why the body is not whole; written before ended is closed
	last  atomic.Bool   // the last bytes of the body are being sent, or have been

	mu      sync.Mutex // orders the read deadlines of the client's connection
	stopped bool       // no deadline is set any more; guarded by mu
}

// start sends the body of the exchange's request. done or stop must follow.
func (u *upload) start() {
	u.ended = make(chan struct{})
	go u.run()
}

// sent reports whether the body has gone out whole, or its last bytes are on
// their way.
func (u *upload) sent() bool { return u.ended == nil || u.last.Load() }

// done reports whether the body went out whole, and waits for that for grace at
// most. err says why it did not; it is nil while the body is on its way.
func (u *upload) done(grace time.Duration) (whole bool, err error) {
	if u.ended == nil {
		return true, nil
	}
	select {
	case <-u.ended:
		return u.err == nil, u.err
	default:
	}
	if grace == 0 {
		return false, nil
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-u.ended:
		return u.err == nil, u.err
	case <-t.C:
		return false, nil
	}
}

// stop ends the upload and waits for its goroutine. It closes the origin's
// connection, because the request on it stays incomplete. Reads of the client's
// connection have no deadline after it.
func (u *upload) stop() {
	c := u.x.s.c
	u.mu.Lock()
	u.stopped = true
	c.SetReadDeadline(past) // ends a read of the body
	u.mu.Unlock()
	u.x.o.Close() // ends a write of the body
	<-u.ended
	c.SetReadDeadline(time.Time{})
}

// run sends the body. It ends with the body, or when a connection is closed or
// the time for a read is over.
func (u *upload) run() {
	err := u.send()
	u.err = err
	close(u.ended)
	if cause.IsReadError(err) || flow.IsPanic(err) {
		// The client broke off: without this the origin would wait for the rest.
		// It comes last, so that the exchange finds the cause in u.err.
		u.x.o.Close()
	}
}

// send copies the body.
func (u *upload) send() (err error) {
	defer flow.Catch(&err)
	x := u.x
	timeout := orDefault(x.s.p.BodyTimeout, DefaultBodyTimeout)
	body := wire.Body{
		Reader:  wire.BodyReader(x.req.TransferEncoding, x.req.Body, x.s.r),
		Source:  &x.s.head,
		Chunked: wire.IsChunked(x.req),
		BeforeRead: func() {
			u.setReadDeadline(time.Now().Add(timeout))
			x.o.Progress() // an origin may be silent while it receives
		},
		BeforeEnd: func() { u.last.Store(true) },
		Pace:      x.pace,
		Up:        true,
		Stop:      x.o.Closed(),
	}
	n, err := body.CopyTo(x.o.W)
	u.setReadDeadline(time.Time{})
	x.s.p.droppedTrailers(body.DroppedTrailers)
	x.rec.Up += n // others read it once ended is closed
	if err == nil {
		x.o.BoundSilence()
		x.watchClient()
	}
	return err
}

// setReadDeadline bounds the next read of the body, unless the upload was
// stopped.
func (u *upload) setReadDeadline(t time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.stopped {
		u.x.s.c.SetReadDeadline(t)
	}
}
