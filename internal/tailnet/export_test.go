package tailnet

import "tailscale.com/net/tstun"

// Tun gives tests the node's packets.
func (n *Node) Tun() *tstun.Wrapper { return n.sys.Tun.Get() }
