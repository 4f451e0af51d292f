package tailnet_test

import (
	"errors"
	"io"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"tailscale.com/net/packet"
	"tailscale.com/net/tstun"
	"tailscale.com/wgengine/filter"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testnet"
)

// timeWait plays, packet by packet, a target that holds the dialler's first
// source port in TIME_WAIT: each of its SYNs gets a challenge ACK, and no more
// (RFC 5961 section 4.2).
type timeWait struct {
	mu         sync.Mutex
	target     netip.AddrPort // none until a test sets it
	held       uint16         // the source port: the first that is seen
	challenges int
}

// install has the cloud node's packets seen. It is called before there are any.
func (tw *timeWait) install(tun *tstun.Wrapper) {
	before := tun.PreFilterPacketInboundFromWireGuard
	tun.PreFilterPacketInboundFromWireGuard = func(p *packet.Parsed, w *tstun.Wrapper) filter.Response {
		if tw.drops(p, w) {
			return filter.Drop
		}
		if before != nil {
			return before(p, w)
		}
		return filter.Accept
	}
}

func (tw *timeWait) drops(p *packet.Parsed, w *tstun.Wrapper) bool {
	tw.mu.Lock()
	defer tw.mu.Unlock()
	if p.Dst != tw.target {
		return false
	}
	if tw.held == 0 {
		tw.held = p.Src.Port()
	}
	if p.Src.Port() != tw.held {
		return false
	}
	if p.TCPFlags == packet.TCPSyn {
		tw.challenges++
		go w.InjectOutbound(challengeACK(p.Dst, p.Src))
	}
	return true
}

// freshSourcePort dials a target behind a NAT that reuses ports early.
func freshSourcePort(t *testing.T, w *world) {
	if w.mode != tailnet.Userspace {
		return // Linux answers the challenge with a reset itself, and has no hook to hold it back
	}
	n := w.join(t, "freshport", tailnet.Options{})
	target := netip.AddrPortFrom(testnet.APIAddr, 7005)
	w.cloud.Handle(target, echo)
	w.timeWait.mu.Lock()
	w.timeWait.target = target
	w.timeWait.mu.Unlock()
	start := time.Now()
	c := dial(t, n, target)
	took := time.Since(start)
	pingPong(t, c)
	w.timeWait.mu.Lock()
	defer w.timeWait.mu.Unlock()
	t.Logf("connected in %v, after %d challenge ACKs to port %d", took.Round(time.Millisecond), w.challenges, w.held)
	if w.challenges == 0 {
		t.Error("no SYN was challenged: the test tested nothing")
	}
	if took > 5*time.Second {
		t.Errorf("the dial took %v, want seconds", took)
	}
}

// challengeACK is the ACK of a connection in TIME_WAIT, for an old sequence.
func challengeACK(src, dst netip.AddrPort) []byte {
	const ipLen, tcpLen = 20, 20
	b := make([]byte, ipLen+tcpLen)
	b[0], b[3], b[8], b[9] = 0x45, ipLen+tcpLen, 64, 6
	copy(b[12:16], src.Addr().AsSlice())
	copy(b[16:20], dst.Addr().AsSlice())
	put := func(b []byte, v uint16) { b[0], b[1] = byte(v>>8), byte(v) }
	put(b[10:], checksum(b[:ipLen], 0))
	tcp := b[ipLen:]
	put(tcp[0:], src.Port())
	put(tcp[2:], dst.Port())
	copy(tcp[4:12], []byte{0, 0, 0, 1, 0, 0, 0, 2}) // sequence and acknowledgement of long ago
	tcp[12], tcp[13] = tcpLen/4<<4, 0x10            // ACK
	put(tcp[14:], 512)
	var pseudo uint32
	for _, a := range [][]byte{b[12:16], b[16:20]} {
		pseudo += uint32(a[0])<<8 + uint32(a[1]) + uint32(a[2])<<8 + uint32(a[3])
	}
	put(tcp[16:], checksum(tcp, pseudo+6+tcpLen))
	return b
}

func checksum(b []byte, sum uint32) uint16 {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 + uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// abortedPortsRest aborts connections of a stack that has few source ports. One
// that is taken again at once meets, in the stack of a userspace router, what is
// left of its last connection, and is refused.
func abortedPortsRest(t *testing.T, w *world) {
	if w.mode != tailnet.Userspace {
		return // Linux takes them in turn
	}
	n := w.join(t, "aborted", tailnet.Options{})
	tailnet.LimitPorts(n, 256)
	target := netip.AddrPortFrom(testnet.APIAddr, 7006)
	w.cloud.Handle(target, echo)
	const dials = 3000
	failed := 0
	for range dials {
		c, err := n.DialTCP(within(t, 10*time.Second), target)
		if err != nil {
			t.Log(err)
			failed++
			continue
		}
		c.(interface{ Abort() }).Abort()
	}
	if failed > 0 {
		t.Errorf("%d of %d dials failed", failed, dials)
	}
}

// portsCountPerTarget has more connections in TIME_WAIT than there are source
// ports, to several targets; and then has all of one target's.
func portsCountPerTarget(t *testing.T, w *world) {
	if w.mode != tailnet.Userspace {
		return // Linux's own business, once it is told to (dialKernel)
	}
	n := w.join(t, "ports", tailnet.Options{})
	const ports = 16
	tailnet.LimitPorts(n, ports)
	for i := range uint16(4) {
		target := netip.AddrPortFrom(testnet.APIAddr, 7010+i)
		w.cloud.Handle(target, echo)
		for range ports - 2 {
			c := dial(t, n, target)
			pingPong(t, c)
			c.(interface{ CloseWrite() error }).CloseWrite() // the first to end waits
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}
	target := netip.AddrPortFrom(testnet.APIAddr, 7020)
	w.cloud.Handle(target, echo)
	for range ports {
		defer dial(t, n, target).Close()
	}
	if _, err := n.DialTCP(within(t, 10*time.Second), target); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("one more than there are ports: %v", err)
	}
}
