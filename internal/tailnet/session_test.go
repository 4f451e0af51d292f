package tailnet_test

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tailscale.com/net/packet"
	"tailscale.com/net/tstun"
	"tailscale.com/types/ipproto"
	"tailscale.com/wgengine/filter"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
)

// sessionTime is how long a dial may take after the peer has lost its side of
// the WireGuard session. WireGuard itself starts a new session after 15 s, so a
// dial that connects within this time was helped.
const sessionTime = 14 * time.Second

// gag keeps the cloud node from sending anything inside WireGuard, so that it
// cannot start a session, until a packet to a given address has reached it.
type gag struct {
	mu    sync.Mutex
	until netip.AddrPort // the zero value lets the node send
}

// install adds g to the cloud node's packet filters. Call it before the node has
// peers.
func (g *gag) install(tun *tstun.Wrapper) {
	tun.PreFilterPacketOutboundToWireGuardAppConnectorIntercept = func(*packet.Parsed, *tstun.Wrapper) filter.Response {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.until.IsValid() {
			return filter.DropSilently
		}
		return filter.Accept
	}
	next := tun.PreFilterPacketInboundFromWireGuard
	tun.PreFilterPacketInboundFromWireGuard = func(p *packet.Parsed, w *tstun.Wrapper) filter.Response {
		g.mu.Lock()
		if p.Dst == g.until {
			g.until = netip.AddrPort{}
		}
		g.mu.Unlock()
		if next != nil {
			return next(p, w)
		}
		return filter.Accept
	}
}

// silence stops all that the node sends until a packet to target reaches it.
func (g *gag) silence(target netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = target
}

// TestLostSessionIsReplaced checks that a node replaces a WireGuard session that
// its peer has lost, as a stock router loses one when it hears late of a restart.
// The peer cannot start a session here, so only the node's own check can help the
// dial.
func TestLostSessionIsReplaced(t *testing.T) { eachMode(t, lostSession) }

func lostSession(t *testing.T, w *world) {
	n := w.join(t, "forgotten", tailnet.Options{})
	target := w.cloud.Serve(echo)
	w.gag.silence(target)
	defer w.gag.silence(netip.AddrPort{})
	w.cloud.ResetSession(n.Addrs()[0])
	dialAfterLoss(t, n, target)
	if got := n.SessionsMended(); got != 1 {
		t.Errorf("SessionsMended() = %d after the peer lost the session, want 1", got)
	}
}

// TestLostSessionPeerStartsNext checks that a dial connects and that an open
// connection still works when the peer has something to send after it lost the
// session. The peer then starts a new session itself, before the node's check or
// at the same time.
func TestLostSessionPeerStartsNext(t *testing.T) { eachMode(t, peerStartsSession) }

func peerStartsSession(t *testing.T, w *world) {
	n := w.join(t, "remembered", tailnet.Options{})
	target := w.cloud.Serve(echo)
	open := dial(t, n, target)
	pingPong(t, open)
	for range 3 {
		// The acknowledgement of the peer's last data is on its way or still
		// due. If it is lost with the session, the peer sends that data again.
		w.cloud.ResetSession(n.Addrs()[0])
		dialAfterLoss(t, n, target)
	}
	open.SetDeadline(time.Now().Add(connTime))
	pingPong(t, open)
}

// dialAfterLoss dials target, whose carrier has just lost the session with n, and
// checks that the connection works.
func dialAfterLoss(t *testing.T, n *tailnet.Node, target netip.AddrPort) {
	t.Helper()
	start := time.Now()
	c, err := n.DialTCP(testkit.Within(t, sessionTime), target)
	took := time.Since(start).Round(time.Millisecond)
	if err != nil {
		t.Fatalf("DialTCP(%v) = %v, %v after the peer lost the session", target, err, took)
	}
	defer c.Close()
	t.Logf("connected %v after the peer lost the session; SessionsMended() = %d", took, n.SessionsMended())
	c.SetDeadline(time.Now().Add(connTime))
	pingPong(t, c)
}

// TestBusySessionIsKept checks that a session is kept while bytes arrive in it,
// even if pings in it get no answer, and replaced when nothing arrives any more.
func TestBusySessionIsKept(t *testing.T) { eachMode(t, busySession) }

func busySession(t *testing.T, w *world) {
	n := w.join(t, "busy", tailnet.Options{})
	quiet := make(chan struct{})
	target := w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
			select {
			case <-quiet:
				io.Copy(io.Discard, c)
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	c := dial(t, n, target)
	go io.Copy(io.Discard, c) // ends with c
	var pings atomic.Int32
	tailnet.Lose(w.cloud.Node, func(p *packet.Parsed) bool {
		if p.IPProto == ipproto.TSMP {
			pings.Add(1)
		}
		return p.IPProto == ipproto.TSMP
	})
	defer tailnet.Lose(w.cloud.Node, nil)
	testkit.Eventually(t, "a third check, of two pings each", func() bool {
		tailnet.Suspect(n, target.Addr())
		return pings.Load() > 4
	})
	if got := n.SessionsMended(); got != 0 {
		t.Errorf("SessionsMended() = %d while bytes arrive in the session, want 0", got)
	}
	close(quiet)
	testkit.Eventually(t, "the silent session to be replaced", func() bool {
		tailnet.Suspect(n, target.Addr())
		return n.SessionsMended() > 0
	})
}
