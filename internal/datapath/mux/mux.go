// Package mux accepts connections and hands each to a front. The proxies
// share one port: the first byte of a connection says which protocol its client
// speaks. The mux peeks at this byte and does not read it, so the front gets
// the connection as it came in, a *net.TCPConn without a wrapper. The package
// parses nothing else, except the header with which a load balancer says who its
// client is (package proxyheader).
package mux

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/mux/proxyheader"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// protocol is what the first byte of a connection stands for.
type protocol uint8

const (
	protoUnknown protocol = iota
	protoHTTP             // a letter, which begins a method, or an empty line before it (RFC 9112 section 2.2)
	protoSOCKS5           // the version number 5, RFC 1928 section 3
	protoSOCKS4           // the version number 4
	protoTLS              // a handshake record, RFC 8446 section 5.1
	protoPROXY            // a header of the PROXY protocol, before the client's own bytes
)

var protocolNames = [...]string{"unknown", "http", "socks5", "socks4", "tls", "proxy"}

func (p protocol) String() string { return protocolNames[p] }

// detect returns the protocol of a client by the bytes that it sends first, at least
// one. All but one of the protocols need no more than that.
func detect(begin []byte) protocol {
	switch proxyheader.Detect(begin) {
	case proxyheader.Version1, proxyheader.Version2:
		return protoPROXY
	}
	first := begin[0]
	switch {
	case first >= 'A' && first <= 'Z', first >= 'a' && first <= 'z', first == '\r', first == '\n':
		return protoHTTP
	case first == 5:
		return protoSOCKS5
	case first == 4:
		return protoSOCKS4
	case first == 0x16:
		return protoTLS
	}
	return protoUnknown
}

// Front speaks to one client. Both methods take the connection and close it.
type Front interface {
	// Serve reports whether the connection became a tunnel. The tunnel then owns
	// the connection, and leaves the client's place when it ends (Mux.Leave).
	Serve(ctx context.Context, c *net.TCPConn) (tunnelled bool)
	// Refuse answers with why, a *flow.Error, without waiting for a request.
	Refuse(c *net.TCPConn, why error)
}

// Role is what a listener is for.
type Role struct {
	// Front serves all clients of the listener. Nil lets the first byte choose
	// between the Mux's fronts.
	Front Front
	// TargetFirst is for protocols in which the target may speak first. The mux
	// then does not wait for a byte of the client.
	TargetFirst bool
	// Senders are the addresses of load balancers whose connections begin with a header
	// of the PROXY protocol. Its client is then the client. A header from elsewhere is
	// refused, unless TargetFirst has it passed on to the target.
	Senders []netip.Prefix
}

// Defaults, used where a field of Mux is zero.
const (
	defaultPeekTimeout   = 10 * time.Second
	defaultHeaderTimeout = 30 * time.Second
)

// A refused client is answered in its own protocol, so its first byte must be
// read. To keep refusing cheaper than serving, at most maxRefusals clients are
// answered at a time, and each must send its byte within refuseTimeout. The
// rest are reset.
const (
	refuseTimeout = time.Second
	maxRefusals   = 64
)

