// Package mux accepts connections and hands each to a front end. It shares one
// port among the proxies: the first byte of a connection says which protocol
// its client speaks. The byte is peeked at, not read, so a front end gets the
// connection as it came in, a *net.TCPConn that nothing wraps. The package
// parses nothing else.
package mux

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/socket"
)

// Protocol is what a first byte says.
type Protocol uint8

const (
	Unknown Protocol = iota
	HTTP             // a letter: the start of a method; or an empty line before it, RFC 9112 section 2.2
	SOCKS5           // the version number 5, RFC 1928 section 3
	SOCKS4
	TLS // a handshake record, RFC 8446 section 5.1
)

func (p Protocol) String() string {
	return [...]string{"unknown", "http", "socks5", "socks4", "tls"}[p]
}

// Detect tells the protocol from the first byte that its client sends.
func Detect(first byte) Protocol {
	switch {
	case first >= 'A' && first <= 'Z', first >= 'a' && first <= 'z', first == '\r', first == '\n':
		return HTTP
	case first == 5:
		return SOCKS5
	case first == 4:
		return SOCKS4
	case first == 0x16:
		return TLS
	}
	return Unknown
}

// Front speaks to one client. Both methods take the connection and close it.
type Front interface {
	// Serve reports whether a tunnel took the connection over, and the client's
	// place with it.
	Serve(ctx context.Context, c *net.TCPConn) (tunnelled bool)
	// Refuse answers with why, a *flow.Error, without waiting for a request.
	Refuse(c *net.TCPConn, why error)
}

// Role is what a listener is for.
type Role struct {
	// Front serves all its clients. Nil lets the first byte choose between the
	// Mux's HTTP and SOCKS5.
	Front Front
	// TargetFirst says that the target may be the first to speak, so that no
	// byte of the client is waited for.
	TargetFirst bool
}

// DefaultPeekTimeout is used when Mux.PeekTimeout is zero.
const DefaultPeekTimeout = 10 * time.Second

// A client that is refused is told why in its own protocol, for which it has
// to say a byte. So that refusing costs less than serving, few may take their
// time for it; the others are reset.
const (
	refuseTime = time.Second
	refusals   = 64 // at a time
)

// Mux accepts connections and hands each to its front end. Its fields must not
// change once it serves.
type Mux struct {
	HTTP, SOCKS5 Front

	// Enter lets a client in, or says why not; each that came in Leaves when
	// its front end is through with it, unless a tunnel took its place over,
	// which leaves it then. Nil lets everybody in.
	Enter func(client netip.Addr) error
	Leave func(client netip.Addr)

	// PeekTimeout is how long a client may take to send its first byte. Zero
	// means DefaultPeekTimeout.
	PeekTimeout time.Duration
	// Silent, when set, is told of each client that let that time pass.
	Silent func()
	Log    *slog.Logger

	refusing atomic.Int32

	accepted atomic.Int64 // when the last connection came, in Unix nanoseconds

	wg      sync.WaitGroup
	mu      sync.Mutex
	silent  map[*net.TCPConn]struct{} // connections whose first byte is awaited
	drained bool
}

// Serve accepts from ln, a port, until ln is closed, and then returns nil.
// Connections that were handed over go on under ctx.
func (m *Mux) Serve(ctx context.Context, ln *net.TCPListener, role Role) error {
	var failures socket.AcceptFailures
	for {
		c, err := ln.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of descriptors, or a client that left the queue: neither is
			// a reason to stop, and neither may spin.
			if err := failures.Wait(ctx, m.Log, err); err != nil {
				return err
			}
			continue
		}
		failures.Over()
		m.accepted.Store(time.Now().UnixNano())
		m.admit(ctx, c, role)
	}
}

