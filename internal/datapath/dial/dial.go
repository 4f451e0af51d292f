// Package dial turns judged addresses into one connection. It starts the
// candidates one after the other and keeps the first that connects (RFC 8305,
// "happy eyeballs"), within one time limit. If none connects, its error says why.
// It does not resolve and does not judge.
package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// Func opens a TCP connection to one address. Its errors wrap the errno, if there
// is one.
type Func func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)

// stagger is the time between the starts of two candidates: the Connection Attempt
// Delay of RFC 8305 section 5.
const stagger = 250 * time.Millisecond

// Defaults, used where a field of Dialer is zero.
const (
	DefaultTimeout  = 10 * time.Second
	DefaultAttempts = 3
)

// What one Dial begins at most. The owner of a name chooses its addresses, so a
// request must not make the replica send a packet to each of a thousand.
const (
	maxCandidates = 6 // targets that are tried
	maxDials      = 8 // connections that are begun, over all attempts
)

// retryPause is the time between two attempts; it doubles.
const retryPause = 100 * time.Millisecond

// Dialer dials. Its fields must not change once it is in use.
type Dialer struct {
	Tailnet Func // required for targets of the tailnet
	Direct  Func // nil means the pod's own network

	// Timeout bounds one Dial, all candidates and attempts included. Zero means
	// DefaultTimeout.
	Timeout time.Duration

	// Attempts is how often the candidates are tried if the failure may be
	// temporary, such as a network or a target that changes over. A refusal is an
	// answer and is not tried again. Zero means DefaultAttempts. A Dial begins
	// maxDials connections at most, also if that is fewer attempts.
	Attempts int

	// Most returns how many dials may be in progress. One target gets a part of them.
	// Zero means any number. Nil means zero.
	Most func() int
	// Refused is called for each address that is not dialled because of what is known
	// of it, unless Refused is nil.
	Refused func()

	silence silence
	spread  spread
}

// outcome is how one candidate ended.
type outcome struct {
	conn   net.Conn
	target flow.Target
	err    error
}

// Dial returns the first connection to any of targets, and its target. The caller
// closes the connection. It tries maxCandidates of the targets: the dials of a name begin
// with each of them in turn, the families alternate, and those that failed a moment ago
// come last. If all of these fail, Dial returns the first
// failure and its target. The error is a *flow.Error of class Refused, Unreachable, Timeout,
// NoRoute, Reset, Overloaded, Canceled or Internal.
func (d *Dialer) Dial(ctx context.Context, targets []flow.Target) (net.Conn, flow.Target, error) {
	if len(targets) == 0 {
		return nil, flow.Target{}, &flow.Error{Class: flow.Internal, Op: "dial", Err: errors.New("no address to dial")}
	}
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, d.budget())
	defer cancel()
	attempts := orDefault(d.Attempts, DefaultAttempts)
	pause := retryPause
	tried := d.spread.order(targets, time.Now())
	left := maxDials - len(tried)
	conn, target, err := d.once(ctx, tried)
	for n := 1; n < attempts && left > 0 && isTemporary(err); n++ {
		if !flow.Sleep(ctx.Done(), pause) {
			break // the failure says more than the end of the time limit
		}
		pause *= 2
		tried = tried[:min(len(tried), left)]
		left -= len(tried)
		conn, target, err = d.once(ctx, tried)
	}
	if err != nil {
		return nil, target, explain(parent, target, err)
	}
	return conn, target, nil
}

// Silent returns the targets that have left many dials without an answer, in order.
// Each is dialled only once a second.
func (d *Dialer) Silent() []netip.AddrPort { return d.silence.list(time.Now()) }

// budget returns the time limit of one Dial.
func (d *Dialer) budget() time.Duration {
	if d.Timeout == 0 {
		return DefaultTimeout
	}
	return d.Timeout
}

// once tries every candidate once.
func (d *Dialer) once(ctx context.Context, targets []flow.Target) (net.Conn, flow.Target, error) {
	if len(targets) > 1 {
		return d.race(ctx, targets)
	}
	conn, err := d.one(ctx, targets[0])
	return conn, targets[0], err
}

