package tailnet

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

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

// Carrier is the peer that carries an address.
type Carrier struct {
	Peer
	Addr  netip.Addr   // the address that was asked for
	Route netip.Prefix // the longest prefix of the peer that holds Addr
}

// Kinds of carriers.
const (
	KindPeer   = "peer"          // Addr is the peer's own
	KindRouter = "subnet router" // Route is a subnet that the peer routes
	KindExit   = "exit node"     // Route holds every address
)

// Carrier returns the peer that carries addr. The result is false when no peer
// carries it.
func (n *Node) Carrier(addr netip.Addr) (Carrier, bool) {
	addr = addr.Unmap()
	p, ok := n.lb.PeerForIP(addr) // with the route that matched
	if !ok || p.IsSelf {
		return Carrier{}, false
	}
	c := Carrier{
		Peer:  Peer{Name: trimDot(p.Node.Name())},
		Addr:  addr,
		Route: p.Route,
	}
	for _, peer := range n.Status().Peers {
		if peer.Name == c.Name {
			c.Peer = peer
		}
	}
	return c, true
}

// Kind returns KindPeer, KindRouter or KindExit.
func (c Carrier) Kind() string {
	switch {
	case slices.Contains(c.Addrs, c.Addr):
		return KindPeer
	case c.Route.Bits() == 0:
		return KindExit
	}
	return KindRouter
}

// String describes the carrier in one line: its name, its kind and route, its
// path, and the age of its last handshake.
func (c Carrier) String() string {
	kind := c.Kind()
	if kind != KindPeer {
		kind += " of " + c.Route.String()
	}
	parts := []string{c.Name, kind}
	if !c.Online {
		parts = append(parts, "OFFLINE according to the control server")
	}
	if c.Path.Kind == "" {
		parts = append(parts, "no path used yet")
	} else {
		parts = append(parts, c.Path.String())
	}
	if c.LastHandshake.IsZero() {
		parts = append(parts, "no handshake yet")
	} else {
		parts = append(parts, "last handshake "+time.Since(c.LastHandshake).Round(time.Second).String()+" ago")
	}
	return strings.Join(parts, ", ")
}
