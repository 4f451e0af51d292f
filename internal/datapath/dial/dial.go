// Package dial turns judged addresses into one connection. It races the
// candidates (RFC 8305, "happy eyeballs") within one time budget and says why
// when none answers. It does not resolve and does not judge.
package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// Func opens a TCP connection to one address. Its errors wrap the errno.
type Func func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)

// stagger is how long a candidate has before the next one starts beside it:
// the Connection Attempt Delay of RFC 8305 section 5.
const stagger = 250 * time.Millisecond

// Defaults, used where a field of Dialer is zero.
const (
	DefaultTimeout  = 10 * time.Second
	DefaultAttempts = 3
)

// retryPause is the time between two attempts; it doubles.
const retryPause = 100 * time.Millisecond

// Dialer dials. Its fields must not change once it is in use.
type Dialer struct {
	Tailnet Func // required for targets of the tailnet
	Direct  Func // nil means the host's own network

	// Timeout bounds one Dial, all candidates and attempts included. Zero means
	// DefaultTimeout.
	Timeout time.Duration

	// Attempts is how often the candidates are tried when what failed may pass:
	// a network or a target that is changing over. A refusal is an answer and
	// is not tried again. Zero means DefaultAttempts.
	Attempts int
}

// outcome is how one candidate ended.
type outcome struct {
	conn   net.Conn
	target flow.Target
	err    error
}

// Dial returns the first connection that any target gives, and that target; or
// the first failure, and the target that it is of.
// The caller closes the connection. The error is a *flow.Error of class
// Refused, Unreachable, Timeout, NoRoute, Reset, Canceled or Internal.
func (d *Dialer) Dial(ctx context.Context, targets []flow.Target) (net.Conn, flow.Target, error) {
	if len(targets) == 0 {
		return nil, flow.Target{}, &flow.Error{Class: flow.Internal, Op: "dial", Err: errors.New("no address to dial")}
	}
	budget := d.Timeout
	if budget == 0 {
		budget = DefaultTimeout
	}
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	conn, target, err := d.once(ctx, targets)
	for n, pause := 1, retryPause; passing(err) && n < orDefault(d.Attempts, DefaultAttempts); n, pause = n+1, 2*pause {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
			conn, target, err = d.once(ctx, targets)
			continue
		case <-ctx.Done(): // what failed says more than that there is no time left
		}
		t.Stop()
		break
	}
	if err != nil {
		return nil, target, d.explain(parent, target, err)
	}
	return conn, target, nil
}

// once tries every candidate.
func (d *Dialer) once(ctx context.Context, targets []flow.Target) (net.Conn, flow.Target, error) {
	if len(targets) > 1 {
		return d.race(ctx, interleave(targets))
	}
	conn, err := d.one(ctx, targets[0])
	return conn, targets[0], err
}

// passing reports whether another attempt may fare better.
func passing(err error) bool {
	return errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.ECONNRESET)
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// race starts the candidates one after the other and keeps the first winner.
// It waits for the losers, which end as soon as ctx does, in the background.
func (d *Dialer) race(ctx context.Context, targets []flow.Target) (net.Conn, flow.Target, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan outcome)
	started, pending := 0, 0
	start := func() {
		t := targets[started]
		started++
		pending++
		go func() {
			c, err := d.one(ctx, t)
			results <- outcome{c, t, err}
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
				return o.conn, o.target, nil
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

// reap closes what the losers of a race still bring home.
func reap(results <-chan outcome, pending int) {
	for range pending {
		if o := <-results; o.conn != nil {
			o.conn.Close()
		}
	}
}

func (d *Dialer) one(ctx context.Context, t flow.Target) (net.Conn, error) {
	if t.Path == flow.Tailnet {
		return d.Tailnet(ctx, t.Addr)
	}
	if d.Direct != nil {
		return d.Direct(ctx, t.Addr)
	}
	var nd net.Dialer
	return nd.DialContext(ctx, "tcp", t.Addr.String())
}

// interleave alternates the families, the first target's first (RFC 8305
// section 4).
func interleave(targets []flow.Target) []flow.Target {
	var mine, other []flow.Target
	for _, t := range targets {
		if t.Addr.Addr().Is4() == targets[0].Addr.Addr().Is4() {
			mine = append(mine, t)
		} else {
			other = append(other, t)
		}
	}
	out := make([]flow.Target, 0, len(targets))
	for i := range max(len(mine), len(other)) {
		if i < len(mine) {
			out = append(out, mine[i])
		}
		if i < len(other) {
			out = append(out, other[i])
		}
	}
	return out
}

// explain gives err its class and its hint.
func (d *Dialer) explain(parent context.Context, t flow.Target, err error) error {
	fe := &flow.Error{Class: flow.Internal, Op: "dial", Target: t.Addr.String(), Err: err}
	if had, ok := errors.AsType[*flow.Error](err); ok {
		fe.Class, fe.Hint = had.Class, had.Hint
		return fe
	}
	var ne net.Error
	switch {
	case errors.Is(parent.Err(), context.Canceled):
		fe.Class = flow.Canceled
	case errors.Is(err, syscall.ECONNREFUSED):
		fe.Class, fe.Hint = flow.Refused, "the target is up, but nothing listens on this port"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		fe.Class, fe.Hint = flow.Unreachable, "the network says that the target can't be reached from where it is routed"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		fe.Class, fe.Hint = flow.Overloaded, "no file descriptor is left: raise the limit of open files, or run more replicas"
	case errors.Is(err, syscall.EADDRNOTAVAIL) && t.Path == flow.Tailnet:
		fe.Class, fe.Hint = flow.Overloaded, "every source port is taken for this target, by connections that are open or ended a moment ago: keep them open for longer, or run more replicas"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		fe.Class, fe.Hint = flow.Unreachable, "this host has no address of its family, or no source port left for it"
	case errors.Is(err, syscall.ECONNRESET):
		fe.Class, fe.Hint = flow.Reset, "the target cut the connection while it was being opened"
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		fe.Class, fe.Hint = flow.Timeout, "nothing answered: is the target up, and the subnet router that carries it?"
	}
	return fe
}
