// Package relay copies the bytes of tunnels: between two connections, until
// both directions have ended. Each direction ends by itself (RFC 9293 section
// 3.6.1). A clean end is passed on by closing the write side, and the other
// direction continues. An error ends both directions with a reset, so that
// neither side takes a broken stream for a whole one.
//
// Start takes a pair of connections and returns at once: the goroutine that
// calls it need not stay. The package does not decide, resolve or dial, and
// does not know what the bytes mean.
package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Result is how a pair ended.
type Result struct {
	Up   int64 // bytes from client to target
	Down int64 // bytes from target to client
	Err  error // nil after a clean end of both directions, otherwise a *flow.Error
}

// Relay owns all running pairs. The zero value is ready.
type Relay struct {
	// Account is called with each change of the bytes of memory that a pair holds
	// for its owner. It must not change once the relay is in use. Nil counts
	// nothing.
	Account func(owner netip.Addr, delta int64)
	// Pace is called for each pair. It returns nil, or a function that takes n bytes of
	// one direction from the rate of the pair's owner, and returns how long they must
	// wait. Nil means that no bytes wait. It must not change once the relay is in use.
	Pace func(owner netip.Addr) func(up bool, n int) (wait time.Duration)
	// Panicked is called with a panic that no Result can hold. Nil means nothing to
	// call. It must not change once the relay is in use.
	Panicked func(error)

	mu    sync.Mutex
	pairs map[*pair]struct{}
	idle  chan struct{} // closed when the last pair ends while a Wait runs; nil without one
	cut   *flow.Error   // set by Cut: pairs that start later end with it

	active atomic.Int64
}

// pair is a flow.Pair whose bytes are being copied.
type pair struct {
	flow.Pair
	relay    *Relay
	done     func(Result)
	up, down atomic.Int64 // bytes copied
	running  atomic.Int32 // directions that have not ended

	pace func(up bool, n int) time.Duration // nil without a rate
	stop chan struct{}                      // closed by fail; nil without a rate

	clientEnded   atomic.Bool  // the client has ended its stream
	targetEnded   atomic.Bool  // the target has ended its stream
	upAtTargetEnd atomic.Int64 // up at that moment; set before targetEnded

	// EndIdle keeps these; guarded by relay.mu.
	seen  int64     // up and down together, as EndIdle last saw them
	since time.Time // when EndIdle first saw that

	born  time.Time
	share float64 // from 0 to 1: how much of the jitter of EndOld it gets

	memory memory

	mu    sync.Mutex
	ended bool  // cause does not change any more
	cause error // the first failure; nil without one
}

// Start takes both connections, copies between them and returns. When both
// directions have ended, Start's goroutines close both connections and call
// done once. The pair is over when done has returned. Until then moved returns
// the bytes that have gone up and down, and end ends the pair with a reset because
// of a *flow.Error. Later, end does nothing.
func (r *Relay) Start(p flow.Pair, done func(Result)) (moved func() (up, down int64), end func(error)) {
	pr := &pair{
		Pair:  p,
		relay: r,
		done:  done,
		born:  time.Now(),
		share: rand.Float64(),
	}
	if r.Pace != nil {
		pr.pace = r.Pace(p.Owner)
	}
	if pr.pace != nil {
		pr.stop = make(chan struct{})
	}
	pr.running.Store(2)
	pr.account(FirstHeld)
	r.mu.Lock()
	cut := r.cut
	if r.pairs == nil {
		r.pairs = map[*pair]struct{}{}
	}
	r.pairs[pr] = struct{}{}
	r.active.Add(1)
	r.mu.Unlock()
	if cut != nil {
		pr.fail(cut) // both directions end as soon as they begin
	}
	go pr.upward()
	go pr.downward()
	return pr.moved, pr.fail
}

func (p *pair) moved() (up, down int64) { return p.up.Load(), p.down.Load() }

// Active returns the number of running pairs.
func (r *Relay) Active() int { return int(r.active.Load()) }

