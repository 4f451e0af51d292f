package tailnet_test

import (
	"encoding/binary"
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
	"github.com/pandoproxy/pando/internal/testkit"
)

// timeWait plays a target that holds the dialer's first source port in TIME_WAIT:
// each SYN from that port gets a challenge ACK and nothing more (RFC 5961 section
// 4.2).
type timeWait struct {
	mu         sync.Mutex
	target     netip.AddrPort // the zero value until a test sets it
	held       uint16         // the source port: the first that is seen
	challenges int
}

// install adds tw to the cloud node's packet filters. Call it before the node has
// peers.
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

// drops reports whether p is to be dropped, and answers a SYN from the held port.
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

// TestFreshSourcePort dials a target behind a NAT that reuses source ports too
// early. It checks that the dial uses another port in time.
//
// Linux answers the challenge with a reset itself, and has no hook to hold it
// back, so this is for userspace mode alone.
func TestFreshSourcePort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tailnet.Userspace)
	n := w.join(t, "freshport", tailnet.Options{})
	target := w.cloud.Serve(echo)
	w.timeWait.mu.Lock()
	w.timeWait.target = target
	w.timeWait.mu.Unlock()
	start := time.Now()
	c := dial(t, n, target)
	took := time.Since(start)
	pingPong(t, c)
	w.timeWait.mu.Lock()
	defer w.timeWait.mu.Unlock()
	t.Logf("connected in %v, after %d challenge ACKs to port %d", took.Round(time.Millisecond), w.timeWait.challenges, w.timeWait.held)
	if w.timeWait.challenges == 0 {
		t.Error("no SYN was challenged, so the test has tested nothing")
	}
	// With one port it would fail only after a minute or more.
	if most := 20 * time.Second; took > most {
		t.Errorf("DialTCP(%v) took %v, want less than %v", target, took, most)
	}
}

// challengeACK returns the ACK of a connection in TIME_WAIT, with old sequence
// numbers.
func challengeACK(src, dst netip.AddrPort) []byte {
	const ipLen = 20
	const tcpLen = 20
	b := make([]byte, ipLen+tcpLen)
	b[0] = 0x45 // IPv4, header of five words
	b[3] = ipLen + tcpLen
	b[8] = 64 // TTL
	b[9] = 6  // TCP
	copy(b[12:16], src.Addr().AsSlice())
	copy(b[16:20], dst.Addr().AsSlice())
	put := binary.BigEndian.PutUint16
	put(b[10:], checksum(b[:ipLen], 0))
	tcp := b[ipLen:]
	put(tcp[0:], src.Port())
	put(tcp[2:], dst.Port())
	copy(tcp[4:12], []byte{0, 0, 0, 1, 0, 0, 0, 2}) // old sequence and acknowledgement numbers
	tcp[12] = tcpLen / 4 << 4
	tcp[13] = 0x10 // ACK
	put(tcp[14:], 512)
	var pseudo uint32
	for _, a := range [][]byte{b[12:16], b[16:20]} {
		pseudo += uint32(a[0])<<8 + uint32(a[1]) + uint32(a[2])<<8 + uint32(a[3])
	}
	put(tcp[16:], checksum(tcp, pseudo+6+tcpLen))
	return b
}

// checksum returns the Internet checksum (RFC 1071) of b, added to sum.
func checksum(b []byte, sum uint32) uint16 {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 + uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// TestAbortedPortsRest aborts connections of a stack with few source ports. A port
// that is used again at once meets what is left of its last connection in the
// stack of a userspace router, and is refused.
//
// Linux uses its ports in turn anyway, so this is for userspace mode alone.
func TestAbortedPortsRest(t *testing.T) {
	w := newWorld(t, tailnet.Userspace)
	n := w.join(t, "aborted", tailnet.Options{})
	const ports = 256
	const dials = 3000 // with ports taken at random, 12 of them were refused
	tailnet.LimitPorts(n, ports)
	target := w.cloud.Serve(echo)
	failed := 0
	for range dials {
		c, err := n.DialTCP(testkit.Within(t, connTime), target)
		if err != nil {
			t.Log(err)
			failed++
			continue
		}
		c.(interface{ Abort() }).Abort()
	}
	if failed > 0 {
		t.Errorf("%d of %d dials failed, want 0", failed, dials)
	}
}

// TestPortsCountPerTarget has more connections in TIME_WAIT than there are source
// ports, to several targets. Then it uses all ports of one target.
//
// A dial that gets no answer within a second or two uses more than one port, as
// may happen on a busy machine. So the test needs only half of a target's ports.
//
// In kernel mode Linux does this itself (dialKernel), so this is for userspace
// mode alone.
func TestPortsCountPerTarget(t *testing.T) {
	t.Parallel()
	w := sharedWorld(t, tailnet.Userspace)
	n := w.join(t, "ports", tailnet.Options{})
	const ports = 16
	tailnet.LimitPorts(n, ports)
	for range 8 {
		target := w.cloud.Serve(echo)
		for range ports / 2 {
			c := dial(t, n, target)
			pingPong(t, c)
			closeWrite(t, c) // the first side to close is the one that waits
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}
	target := w.cloud.Serve(echo)
	for open := 0; ; open++ {
		c, err := n.DialTCP(testkit.Within(t, connTime), target)
		if err == nil && open < ports {
			defer c.Close()
			continue
		}
		if !errors.Is(err, syscall.EADDRNOTAVAIL) || open < ports/2 {
			t.Errorf("DialTCP(%v) = %v with %d connections over %d ports, want EADDRNOTAVAIL after %d at least", target, err, open, ports, ports/2)
		}
		return
	}
}
