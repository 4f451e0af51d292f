package tailnet

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// A peer can lose its side of a WireGuard session that is still valid for us:
// the library flushes a session when it hears that the other device has
// restarted, and it hears that late when the control server is late. What we
// send into such a session is lost, and WireGuard starts a new one only after
// 15 s without an answer. So the sessions with the peers that carry routes are
// checked: when a dial has to wait, and regularly.
const (
	stuckAfter = time.Second            // how long a dial waits before its peer's session is checked
	checkEvery = 20 * time.Second       // between two regular checks of all peers
	checkAgain = 3 * time.Second        // least time between two checks of one peer
	answerTime = 700 * time.Millisecond // for the answer to one ping; there are two attempts
	checksMost = 16                     // most checks at the same time, and most addresses that wait for one
)

// sessions checks the WireGuard sessions with peers and replaces lost ones.
type sessions struct {
	*engine
	log      *slog.Logger
	suspects chan netip.Addr // addresses whose peer is to be checked
	mended   atomic.Int64    // sessions that were replaced
}

// suspect asks for a check of the session with the peer that carries addr, and
// returns at once. If that peer was checked less than checkAgain ago, the check
// is made later.
func (s *sessions) suspect(addr netip.Addr) {
	select {
	case s.suspects <- addr:
	default: // enough checks are waiting
	}
}

// check pings the peer inside its session, and then outside. If it answers only
// outside, the session is lost and check starts a new one.
//
// A ping inside waits behind other data, so on a full path it can go unanswered.
// Data that was received meanwhile shows that the session works. A new session
// would then lose all packets that are on their way.
func (s *sessions) check(ctx context.Context, peer tailcfg.NodeView) {
	addr := peer.Addresses().At(0).Addr()
	before := s.received(peer.Key())
	if s.answers(ctx, addr, tailcfg.PingTSMP) || !s.answers(ctx, addr, tailcfg.PingDisco) || s.received(peer.Key()) != before || ctx.Err() != nil {
		return // the session works, or the peer is not reachable: a new session would not help
	}
	s.log.Warn("peer lost its WireGuard session; starting another", "peer", trimDot(peer.Name()))
	s.mended.Add(1)
	s.resetSession(addr)
	s.answers(ctx, addr, tailcfg.PingTSMP) // the first packet starts the session
}

// received returns the number of bytes that WireGuard has received from a peer.
// All of them are authenticated.
func (s *sessions) received(peer key.NodePublic) uint64 {
	if p, ok := s.sys.Engine.Get().PeerByKey(peer); ok {
		return p.RxBytes()
	}
	return 0
}

// answers pings addr twice at most and reports whether it answered.
func (s *sessions) answers(ctx context.Context, addr netip.Addr, kind tailcfg.PingType) bool {
	for range 2 {
		if s.pingOnce(ctx, addr, kind, answerTime) {
			return true
		}
	}
	return false
}

// run checks the sessions of suspects, and every checkEvery those with all peers
// that carry routes, until ctx ends. The regular checks also keep the paths
// open: the first connection after a quiet time is as quick as the next.
func (s *sessions) run(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(checksMost)
	defer g.Wait()
	last := map[key.NodePublic]time.Time{} // when the last check of a peer started
	later := map[key.NodePublic]bool{}     // peers for which a timer will ask again
	t := time.NewTicker(checkEvery)
	defer t.Stop()
	for {
		var peers []tailcfg.NodeView
		var suspect netip.Addr // valid when a dial asked for the check
		select {
		case <-ctx.Done():
			return
		case suspect = <-s.suspects:
			if p, ok := s.peerFor(suspect); ok && p.Addresses().Len() > 0 {
				peers = append(peers, p)
			}
		case <-t.C:
			maps.DeleteFunc(last, func(_ key.NodePublic, t time.Time) bool { return time.Since(t) > checkAgain })
			peers = s.routers()
		}
		for _, p := range peers {
			wait := checkAgain - time.Since(last[p.Key()])
			switch {
			case !s.running():
			case wait > 0 && suspect.IsValid() && !later[p.Key()]:
				later[p.Key()] = true
				time.AfterFunc(wait, func() { s.suspect(suspect) })
			case wait <= 0:
				last[p.Key()] = time.Now()
				delete(later, p.Key())
				g.Go(func() error { s.check(ctx, p); return nil })
			}
		}
	}
}

// ResetSession discards the WireGuard session with the peer that carries addr.
// The next packet to that peer starts a new session. Without such a peer it does
// nothing.
func (n *Node) ResetSession(addr netip.Addr) { n.resetSession(addr) }

// SessionsMended returns how many sessions were replaced because the peer had
// lost its side.
func (n *Node) SessionsMended() int64 { return n.sessions.mended.Load() }
