// Package userspace opens the TCP connections of a tailnet node that has no device
// in the kernel. It uses gVisor's stack directly, below the library's wrapper.
package userspace

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"sync"
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

// freshPorts are the times at which a dial without an answer tries again from a
// new source port, while the earlier attempts still wait. A NAT that reuses a port
// which the target holds in TIME_WAIT gets challenge ACKs for its SYNs (RFC 5961
// section 4.2). Linux answers those with a reset and connects at the next SYN.
// Netstack sends the same SYN again until it gives up.
var freshPorts = [...]time.Duration{0, 1200 * time.Millisecond, 3500 * time.Millisecond}

// MaxRTO is the longest time between two attempts to send a segment. TCP doubles its
// RTO with each segment that is lost, up to 120 s. So after an outage of half a
// minute a connection with data to send stays silent for another half minute,
// although its peer is back. RFC 6298 section 2.5 asks for 60 s at least, for paths
// that are slow. A path through a tunnel that takes 5 s is of no use anyway.
const MaxRTO = 5 * time.Second

// timeWait is how long the port of an ended connection is held for its target. RFC
// 9293 section 3.6 waits for two segment lifetimes, for copies that arrive late and
// for a FIN that is sent again. WireGuard drops copies, and the last attempts to
// send a FIN are MaxRTO apart at most.
const timeWait = 2 * MaxRTO

// Stack is the userspace TCP/IP stack of a node.
type Stack struct {
	*stack.Stack
	peerTimeout time.Duration
	ports       atomic.Uint32 // counts the source ports that were used, from a random start
}

// Of returns the stack that the library's wrapper keeps to itself. We need it to end
// endpoints before the wrapper stops serving them, and to hold our endpoints
// ourselves (docs/design/0002). peerTimeout ends a connection whose peer does not
// acknowledge what was sent for this long. Zero leaves that to TCP, which tries for
// 16 minutes. Of returns an error if the library's version keeps its stack
// elsewhere.
func Of(ns *netstack.Impl, peerTimeout time.Duration) (*Stack, error) {
	f := reflect.ValueOf(ns).Elem().FieldByName("ipstack")
	if !f.IsValid() || f.Type() != reflect.TypeFor[*stack.Stack]() {
		return nil, errors.New("this version of tailscale.com keeps its netstack in another field: adapt userspace.Of")
	}
	s := &Stack{Stack: *(**stack.Stack)(unsafe.Pointer(f.UnsafeAddr())), peerTimeout: peerTimeout}
	s.ports.Store(rand.Uint32()) // a predecessor with the same address started elsewhere
	maxRTO := tcpip.TCPMaxRTOOption(MaxRTO)
	maxRetries := tcpip.TCPMaxRetriesOption(16 * time.Minute / MaxRTO)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	for _, option := range []tcpip.SettableTransportProtocolOption{&maxRTO, &maxRetries, &wait} {
		if terr := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); terr != nil {
			return nil, errno(terr)
		}
	}
	if terr := s.boundBuffers(); terr != nil {
		return nil, errno(terr)
	}
	return s, nil
}

// SendFromAny lets endpoints send from an address that has left the stack.
func (s *Stack) SendFromAny() { s.SetSpoofing(nicID, true) }

// conn is a TCP connection of the userspace stack. It is a gonet.TCPConn, which can
// half-close, and also has the endpoint.
type conn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
	wq *waiter.Queue

	// The stack gives the error of a lost connection to the first call that asks, and
	// tells the others that the stream has ended. So it is kept here.
	lost    atomic.Pointer[net.OpError]
	reading sync.Mutex // held while a Read may get it and keep it
	writing sync.Mutex // held while a Write may get it and keep it
}

// Read is the Read of gonet.TCPConn with the kernel's errno for a lost connection.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.read(b)
	return n, c.explain(err, &c.writing)
}

// Write is the Write of gonet.TCPConn with the kernel's errno for a lost connection.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.write(b)
	return n, c.explain(err, &c.reading)
}

func (c *conn) read(b []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	n, err := c.TCPConn.Read(b)
	return n, c.keepLost(err)
}

func (c *conn) write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	n, err := c.TCPConn.Write(b)
	return n, c.keepLost(err)
}

// keepLost returns err with its errno, and keeps it if it tells how the connection was
// lost.
func (c *conn) keepLost(err error) error {
	err = withErrno(err)
	oe, ok := err.(*net.OpError)
	if !ok || !c.isLost() {
		return err
	}
	_, known := oe.Err.(syscall.Errno)
	if known || !oe.Timeout() && oe.Err.Error() != (&tcpip.ErrClosedForSend{}).String() {
		c.lost.CompareAndSwap(nil, oe)
	}
	return err
}

// explain returns how the connection was lost, if err comes from that, and err
// otherwise. other is what the other direction holds while it may get and keep it.
func (c *conn) explain(err error, other *sync.Mutex) error {
	if err == nil || !c.isLost() {
		return err
	}
	lost := c.lost.Load()
	if lost == nil { // the other direction has got it
		other.Lock()
		lost = c.lost.Load()
		other.Unlock()
	}
	if lost != nil {
		return lost
	}
	return &net.OpError{Op: "relay", Net: "tcp", Err: syscall.ECONNRESET} // another call has taken it
}

// isLost reports whether the connection has ended by a reset or a time-out.
func (c *conn) isLost() bool { return tcp.EndpointState(c.ep.State()) == tcp.StateError }