// Wait returns nil once no pair is running, or ctx's error.
func (r *Relay) Wait(ctx context.Context) error {
	r.mu.Lock()
	if len(r.pairs) == 0 {
		r.mu.Unlock()
		return nil
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// EndIdle ends the pairs over which nothing has moved for timeout, and returns
// how many it ended. Call it at regular times, with the current time as now:
// EndIdle compares with what it saw in the calls before, so a pair may stay
// idle for one such interval longer.
func (r *Relay) EndIdle(timeout time.Duration, now time.Time) int {
	return r.endEach(func(p *pair) bool {
		moved := p.up.Load() + p.down.Load()
		if moved != p.seen || p.since.IsZero() {
			p.seen = moved
			p.since = now
			return false
		}
		return now.Sub(p.since) >= timeout
	}, flow.Error{
		Class: flow.Idle,
		Op:    "relay",
		Hint:  "the tunnel was idle for longer than tunnel.idleTimeout",
		Err:   fmt.Errorf("nothing moved for %v", timeout),
	})
}

// endEach ends each pair for which over is true, with a copy of why, and returns
// how many it ended. over is called with r.mu held.
func (r *Relay) endEach(over func(*pair) bool, why flow.Error) int {
	var list []*pair
	r.mu.Lock()
	for p := range r.pairs {
		if over(p) {
			list = append(list, p)
		}
	}
	r.mu.Unlock()
	for _, p := range list {
		own := why
		p.fail(&own)
	}
	return len(list)
}

// Cut ends all pairs with a reset, and those that start later too. cause is
// the text of their error. Cut waits until all have ended, or until ctx ends,
// and returns how many there were.
func (r *Relay) Cut(ctx context.Context, cause string) int {
	err := &flow.Error{
		Class: flow.Cut,
		Op:    "relay",
		Err:   errors.New(cause),
	}
	r.mu.Lock()
	r.cut = err
	var list []*pair
	for p := range r.pairs {
		list = append(list, p)
	}
	r.mu.Unlock()
	for _, p := range list {
		p.fail(err)
	}
	r.Wait(ctx)
	return len(list)
}

// side is one of the two connections.
type side struct {
	conn  net.Conn
	name  string
	class flow.Class // of an error of this connection
}

func (p *pair) client() side {
	return side{
		conn:  p.Client,
		name:  "client",
		class: flow.Canceled,
	}
}

func (p *pair) target() side {
	return side{
		conn:  p.Target,
		name:  "target",
		class: flow.Reset,
	}
}

func (p *pair) upward()   { p.direction(p.client(), p.target(), &p.up) }
func (p *pair) downward() { p.direction(p.target(), p.client(), &p.down) }

// direction copies src to dst until src ends, and passes the end on. The
// direction that ends last ends the pair.
func (p *pair) direction(src, dst side, count *atomic.Int64) {
	if err := p.copy(src, dst, count); err != nil {
		p.failed(err, src, dst)
	}
	if p.running.Add(-1) > 0 {
		return
	}
	defer p.relay.remove(p) // last: whoever waits for the pairs waits for their records
	defer flow.CatchTo(func(err error) {
		if p.relay.Panicked != nil {
			p.relay.Panicked(err)
		}
	})
	p.Client.Close()
	p.Target.Close()
	p.account(-1)
	p.done(Result{
		Up:   p.up.Load(),
		Down: p.down.Load(),
		Err:  p.end(),
	})
}

func (p *pair) copy(src, dst side, count *atomic.Int64) (err error) {
	defer flow.Catch(&err)
	to := p.writerTo(dst)
	if early := p.takeEarly(src); len(early) > 0 {
		if err := writeCounted(to, early, count); err != nil {
			return err
		}
	}
	if err := pump(to, src.conn, count); err != nil {
		return err
	}
	if socket.Lost(src.conn) && !p.hasEnded(dst) { // in this order: Lost is true after both ends, too
		return syscall.ECONNRESET
	}
	if src.conn == p.Client {
		p.clientEnded.Store(true)
	} else {
		p.upAtTargetEnd.Store(p.up.Load())
		p.targetEnded.Store(true)
	}
	return asWriteError(socket.CloseWrite(dst.conn))
}

// hasEnded reports whether the stream from s has ended.
func (p *pair) hasEnded(s side) bool {
	if s.conn == p.Client {
		return p.clientEnded.Load()
	}
	return p.targetEnded.Load()
}

// takeEarly returns what was read from src before the relay, and keeps nothing of it:
// the pair may live for hours. Only the direction from src calls it.
func (p *pair) takeEarly(src side) []byte {
	field := &p.TargetEarly
	if src.conn == p.Client {
		field = &p.ClientEarly
	}
	early := *field
	*field = nil
	return early
}

// failed ends the pair after err, as a failure of the connection that broke.
func (p *pair) failed(err error, src, dst side) {
	if flow.IsPanic(err) {
		p.fail(err)
		return
	}
	broken := src
	if we, ok := errors.AsType[*writeError](err); ok {
		broken = dst
		err = we.error
	}
	if broken.conn == p.Client && p.clientIsDone() {
		p.fail(nil)
		return
	}
	fe := &flow.Error{
		Class:  broken.class,
		Op:     "relay",
		Target: broken.name,
		Err:    err,
	}
	switch {
	case broken.conn != p.Target:
	case errors.Is(err, syscall.ETIMEDOUT):
		fe.Class = flow.Timeout
		fe.Hint = "the target stopped answering in the middle of the connection"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		fe.Class = flow.Unreachable
		fe.Hint = "the target became unreachable in the middle of the connection"
	}
	p.fail(fe)
}

// clientIsDone reports whether a client whose connection breaks has sent and
// received all that it wanted: it has ended its stream, or has sent nothing
// since the target ended its own. Such a client closes its socket instead of
// half-closing it. The bytes that are unread then, or still come, such as the
// target's TLS close_notify, make a reset of that.
func (p *pair) clientIsDone() bool {
	return p.clientEnded.Load() || p.targetEnded.Load() && p.up.Load() == p.upAtTargetEnd.Load()
}

// fail ends both directions at once. The first call sets the cause; later ones
// do nothing. With a nil cause the pair ends without a failure.
func (p *pair) fail(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	p.cause = cause
	if p.stop != nil {
		close(p.stop)
	}
	socket.Abort(p.Client)
	socket.Abort(p.Target)
}

// end returns the cause and keeps it: EndIdle or Cut may call fail even now.
func (p *pair) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	return p.cause
}

func (r *Relay) remove(p *pair) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pairs, p)
	r.active.Add(-1)
	if len(r.pairs) > 0 {
		return
	}
	r.pairs = nil // a map keeps its size
	if r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}