// admit starts what becomes of a connection.
func (m *Mux) admit(ctx context.Context, c *net.TCPConn, role Role) {
	var full error
	client := socket.ClientAddr(c).Addr()
	if m.Enter != nil {
		full = m.Enter(client)
	}
	switch {
	case full == nil:
		m.wg.Go(func() {
			if tunnelled := m.dispatch(ctx, c, role); !tunnelled && m.Leave != nil {
				m.Leave(client)
			}
		})
	case m.refusing.Add(1) <= refusals:
		m.wg.Go(func() {
			m.turnAway(c, role, full)
			m.refusing.Add(-1)
		})
	default:
		m.refusing.Add(-1)
		socket.Abort(c)
	}
}

// Quiet returns how long no connection has come.
func (m *Mux) Quiet() time.Duration { return time.Since(time.Unix(0, m.accepted.Load())) }

// Drain closes the connections that have not said anything yet. Call it when
// the listeners are closed.
func (m *Mux) Drain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drained = true
	for c := range m.silent {
		c.Close()
	}
}

// Wait returns when no front end's handler runs any more, or ctx's error.
func (m *Mux) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { m.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Mux) dispatch(ctx context.Context, c *net.TCPConn, role Role) (tunnelled bool) {
	if role.TargetFirst {
		return role.Front.Serve(ctx, c)
	}
	if !m.await(c) {
		c.Close()
		return false
	}
	timeout := m.PeekTimeout
	if timeout == 0 {
		timeout = DefaultPeekTimeout
	}
	p, err := m.detect(c, timeout)
	m.forget(c)
	switch {
	case err != nil:
		if errors.Is(err, os.ErrDeadlineExceeded) && m.Silent != nil {
			m.Silent()
		}
		c.Close()
	case role.Front != nil:
		return role.Front.Serve(ctx, c)
	case p == HTTP:
		return m.HTTP.Serve(ctx, c)
	case p == SOCKS5:
		return m.SOCKS5.Serve(ctx, c)
	default:
		m.misdirected(c, p)
	}
	return false
}

// turnAway refuses a client for which there is no room.
func (m *Mux) turnAway(c *net.TCPConn, role Role, why error) {
	if role.Front != nil {
		role.Front.Refuse(c, why)
		return
	}
	switch p, err := m.detect(c, refuseTime); {
	case err == nil && p == HTTP:
		m.HTTP.Refuse(c, why)
	case err == nil && p == SOCKS5:
		m.SOCKS5.Refuse(c, why)
	default:
		socket.Abort(c)
	}
}

// detect waits for c's first byte, at most for timeout.
func (m *Mux) detect(c *net.TCPConn, timeout time.Duration) (Protocol, error) {
	c.SetReadDeadline(time.Now().Add(timeout))
	first, err := socket.Peek(c)
	c.SetReadDeadline(time.Time{})
	if err != nil {
		m.Log.Debug("client sent nothing", "client", c.RemoteAddr(), "err", err)
	}
	return Detect(first), err
}

// misdirected answers what no front end speaks, in its own language where there
// is one, and says in the log what the client should have done.
func (m *Mux) misdirected(c *net.TCPConn, p Protocol) {
	hint := "this port speaks HTTP and SOCKS5"
	switch p {
	case TLS:
		c.Write([]byte{21, 3, 1, 0, 2, 2, 10}) // alert: fatal, unexpected_message
		hint = "the client speaks TLS to the proxy itself: its proxy setting should be http://, not https://"
	case SOCKS4:
		c.Write([]byte{0, 0x5b, 0, 0, 0, 0, 0, 0}) // request rejected
		hint = "the client speaks SOCKS4: set it to SOCKS5 (socks5h://)"
	}
	m.Log.Info("connection refused", "client", c.RemoteAddr().String(), "protocol", p.String(), "hint", hint)
	socket.CloseGently(c)
}

func (m *Mux) await(c *net.TCPConn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drained {
		return false
	}
	if m.silent == nil {
		m.silent = map[*net.TCPConn]struct{}{}
	}
	m.silent[c] = struct{}{}
	return true
}

func (m *Mux) forget(c *net.TCPConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.silent, c)
}
