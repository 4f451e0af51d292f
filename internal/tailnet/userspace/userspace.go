// Package userspace opens the TCP connections of a tailnet node that has no
// device in the kernel: in gVisor's stack, below the wrapper of the library.
package userspace

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
	"tailscale.com/wgengine/netstack"

	"github.com/pandoproxy/pando/internal/socket"
)

// nicID is the only interface of the library's netstack.
const nicID = 1

// freshPorts is when a dial that has had no answer tries again, from a fresh
// source port, beside the attempts that still wait. A NAT that reuses a port
// which the target holds in TIME_WAIT gets challenge ACKs for its SYNs (RFC
// 5961 section 4.2); Linux answers those with a reset and connects at the next
// SYN, netstack re-sends the same SYN until it gives up.
var freshPorts = [...]time.Duration{0, 1200 * time.Millisecond, 3500 * time.Millisecond}

// MaxRTO is the longest time between two tries to send a segment. TCP doubles its
// RTO with each that is lost, up to 120 s, so after an outage of half a minute a
// connection that had something to send stays silent for another half, although
// its peer is back. RFC 6298 section 2.5 asks for 60 s at least, for the sake of
// paths that take long; through a tunnel that takes 5 s nobody works.
const MaxRTO = 5 * time.Second

// timeWait is how long the port of an ended connection is held for its target.
// RFC 9293 section 3.6 waits for two lives of a segment, for copies that come late
// and a FIN that is sent again. WireGuard lets no copy pass, and the last tries of a
// FIN are no further apart than MaxRTO.
const timeWait = 2 * MaxRTO

// Stack is a node's stack, with the connections that Dial opens in it.
type Stack struct {
	*stack.Stack
	peerTimeout time.Duration
	ports       atomic.Uint32 // how many were handed out, and what the first one was
}

// Of returns the stack that the library's wrapper keeps to itself. We need it to
// end endpoints before the wrapper stops serving them, and to hold our endpoints
// ourselves; docs/design/0002 has the story. A connection whose peer does not
// acknowledge what was sent for peerTimeout is over; 0 leaves that to TCP, which
// tries for 16 minutes.
func Of(ns *netstack.Impl, peerTimeout time.Duration) (*Stack, error) {
	f := reflect.ValueOf(ns).Elem().FieldByName("ipstack")
	if !f.IsValid() || f.Type() != reflect.TypeFor[*stack.Stack]() {
		return nil, errors.New("this version of tailscale.com keeps its netstack elsewhere: adapt userspace.Of")
	}
	s := &Stack{Stack: *(**stack.Stack)(unsafe.Pointer(f.UnsafeAddr())), peerTimeout: peerTimeout}
	s.ports.Store(rand.Uint32()) // a predecessor with the same address began elsewhere
	longest, tries, wait := tcpip.TCPMaxRTOOption(MaxRTO), tcpip.TCPMaxRetriesOption(16*time.Minute/MaxRTO), tcpip.TCPTimeWaitTimeoutOption(timeWait)
	for _, option := range []tcpip.SettableTransportProtocolOption{&longest, &tries, &wait} {
		if terr := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); terr != nil {
			return nil, errno(terr)
		}
	}
	return s, nil
}

// SendFromAny lets endpoints go on sending from an address that has left the
// stack.
func (s *Stack) SendFromAny() { s.SetSpoofing(nicID, true) }

// conn is a TCP connection of the userspace stack. It is a gonet.TCPConn,
// half-close included, with the endpoint in reach.
type conn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
	wq *waiter.Queue
}

// Read and Write give the kernel's errno for a connection that was lost.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, c.lost(err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, c.lost(err)
}

// lost adds the errno to an error of the wrapped connection, which has the
// stack's error as text alone.
func (c *conn) lost(err error) error {
	oe, ok := err.(*net.OpError) // as gonet made it
	if !ok {
		return err
	}
	switch oe.Err.Error() {
	case (&tcpip.ErrTimeout{}).String():
		oe.Err = syscall.ETIMEDOUT
	case (&tcpip.ErrConnectionReset{}).String():
		oe.Err = syscall.ECONNRESET
	}
	return err
}

// Abort closes the connection with a reset, as a close with SO_LINGER 0 does.
func (c *conn) Abort() { c.ep.Abort() }

// Readable reports whether a Read would return at once, with data, an end or
// an error.
func (c *conn) Readable() bool {
	return c.ep.Readiness(readEvents)&readEvents != 0
}

const readEvents = waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr

// AwaitReadable returns when a Read would return at once. It lets a caller
// wait without holding a buffer. Closing the connection ends it.
func (c *conn) AwaitReadable() {
	if c.Readable() {
		return
	}
	e, ch := waiter.NewChannelEntry(readEvents)
	c.wq.EventRegister(&e)
	defer c.wq.EventUnregister(&e)
	if c.Readable() {
		return
	}
	<-ch
}

// attempt is one connect in progress. It stays where it is: the endpoint's waiters
// are a list that goes through its entry.
type attempt struct {
	ep    tcpip.Endpoint
	wq    *waiter.Queue
	entry waiter.Entry
	ready chan struct{} // nil once the attempt is over
}