// isTemporary reports whether another attempt may succeed.
func isTemporary(err error) bool {
	return errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.ECONNRESET)
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// race starts the candidates one after the other and returns the first connection.
// It cancels the others. A goroutine waits for them and closes connections that
// come too late.
func (d *Dialer) race(ctx context.Context, targets []flow.Target) (net.Conn, flow.Target, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan outcome)
	started := 0
	pending := 0
	start := func() {
		t := targets[started]
		started++
		pending++
		go func() {
			o := outcome{target: t}
			defer func() { results <- o }()
			defer flow.CatchIn(ctx, &o.err)
			o.conn, o.err = d.one(ctx, t)
		}()
	}
	defer func() {
		cancel()
		go reap(results, pending)
	}()
	start()
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	var first outcome // the first failure
	for {
		select {
		case <-timer.C:
			if started < len(targets) {
				start()
				timer.Reset(stagger)
			}
		case o := <-results:
			pending--
			if o.err == nil {
				d.won(targets[:started], o.target)
				return o.conn, o.target, nil
			}
			if endingOf(o.err) != unknown {
				d.spread.failed(o.target, time.Now())
			}
			if first.err == nil {
				first = o
			}
			switch {
			case started < len(targets):
				start()
				timer.Reset(stagger)
			case pending == 0:
				return nil, first.target, first.err
			}
		}
	}
}

// won notes that target has connected, and that those which were started before it have
// not: they had stagger more.
func (d *Dialer) won(started []flow.Target, target flow.Target) {
	d.spread.connected(target)
	now := time.Now()
	for _, t := range started {
		if t == target {
			return
		}
		d.spread.failed(t, now)
	}
}

// reap waits for the candidates that lost a race, and closes their connections.
func reap(results <-chan outcome, pending int) {
	for range pending {
		if o := <-results; o.conn != nil {
			o.conn.Close()
		}
	}
}

// one dials one target, unless it is known not to answer.
func (d *Dialer) one(ctx context.Context, t flow.Target) (net.Conn, error) {
	most := 0
	if d.Most != nil {
		most = d.Most()
	}
	began := time.Now()
	if err := d.silence.begin(t.Addr, most, began); err != nil {
		if d.Refused != nil {
			d.Refused()
		}
		return nil, err
	}
	how := unknown // also after a panic
	defer func() { d.silence.end(t.Addr, began, how, d.budget()/2, time.Now()) }()
	conn, err := d.open(ctx, t)
	how = endingOf(err)
	return conn, err
}

// answers are the errors of a dial which the target or its network has answered.
var answers = []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH}

// endingOf returns what the outcome of a dial says of its target.
func endingOf(err error) ending {
	switch {
	case err == nil, slices.ContainsFunc(answers, func(a error) bool { return errors.Is(err, a) }):
		return answered
	case isTimeout(err):
		return timedOut
	}
	return unknown
}

func (d *Dialer) open(ctx context.Context, t flow.Target) (net.Conn, error) {
	if t.Path == flow.Tailnet {
		return d.Tailnet(ctx, t.Addr)
	}
	if d.Direct != nil {
		return d.Direct(ctx, t.Addr)
	}
	var nd net.Dialer
	return nd.DialContext(ctx, "tcp", t.Addr.String())
}

// explain returns the *flow.Error for the failure of t. parent is the caller's
// context.
func explain(parent context.Context, t flow.Target, err error) error {
	class, hint := classify(parent, t, err)
	return &flow.Error{
		Class:  class,
		Op:     "dial",
		Target: t.Addr.String(),
		Hint:   hint,
		Err:    err,
	}
}

// classify returns the class and the hint for the failure of t.
func classify(parent context.Context, t flow.Target, err error) (flow.Class, string) {
	if fe, ok := errors.AsType[*flow.Error](err); ok {
		return fe.Class, fe.Hint
	}
	if se, ok := errors.AsType[*silentError](err); ok {
		return se.classify()
	}
	switch {
	case errors.Is(parent.Err(), context.Canceled):
		return flow.Canceled, ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return flow.Refused, "the target is up, but nothing listens on this port"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return flow.Unreachable, "the network reports that the target cannot be reached: check the routes behind the peer that carries it"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return flow.Overloaded, "no file descriptor is left: raise the limit of open files, or run more replicas"
	case errors.Is(err, syscall.EADDRNOTAVAIL) && t.Path == flow.Tailnet:
		return flow.Overloaded, "every source port for this target is in use, by open connections or by connections that ended a moment ago: reuse connections, or run more replicas"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return flow.Unreachable, "the pod has no address of the target's family, or no source port left for it"
	case errors.Is(err, syscall.ECONNRESET):
		return flow.Reset, "the target reset the connection while it was being opened"
	case isTimeout(err):
		return flow.Timeout, "the target did not answer: check that the target and its subnet router are up"
	}
	return flow.Internal, ""
}

// isTimeout reports whether err says that no answer came in time.
func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, context.DeadlineExceeded) || ok && ne.Timeout()
}