// Mux accepts connections and hands each to a front. Its fields must not
// change once it serves.
type Mux struct {
	HTTP, SOCKS5, SOCKS4 Front

	// Enter takes a place for a client, or returns the reason for which there is
	// none. The mux calls Leave when the front has served the client, except
	// if a tunnel took the place over: the tunnel then leaves it. Nil gives every
	// client a place.
	Enter func(client netip.Addr) error
	Leave func(client netip.Addr)
	// Pace returns how long a new connection of client must wait, or the reason for
	// which it is refused. Nil means that none waits.
	Pace func(client netip.Addr) (wait time.Duration, err error)
	// Answer reports whether a client that was refused gets an answer in its protocol.
	// Otherwise its connection is reset. Nil answers all, as far as there is time.
	Answer func(client netip.Addr) bool
	// EnterSender takes a place for a connection whose header is awaited, or returns the
	// reason for which there is none. Nil gives every connection a place.
	EnterSender func(sender netip.Addr) (leave func(), err error)

	// PeekTimeout is how long a client may take to send its first byte. Zero
	// means 10 seconds.
	PeekTimeout time.Duration
	// HeaderTimeout is how long a trusted sender may take to send its header. Zero means
	// 30 seconds.
	HeaderTimeout time.Duration
	// Silent is called for each client that sends nothing, and for each sender whose
	// header is not complete, in that time. Nil means nothing to call.
	Silent func()
	// Panicked is called with the panic of a front that has not ended its flow
	// by itself. Nil means nothing to call.
	Panicked func(error)
	Log      *slog.Logger

	refusing atomic.Int32 // clients that turnAway answers
	accepted flow.Moment  // when the last connection came

	handlers sync.WaitGroup
	mu       sync.Mutex
	silent   map[*net.TCPConn]struct{} // connections whose first byte is awaited; guarded by mu
	drained  bool                      // no first byte is awaited any more; guarded by mu
}

// Serve accepts from ln until ln is closed, and then returns nil. It returns
// ctx's error if ctx ends while accepting fails. Connections that a front
// serves continue under ctx.
func (m *Mux) Serve(ctx context.Context, ln *net.TCPListener, role Role) error {
	var failures socket.AcceptFailures
	for {
		c, err := ln.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			// The process is out of descriptors, or a client left the queue.
			// Neither is a reason to stop, or to try again without a pause.
			if err := failures.Wait(ctx, m.Log, err); err != nil {
				return err
			}
			continue
		}
		failures.Over()
		m.accepted.SetNow()
		m.admit(ctx, c, role)
	}
}

// admit takes a new connection and starts what serves or refuses it.
func (m *Mux) admit(ctx context.Context, c *net.TCPConn, role Role) {
	if sender := socket.ClientAddr(c).Addr(); role.trusts(sender) {
		m.admitSender(ctx, c, role, sender)
		return
	}
	m.admitClient(ctx, c, role)
}

// admitClient is admit for a connection whose client is known.
func (m *Mux) admitClient(ctx context.Context, c *net.TCPConn, role Role) {
	var full error
	var wait time.Duration
	client := socket.ClientAddr(c).Addr()
	if m.Pace != nil {
		wait, full = m.Pace(client)
	}
	if full == nil && m.Enter != nil {
		full = m.Enter(client)
	}
	switch {
	case full == nil:
		m.handlers.Go(func() {
			defer socket.Forget(c)
			flow.Sleep(ctx.Done(), wait)
			tunnelled := m.serve(ctx, c, role)
			if !tunnelled && m.Leave != nil {
				m.Leave(client)
			}
		})
	case m.refusing.Add(1) <= maxRefusals && (m.Answer == nil || m.Answer(client)):
		m.handlers.Go(func() {
			defer socket.Forget(c)
			defer m.refusing.Add(-1)
			defer flow.CatchTo(func(err error) { m.panicked(c, err) })
			m.turnAway(c, role, full)
		})
	default:
		m.refusing.Add(-1)
		socket.Forget(c)
		socket.Abort(c)
	}
}

// Quiet returns for how long no connection has come.
func (m *Mux) Quiet() time.Duration { return m.accepted.Elapsed() }

// Drain closes the connections whose client has not sent anything yet. Call it
// when the listeners are closed.
func (m *Mux) Drain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drained = true
	for c := range m.silent {
		c.Close()
	}
}

// Wait returns nil when no front serves a client any more, or ctx's error.
// Tunnels do not count: a front returns when a tunnel begins.
func (m *Mux) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		m.handlers.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve is dispatch, and survives a panic.
func (m *Mux) serve(ctx context.Context, c *net.TCPConn, role Role) (tunnelled bool) {
	defer flow.CatchTo(func(err error) {
		tunnelled = false
		m.panicked(c, err)
	})
	return m.dispatch(ctx, c, role)
}

