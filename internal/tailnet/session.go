package tailnet

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// A peer can lose its side of a WireGuard session that we hold for good: the
// library flushes a session when it hears that the other device has restarted,
// and hears it late when the control server is. What we send into such a
// session is lost, and WireGuard begins a new one only after 15 s of silence.
// So the sessions with the peers that carry routes are looked after: when a
// dial has to wait, and from time to time.
const (
	stuckAfter  = time.Second            // how long a dial waits before its peer's session is checked
	checkEvery  = 20 * time.Second       // between two checks of a peer that nobody asked for
	checkAgain  = 3 * time.Second        // between two checks that somebody asked for
	answerTime  = 700 * time.Millisecond // for an answer to one ping; there are two tries
	checksAtAll = 16                     // checks at a time
)

// suspect has the session with the peer that carries addr looked at: when the
// peer is there but says nothing in its session, a new one is begun. Nothing
// waits for it; when it was done a moment ago, it is done in another.
func (n *Node) suspect(addr netip.Addr) {
	select {
	case n.suspects <- addr:
	default: // enough is being looked at
	}
}

// check pings the peer within its session, and beside it. A ping within waits
// behind what else is sent, so on a full path it can go unanswered; what was
// received meanwhile shows that the session is well, and a new one would lose
// all that is on its way.
func (n *Node) check(ctx context.Context, peer tailcfg.NodeView) {
	addr, before := peer.Addresses().At(0).Addr(), n.received(peer.Key())
	if n.answers(ctx, addr, tailcfg.PingTSMP) || !n.answers(ctx, addr, tailcfg.PingDisco) || n.received(peer.Key()) != before || ctx.Err() != nil {
		return // well, or not there at all: nothing that a new session would mend
	}
	n.log.Warn("a peer is there but lost its WireGuard session: a new one is begun", "peer", trimDot(peer.Name()))
	n.sessionsMended.Add(1)
	n.ResetSession(addr)
	n.answers(ctx, addr, tailcfg.PingTSMP) // begins it
}

// received returns the bytes that WireGuard has had from a peer, all of them
// authenticated.
func (n *Node) received(peer key.NodePublic) uint64 {
	if p, ok := n.sys.Engine.Get().PeerByKey(peer); ok {
		return p.RxBytes()
	}
	return 0
}

// ResetSession forgets the WireGuard session with the peer that carries addr.
// The next packet to it begins a new one.
func (n *Node) ResetSession(addr netip.Addr) {
	if p, ok := n.lb.PeerForIP(addr.Unmap()); ok && !p.IsSelf {
		n.sys.Engine.Get().ResetDevicePeer(p.Node.Key())
	}
}

// SessionsMended returns how many sessions were begun anew because the peer
// had lost its side.
func (n *Node) SessionsMended() int64 { return n.sessionsMended.Load() }

// answers pings addr, twice at most.
func (n *Node) answers(ctx context.Context, addr netip.Addr, kind tailcfg.PingType) bool {
	for range 2 {
		try, cancel := context.WithTimeout(ctx, answerTime)
		res, err := n.lb.Ping(try, addr, kind, 0)
		if err == nil && res.Err == "" {
			cancel()
			return true
		}
		<-try.Done() // an error may come at once
		cancel()
	}
	return false
}

// lookAfter checks the sessions of suspects, and from time to time those with
// all peers that carry routes, until the node is closed. That also keeps the
// paths open, so that the first connection after a quiet time is as quick as
// the next.
func (n *Node) lookAfter() {
	var g errgroup.Group
	g.SetLimit(checksAtAll)
	defer g.Wait()
	last := map[key.NodePublic]time.Time{} // when a check of a peer began
	later := map[key.NodePublic]bool{}     // peers that are suspected again when they may be
	t := time.NewTicker(checkEvery)
	defer t.Stop()
	for {
		var peers []tailcfg.NodeView
		var suspect netip.Addr
		select {
		case <-n.ctx.Done():
			return
		case suspect = <-n.suspects:
			if p, ok := n.lb.PeerForIP(suspect.Unmap()); ok && !p.IsSelf && p.Node.Addresses().Len() > 0 {
				peers = append(peers, p.Node)
			}
		case <-t.C:
			maps.DeleteFunc(last, func(_ key.NodePublic, t time.Time) bool { return time.Since(t) > checkAgain })
			peers = n.routers()
		}
		for _, p := range peers {
			wait := checkAgain - time.Since(last[p.Key()])
			switch {
			case !n.Up():
			case wait > 0 && suspect.IsValid() && !later[p.Key()]:
				later[p.Key()] = true
				time.AfterFunc(wait, func() { n.suspect(suspect) })
			case wait <= 0:
				last[p.Key()] = time.Now()
				delete(later, p.Key())
				g.Go(func() error { n.check(n.ctx, p); return nil })
			}
		}
	}
}

// routers returns the peers that carry routes and that the control server does
// not know to be offline.
func (n *Node) routers() (list []tailcfg.NodeView) {
	nm := n.lb.NetMapWithPeers()
	if nm == nil {
		return nil
	}
	for _, p := range nm.Peers {
		if p.Addresses().Len() == 0 || p.AllowedIPs().Len() <= p.Addresses().Len() {
			continue
		}
		if online, ok := p.Online().GetOk(); ok && !online {
			continue
		}
		list = append(list, p)
	}
	return list
}
