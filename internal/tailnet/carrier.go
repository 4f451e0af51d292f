package tailnet

import "net/netip"

// PathKind says how packets travel to a peer.
type PathKind string

const (
	Direct PathKind = "direct" // over UDP, from device to device
	Relay  PathKind = "relay"  // by way of a relay: a DERP region or another peer
)

// Path is the way that packets take to a peer. The zero value means that
// nothing has been sent to it yet.
type Path struct {
	Kind PathKind // empty when there is no path yet
	// Addr is the peer's UDP address and port when the path is direct. For a
	// relay it is the code of the DERP region, such as "fra", or the address of
	// the peer that relays.
	Addr string
}

// String returns "direct 192.0.2.1:41641", "relay fra", or "" for the zero value.
func (p Path) String() string {
	if p.Kind == "" {
		return ""
	}
	return string(p.Kind) + " " + p.Addr
}

// Carrier returns the peer that carries addr, and the longest of its prefixes
// that holds addr. ok is false when no peer carries it.
func (n *Node) Carrier(addr netip.Addr) (peer Peer, route netip.Prefix, ok bool) {
	p, ok := n.lb.PeerForIP(addr.Unmap()) // with the route that matched
	if !ok || p.IsSelf {
		return Peer{}, netip.Prefix{}, false
	}
	name := trimDot(p.Node.Name())
	for _, peer := range n.Status().Peers {
		if peer.Name == name {
			return peer, p.Route, true
		}
	}
	return Peer{Name: name}, p.Route, true
}
