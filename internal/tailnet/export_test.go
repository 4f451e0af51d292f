package tailnet

import (
	"time"

	"tailscale.com/net/tstun"
)

// Tun gives tests the node's packets.
func (n *Node) Tun() *tstun.Wrapper { return n.sys.Tun.Get() }

// Freeze takes n off the network at once and without a word, as a lost power
// supply does. It is of no use then but for Close.
func Freeze(n *Node) { n.sys.MagicSock.Get().Close() }

// CachedPeer is what the names of cached peers begin with.
const CachedPeer = cachedPeer

// Patience is how long n waits for a lost route now.
func Patience(n *Node) time.Duration { return n.patience() }

// SeesControl reports whether n saw the control server when it looked last.
func SeesControl(n *Node) bool { return n.control.Load() }