// withErrno adds the errno to an error of gonet, which holds the stack's error only
// as text.
func withErrno(err error) error {
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

// Readable reports whether Read would return at once, with data, EOF or an error.
func (c *conn) Readable() bool {
	return c.ep.Readiness(readEvents)&readEvents != 0
}

const (
	readEvents  = waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr
	writeEvents = waiter.WritableEvents | waiter.EventHUp | waiter.EventErr
)

// AwaitReadable returns when Read would return at once. It lets a caller wait
// without a buffer. Closing the connection ends the wait.
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

// attempt is one connect in progress. It must not be copied: its entry is linked in
// the list of the endpoint's waiters.
type attempt struct {
	ep    tcpip.Endpoint
	wq    *waiter.Queue
	entry waiter.Entry
	ready chan struct{} // nil once the attempt is over
}

// Dial opens a connection to dst from src, which is an address of the stack. If the
// first source port gets no answer it tries others at the same time (freshPorts).
// Errors are the errnos that the kernel would return. The end of ctx by its deadline
// is ETIMEDOUT, and a canceled ctx returns its own error. Dial starts no goroutine.
func (s *Stack) Dial(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	var tries [len(freshPorts)]attempt
	started := 0
	defer func() { abortAll(tries[:started]) }()
	begin := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		which := -1
		select {
		case <-ctx.Done():
			return nil, ctxErrno(ctx.Err())
		case <-timer.C:
			err := tries[started].connect(ctx, s, src, dst)
			if err != nil && allOver(tries[:started]) {
				return nil, err
			}
			if err != nil {
				continue // with those that still wait
			}
			started++
			if started < len(tries) {
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
		c, err := tries[which].result()
		// A refusal is an answer. An attempt that timed out leaves the others:
		// netstack gives one up within a second when its SYNs are challenged fast
		// enough.
		switch {
		case err == nil:
			return c, nil
		case !errors.Is(err, syscall.ETIMEDOUT):
			return nil, err
		case allOver(tries[:started]) && started == len(tries):
			return nil, err
		case allOver(tries[:started]):
			timer.Reset(0)
		}
	}
}

// result ends an attempt that is ready, and returns its connection or its errno.
func (a *attempt) result() (*conn, error) {
	a.wq.EventUnregister(&a.entry)
	a.ready = nil
	if err := a.ep.LastError(); err != nil {
		a.ep.Close()
		return nil, errno(err)
	}
	// If this were set before the handshake, it would start only with the first
	// byte.
	a.ep.SocketOptions().SetKeepAlive(true)
	return &conn{TCPConn: gonet.NewTCPConn(a.wq, a.ep), ep: a.ep, wq: a.wq}, nil
}

// abortAll ends the attempts that are still in progress.
func abortAll(tries []attempt) {
	for i := range tries {
		if a := &tries[i]; a.ready != nil {
			a.wq.EventUnregister(&a.entry)
			a.ep.Abort()
		}
	}
}

// allOver reports whether no attempt is in progress.
func allOver(tries []attempt) bool {
	for i := range tries {
		if tries[i].ready != nil {
			return false
		}
	}
	return true
}

// connect sends the first SYN of a new endpoint, from src and the next port that no
// other connection to dst has. Ports are used in turn, as Linux does, so that each
// rests as long as possible (docs/design/0012).
func (a *attempt) connect(ctx context.Context, s *Stack, src netip.Addr, dst netip.AddrPort) error {
	proto := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
	if dst.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	id := stack.TransportEndpointID{
		LocalAddress:  tcpip.AddrFromSlice(src.AsSlice()),
		RemoteAddress: tcpip.AddrFromSlice(dst.Addr().AsSlice()),
		RemotePort:    dst.Port(),
	}
	first, last := s.PortRange()
	for range int(last-first) + 1 {
		id.LocalPort = first + uint16(s.ports.Add(1)%(uint32(last-first)+1))
		if s.FindTransportEndpoint(proto, tcp.ProtocolNumber, id, nicID) != nil {
			continue // in use; to learn that from a new endpoint is expensive
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

// connectFrom sends the first SYN of a new endpoint from src to dst. It returns
// EADDRINUSE if there is already a connection from src to dst, or if another
// endpoint has bound the port of src.
func (a *attempt) connectFrom(s *Stack, proto tcpip.NetworkProtocolNumber, src, dst netip.AddrPort) error {
	wq := new(waiter.Queue)
	ep, terr := s.NewEndpoint(tcp.ProtocolNumber, proto, wq)
	if terr != nil {
		return errno(terr)
	}
	keepAlive(ep, s.peerTimeout)
	ep.SocketOptions().SetReuseAddress(true) // a port may serve several targets at the same time
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
	if _, taken := terr.(*tcpip.ErrBadLocalAddress); taken { // the bind succeeded, so the address itself is good
		return syscall.EADDRINUSE
	}
	return errno(terr)
}

// keepAlive sets the times after which a peer that disappeared is found, as in
// kernel mode. Netstack's own times are two hours for an idle connection and two
// minutes for data that is not acknowledged. Unlike the kernel, netstack never
// gives up on a peer that acknowledges but keeps its receive window closed.
func keepAlive(ep tcpip.Endpoint, timeout time.Duration) {
	c := socket.KeepAlive(timeout)
	if c.Count == 0 { // the defaults of package net
		c.Idle = 15 * time.Second
		c.Interval = 15 * time.Second
		c.Count = 9
	}
	idle := tcpip.KeepaliveIdleOption(c.Idle)
	interval := tcpip.KeepaliveIntervalOption(c.Interval)
	user := tcpip.TCPUserTimeoutOption(timeout)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&interval)
	ep.SetSockOpt(&user) // zero means none
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, c.Count)
}

func fullAddr(ap netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(ap.Addr().AsSlice()), Port: ap.Port()}
}

// errno returns the errno that the kernel would return for err, so that callers see
// the same errors in both modes.
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

// ctxErrno returns the kernel's errno for a deadline that has passed.
func ctxErrno(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return syscall.ETIMEDOUT
	}
	return err
}
