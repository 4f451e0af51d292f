package tailnet

import (
	"net/netip"
	"time"

	"tailscale.com/net/packet"
	"tailscale.com/net/tstun"
	"tailscale.com/types/netmap"

	"github.com/pandoproxy/pando/internal/tailnet/userspace"
)

// Tun returns the device wrapper that all packets of n pass.
func (n *Node) Tun() *tstun.Wrapper { return n.sys.Tun.Get() }

// Freeze takes n off the network at once and without a message, as a power failure
// does. Only Close may be called after that.
func Freeze(n *Node) { n.sys.MagicSock.Get().Close() }

// MaxRTO is the longest time between two attempts to send a segment.
const MaxRTO = userspace.MaxRTO

// CachedPeer is the prefix of the file names of cached peers.
const CachedPeer = cachedPeer

// RouteWait returns how long n waits for a lost route now.
func RouteWait(n *Node) time.Duration { return n.routeWait() }

// SeesControl reports whether n was connected to the control server when it
// looked last.
func SeesControl(n *Node) bool { return n.control.Connected() }

// Suspect makes n check the session with the peer that carries addr.
func Suspect(n *Node, addr netip.Addr) { n.sessions.Suspect(addr) }

// Lose makes n lose those packets from its peers for which which returns true. Nil
// ends that.
func Lose(n *Node, which func(*packet.Parsed) bool) {
	if which == nil {
		n.sys.Engine.Get().InstallCaptureHook(nil)
		return
	}
	n.sys.Engine.Get().InstallCaptureHook(func(path packet.CapturePath, _ time.Time, b []byte, _ packet.CaptureMeta) {
		var p packet.Parsed
		p.Decode(b)
		if path == packet.FromPeer && which(&p) {
			clear(b) // zeros are not a packet and get no answer
		}
	})
}

// LimitPorts leaves count source ports to n's userspace stack.
func LimitPorts(n *Node, count uint16) {
	if terr := n.stack.SetPortRange(20000, 20000+count-1); terr != nil {
		panic(terr.String())
	}
}

// OtherNodes is otherNodes for a tailnet with this MagicDNS suffix.
func OtherNodes(nm *netmap.NetworkMap, magic bool, suffix string) map[string][]netip.Addr {
	return otherNodes(nm, &DNS{Magic: magic, MagicSuffix: suffix})
}
