// Package relay copies bytes between two connections until both directions
// have ended. It is the only code that does. Each direction ends alone (RFC
// 9293 section 3.6.1): a clean end is passed on by closing the write side, and
// the other direction goes on; an error ends both, and with a reset, so that
// neither side takes a broken stream for a whole one.
//
// Start hands a pair over and returns at once: nothing that began the pair has
// to stay for it.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
	Err  error // nil after a clean end of both directions; else a *flow.Error
}

// Relay owns all running pairs. The zero value is ready.
type Relay struct {
	mu    sync.Mutex
	pairs map[*pair]struct{}
	idle  chan struct{} // closed when the last pair ends while someone waits
	cut   *flow.Error   // set once: no pair outlives it

	active atomic.Int64
}

// pair is a flow.Pair in motion.
type pair struct {
	flow.Pair
	relay    *Relay
	done     func(Result)
	up, down atomic.Int64

	clientEnded atomic.Bool  // its stream has come to its end
	targetEnded atomic.Int64 // likewise; 1 and the bytes that had gone up by then, 0 before

	seen  int64     // bytes that had moved at since; guarded by relay.mu, as is
	since time.Time // when EndIdle saw that first

	left  atomic.Int32 // directions that still run
	once  sync.Once
	cause error // the first failure; guarded by once
}

// Start takes both connections, joins them and returns. When both directions
// have ended, both connections are closed and done is called, once, from
// another goroutine. The pair is over when done has returned. Until then moved
// tells the bytes that have gone up and down.
func (r *Relay) Start(p flow.Pair, done func(Result)) (moved func() (up, down int64)) {
	pr := &pair{Pair: p, relay: r, done: done}
	pr.left.Store(2)
	r.mu.Lock()
	cut := r.cut
	if r.pairs == nil {
		r.pairs = map[*pair]struct{}{}
	}
	r.pairs[pr] = struct{}{}
	r.active.Add(1)
	r.mu.Unlock()
	if cut != nil {
		pr.fail(cut) // both directions end as they begin
	}
	go pr.upward()
	go pr.downward()
	return pr.moved
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

// EndIdle ends the pairs over which nothing has moved since EndIdle saw them
// first for longer than timeout, and returns how many. It is called again and
// again: how often bounds how late an idle pair ends.
func (r *Relay) EndIdle(timeout time.Duration, now time.Time) int {
	var list []*pair
	r.mu.Lock()
	for p := range r.pairs {
		if moved := p.up.Load() + p.down.Load(); moved != p.seen || p.since.IsZero() {
			p.seen, p.since = moved, now
		} else if now.Sub(p.since) >= timeout {
			list = append(list, p)
		}
	}
	r.mu.Unlock()
	for _, p := range list {
		p.fail(&flow.Error{Class: flow.Idle, Op: "relay", Err: fmt.Errorf("nothing moved for %v", timeout),
			Hint: "the tunnel was idle for longer than tunnel.idleTimeout"})
	}
	return len(list)
}

// Cut ends all pairs with a reset and cause as their error, refuses new ones,
// waits until all are gone, or ctx ends, and returns how many it cut.
func (r *Relay) Cut(ctx context.Context, cause string) int {
	err := &flow.Error{Class: flow.Cut, Op: "relay", Err: errors.New(cause)}
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

// side is one of the two connections as the relay sees it.
type side struct {
	conn  net.Conn
	early []byte // read from it already
	name  string
	class flow.Class // what its failure is called
}

func (p *pair) client() side {
	return side{p.Client, p.ClientEarly, "client", flow.Canceled}
}

func (p *pair) target() side {
	return side{p.Target, p.TargetEarly, "target", flow.Reset}
}

func (p *pair) upward()   { p.direction(p.client(), p.target(), &p.up) }
func (p *pair) downward() { p.direction(p.target(), p.client(), &p.down) }

// direction copies src to dst until src ends, and passes the end on.
func (p *pair) direction(src, dst side, count *atomic.Int64) {
	err := copyEarly(dst.conn, src.early, count)
	if err == nil {
		err = pump(dst.conn, src.conn, count)
	}
	if err == nil {
		if src.conn == p.Client {
			p.clientEnded.Store(true)
		} else {
			p.targetEnded.Store(1 + p.up.Load())
		}
		err = asWriteError(socket.CloseWrite(dst.conn))
	}
	if err != nil {
		p.failed(err, src, dst)
	}
	if p.left.Add(-1) > 0 {
		return
	}
	p.Client.Close()
	p.Target.Close()
	p.once.Do(func() {}) // no failure any more: cause may be read
	p.done(Result{Up: p.up.Load(), Down: p.down.Load(), Err: p.cause})
	p.relay.remove(p) // last: whoever waits for the pairs waits for their records
}

// failed ends the pair after err and names the side that broke.
func (p *pair) failed(err error, src, dst side) {
	broken := src
	if we, ok := errors.AsType[*writeError](err); ok {
		broken, err = dst, we.error
	}
	if broken.conn == p.Client && (p.clientEnded.Load() || p.targetEnded.Load() == 1+p.up.Load()) {
		// It closed its socket instead of half-closing it, with bytes unread or
		// still to come, such as the target's TLS close_notify: it had no more
		// to say, and what it wanted it has.
		p.fail(nil)
		return
	}
	fe := &flow.Error{Class: broken.class, Op: "relay", Target: broken.name, Err: err}
	switch {
	case broken.conn != p.Target:
	case errors.Is(err, syscall.ETIMEDOUT):
		fe.Class, fe.Hint = flow.Timeout, "the target stopped answering in the middle of the connection"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		fe.Class, fe.Hint = flow.Unreachable, "the target can't be reached any more, in the middle of the connection"
	}
	p.fail(fe)
}

// fail ends both directions at once; the first cause is kept. A nil cause is
// no failure, but an end all the same.
func (p *pair) fail(cause error) {
	p.once.Do(func() {
		p.cause = cause
		socket.Abort(p.Client)
		socket.Abort(p.Target)
	})
}

func (r *Relay) remove(p *pair) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pairs, p)
	r.active.Add(-1)
	if len(r.pairs) == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

func copyEarly(dst net.Conn, early []byte, count *atomic.Int64) error {
	if len(early) == 0 {
		return nil
	}
	return forward(dst, early, count)
}

// writeError is an error of the side that is written to.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

func asWriteError(err error) error {
	if err == nil {
		return nil
	}
	return &writeError{err}
}

// isEnd reports whether a read error is the clean end of the stream.
func isEnd(err error) bool { return errors.Is(err, io.EOF) }
