package tailnet

import (
	"errors"
	"fmt"
)

// ErrWrongTailnet means that the node is in another tailnet than Options.Expect says.
var ErrWrongTailnet = errors.New("the device is in the wrong tailnet")

// checkTailnet returns ErrWrongTailnet, with the names of both tailnets, if the node is
// in another tailnet than the expected one.
//
// The name that the network map in use has for the node decides, at the moment of each
// call. So the answer is right from the first map on, before the node is up, and when
// a later login or a new map moves the node to another tailnet. Every dial, lookup and
// flow of a peer calls it. Connections that are open stay: their peers are not in the
// new map, so they end by themselves.
func (n *Node) checkTailnet() error {
	expect := trimDot(n.opts.Expect)
	if expect == "" {
		return nil
	}
	nm := n.lb.NetMapNoPeers()
	if nm == nil {
		return nil // the node is not up: no name to compare yet
	}
	switch got := trimDot(nm.MagicDNSSuffix()); got {
	case expect:
		return nil
	case "":
		return fmt.Errorf("%w: the control server gives it no MagicDNS name, and tailnet.expect is %s", ErrWrongTailnet, expect)
	default:
		return fmt.Errorf("%w: it is in %s, and tailnet.expect is %s", ErrWrongTailnet, got, expect)
	}
}