// panicked ends the connection whose goroutine has panicked.
func (m *Mux) panicked(c *net.TCPConn, err error) {
	socket.Abort(c)
	if m.Panicked != nil {
		m.Panicked(err)
	}
}

// dispatch hands a connection to its front. It takes c and closes it, unless
// it became a tunnel, which it reports.
func (m *Mux) dispatch(ctx context.Context, c *net.TCPConn, role Role) (tunnelled bool) {
	if role.TargetFirst {
		return role.Front.Serve(ctx, c)
	}
	p, err := m.firstByte(c)
	switch {
	case err != nil:
		c.Close()
		return false
	case p == protoPROXY:
		m.unexpectedHeader(c, role)
		return false
	case role.Front != nil:
		return role.Front.Serve(ctx, c)
	}
	if front := m.front(p); front != nil {
		return front.Serve(ctx, c)
	}
	m.misdirected(c, p)
	return false
}

// front returns the front that speaks p, or nil if none does.
func (m *Mux) front(p protocol) Front {
	switch p {
	case protoHTTP:
		return m.HTTP
	case protoSOCKS5:
		return m.SOCKS5
	case protoSOCKS4:
		return m.SOCKS4
	}
	return nil
}

// firstByte waits for c's first byte, and lets Drain end the wait.
func (m *Mux) firstByte(c *net.TCPConn) (protocol, error) {
	if !m.addSilent(c) {
		return protoUnknown, net.ErrClosed
	}
	defer m.removeSilent(c)
	p, err := m.detect(c, m.peekTimeout())
	if errors.Is(err, os.ErrDeadlineExceeded) && m.Silent != nil {
		m.Silent()
	}
	return p, err
}

func (m *Mux) peekTimeout() time.Duration { return cmp.Or(m.PeekTimeout, defaultPeekTimeout) }

// turnAway refuses a client, and reports whether a front has answered it. It takes c
// and closes it.
func (m *Mux) turnAway(c *net.TCPConn, role Role, why error) (answered bool) {
	if role.Front != nil {
		role.Front.Refuse(c, why)
		return true
	}
	p, err := m.detect(c, refuseTimeout)
	front := m.front(p)
	if err != nil || front == nil {
		socket.Abort(c)
		return false
	}
	front.Refuse(c, why)
	return true
}

// detect waits for as many of c's first bytes as it takes, for timeout at most. One
// is nearly always enough.
func (m *Mux) detect(c *net.TCPConn, timeout time.Duration) (protocol, error) {
	c.SetReadDeadline(time.Now().Add(timeout))
	var b [proxyheader.PeekSize]byte
	n, err := socket.Peek(c, b[:], func(b []byte) bool { return proxyheader.Detect(b) != proxyheader.Begun })
	c.SetReadDeadline(time.Time{})
	if n == 0 {
		m.Log.Debug("client sent nothing", "client", c.RemoteAddr(), "err", err)
		return protoUnknown, err
	}
	return detect(b[:n]), nil
}

// misdirected refuses a client whose protocol no front speaks, in that
// protocol if it has a refusal. The log says what to change. It takes c and
// closes it.
func (m *Mux) misdirected(c *net.TCPConn, p protocol) {
	hint := "this port speaks HTTP and SOCKS5; check the client's proxy setting"
	if p == protoTLS {
		c.Write([]byte{21, 3, 1, 0, 2, 2, 10}) // alert: fatal, unexpected_message
		hint = "the client speaks TLS to the proxy itself; its proxy setting should be http://, not https://"
	}
	m.Log.Info("client speaks an unsupported protocol", "client", c.RemoteAddr().String(), "protocol", p.String(), "hint", hint)
	socket.CloseGently(c)
}

// addSilent records that c's first byte is awaited. It reports false after
// Drain.
func (m *Mux) addSilent(c *net.TCPConn) bool {
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

func (m *Mux) removeSilent(c *net.TCPConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.silent, c)
}