// Dial opens a connection from src, an address of the stack, to dst, racing a few
// source ports when the first gets no answer. Errors are the errnos that the
// kernel would give, or that of ctx when it was canceled. Dial runs in the
// caller's goroutine alone.
func (s *Stack) Dial(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	var tries [len(freshPorts)]attempt
	started := 0
	defer func() {
		for i := range tries[:started] {
			if a := &tries[i]; a.ready != nil {
				a.wq.EventUnregister(&a.entry)
				a.ep.Abort()
			}
		}
	}()
	begin := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var lastErr error
	for {
		which := -1
		select {
		case <-ctx.Done():
			return nil, ctxErrno(ctx.Err())
		case <-timer.C:
			err := tries[started].connect(ctx, s, src, dst)
			if err != nil && allOver(tries[:started]) {
				return nil, err
			} else if err != nil {
				continue // with those that still wait
			}
			if started++; started < len(tries) {
				timer.Reset(freshPorts[started] - time.Since(begin))
			}
			continue
		case <-tries[0].ready:
			which = 0
		case <-tries[1].ready:
			which = 1
		case <-tries[2].ready:
			which = 2
		}
		a := &tries[which]
		a.wq.EventUnregister(&a.entry)
		a.ready = nil
		err := a.ep.LastError()
		if err == nil {
			// Set before the handshake, it would begin with the first byte only.
			a.ep.SocketOptions().SetKeepAlive(true)
			return &conn{TCPConn: gonet.NewTCPConn(a.wq, a.ep), ep: a.ep, wq: a.wq}, nil
		}
		a.ep.Close()
		lastErr = errno(err)
		// A refusal is an answer. An attempt that timed out leaves the others:
		// netstack gives one up within a second when its SYNs are challenged fast
		// enough.
		switch {
		case !errors.Is(lastErr, syscall.ETIMEDOUT):
			return nil, lastErr
		case allOver(tries[:started]) && started == len(tries):
			return nil, lastErr
		case allOver(tries[:started]):
			timer.Reset(0)
		}
	}
}

func allOver(tries []attempt) bool {
	for i := range tries {
		if tries[i].ready != nil {
			return false
		}
	}
	return true
}

// connect sends the first SYN of a new endpoint, from src and the next port that
// no other connection to dst has. Ports are taken in turn, as Linux does, so that
// each rests for as long as it can; docs/design/0012.
func (a *attempt) connect(ctx context.Context, s *Stack, src netip.Addr, dst netip.AddrPort) error {
	proto := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
	if dst.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	id := stack.TransportEndpointID{
		LocalAddress: tcpip.AddrFromSlice(src.AsSlice()), RemoteAddress: tcpip.AddrFromSlice(dst.Addr().AsSlice()), RemotePort: dst.Port(),
	}
	first, last := s.PortRange()
	for range int(last-first) + 1 {
		id.LocalPort = first + uint16(s.ports.Add(1)%(uint32(last-first)+1))
		if s.FindTransportEndpoint(proto, tcp.ProtocolNumber, id, nicID) != nil {
			continue // cheaper than to find it out by a new endpoint
		}
		if err := a.connectFrom(s, proto, netip.AddrPortFrom(src, id.LocalPort), dst); !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		if ctx.Err() != nil {
			return ctxErrno(ctx.Err())
		}
	}
	return syscall.EADDRNOTAVAIL
}

// connectFrom gives EADDRINUSE when a connection from src to dst is there, or
// someone else has the port of src.
func (a *attempt) connectFrom(s *Stack, proto tcpip.NetworkProtocolNumber, src, dst netip.AddrPort) error {
	wq := new(waiter.Queue)
	ep, terr := s.NewEndpoint(tcp.ProtocolNumber, proto, wq)
	if terr != nil {
		return errno(terr)
	}
	keepAlive(ep, s.peerTimeout)
	ep.SocketOptions().SetReuseAddress(true) // a port counts with its target, not alone
	if terr := ep.Bind(fullAddr(src)); terr != nil {
		ep.Close()
		return errno(terr)
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	*a = attempt{ep, wq, entry, ready}
	wq.EventRegister(&a.entry)
	terr = ep.Connect(fullAddr(dst))
	if _, started := terr.(*tcpip.ErrConnectStarted); started || terr == nil {
		return nil
	}
	wq.EventUnregister(&a.entry)
	ep.Close()
	a.ready = nil
	if _, taken := terr.(*tcpip.ErrBadLocalAddress); taken { // by its bind, the address is good
		return syscall.EADDRINUSE
	}
	return errno(terr)
}

// keepAlive has a peer that vanished found out, with the times of kernel mode.
// Netstack's own are two hours for an idle one, and two minutes for data that
// is not acknowledged. Unlike the kernel it never gives up on a peer that
// leaves its receive window closed and says so.
func keepAlive(ep tcpip.Endpoint, timeout time.Duration) {
	c := socket.KeepAlive(timeout)
	if c.Count == 0 { // those of package net
		c.Idle, c.Interval, c.Count = 15*time.Second, 15*time.Second, 9
	}
	idle, interval, user := tcpip.KeepaliveIdleOption(c.Idle), tcpip.KeepaliveIntervalOption(c.Interval), tcpip.TCPUserTimeoutOption(timeout)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&interval)
	ep.SetSockOpt(&user) // zero is none
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, c.Count)
}

func fullAddr(ap netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(ap.Addr().AsSlice()), Port: ap.Port()}
}

// errno turns netstack's errors into the errnos that the kernel would give, so
// that callers judge both modes alike.
func errno(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrHostUnreachable, *tcpip.ErrHostDown:
		return syscall.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return syscall.ENETUNREACH
	case *tcpip.ErrConnectionReset, *tcpip.ErrAborted, *tcpip.ErrConnectionAborted:
		return syscall.ECONNRESET
	case *tcpip.ErrPortInUse:
		return syscall.EADDRINUSE
	}
	return fmt.Errorf("netstack: %s", err)
}

// ctxErrno says timeout as the kernel does.
func ctxErrno(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return syscall.ETIMEDOUT
	}
	return err
}
