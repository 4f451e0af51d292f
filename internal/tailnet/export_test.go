package tailnet

import (
	"net/netip"
	"time"

	"tailscale.com/net/packet"
	"tailscale.com/net/tstun"

	"github.com/pandoproxy/pando/internal/tailnet/userspace"
)

// Tun gives tests the node's packets.
func (n *Node) Tun() *tstun.Wrapper { return n.sys.Tun.Get() }

// Freeze takes n off the network at once and without a word, as a lost power
// supply does. It is of no use then but for Close.
func Freeze(n *Node) { n.sys.MagicSock.Get().Close() }

// MaxRTO is when a segment is tried again at the latest.
const MaxRTO = userspace.MaxRTO

// CachedPeer is what the names of cached peers begin with.
const CachedPeer = cachedPeer

// RouteWait returns how long n waits for a lost route now.
func RouteWait(n *Node) time.Duration { return n.routeWait() }

// SeesControl reports whether n was connected to the control server when it
// looked last.
func SeesControl(n *Node) bool { return n.control.connected.Load() }

// Suspect has n check the session with the peer that carries addr.
func Suspect(n *Node, addr netip.Addr) { n.sessions.suspect(addr) }

// Lose has n lose the packets from its peers that which picks; nil ends that.
func Lose(n *Node, which func(*packet.Parsed) bool) {
	if which == nil {
		n.sys.Engine.Get().InstallCaptureHook(nil)
		return
	}
	n.sys.Engine.Get().InstallCaptureHook(func(path packet.CapturePath, _ time.Time, b []byte, _ packet.CaptureMeta) {
		var p packet.Parsed
		if p.Decode(b); path == packet.FromPeer && which(&p) {
			clear(b) // what is no packet gets no answer
		}
	})
}

// LimitPorts leaves n's userspace stack so many source ports.
func LimitPorts(n *Node, count uint16) {
	if terr := n.stack.SetPortRange(20000, 20000+count-1); terr != nil {
		panic(terr.String())
	}
}
