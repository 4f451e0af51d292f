package session

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// StuckAfter is how long a dial waits before it calls Suspect.
const StuckAfter = time.Second

// A peer can lose its side of a WireGuard session that is still valid for us:
// the library flushes a session when it hears that the other device has
// restarted, and it hears that late when the control server is late. What we
// send into such a session is lost, and WireGuard starts a new one only after
// 15 s without an answer. So the sessions with the peers that carry routes are
// checked: when a dial has to wait, and regularly.
const (
	checkEvery = 20 * time.Second       // between two regular checks of all peers
	checkAgain = 3 * time.Second        // least time between two checks of one peer
	answerTime = 700 * time.Millisecond // for the answer to one ping; there are two attempts
	checksMost = 16                     // most checks at the same time, and most addresses that wait for one
)

// Checker checks the WireGuard sessions with peers and replaces lost ones.
type Checker struct {
	*Peers
	log      *slog.Logger
	suspects chan netip.Addr // addresses whose peer is to be checked
	mended   atomic.Int64    // sessions that were replaced
}

// NewChecker returns a Checker of the sessions with peers. It does nothing until
// Run.
func NewChecker(peers *Peers, log *slog.Logger) *Checker {
	return &Checker{
		Peers:    peers,
		log:      log,
		suspects: make(chan netip.Addr, checksMost),
	}
}

// Mended returns how many sessions were replaced because the peer had lost its
// side.
func (c *Checker) Mended() int64 { return c.mended.Load() }

// Suspect asks for a check of the session with the peer that carries addr, and
// returns at once. If that peer was checked less than checkAgain ago, the check
// is made later.
func (c *Checker) Suspect(addr netip.Addr) {
	select {
	case c.suspects <- addr:
	default: // enough checks are waiting
	}
}

// check pings the peer inside its session, and then outside. If it answers only
// outside, the session is lost and check starts a new one.
//
// A ping inside waits behind other data, so on a full path it can go unanswered.
// Data that was received meanwhile shows that the session works. A new session
// would then lose all packets that are on their way.
func (c *Checker) check(ctx context.Context, peer tailcfg.NodeView) {
	addr := peer.Addresses().At(0).Addr()
	before := c.received(peer.Key())
	if c.answers(ctx, addr, tailcfg.PingTSMP) || !c.answers(ctx, addr, tailcfg.PingDisco) || c.received(peer.Key()) != before || ctx.Err() != nil {
		return // the session works, or the peer is not reachable: a new session would not help
	}
	c.log.Warn("peer lost its WireGuard session; starting another", "peer", strings.TrimSuffix(peer.Name(), "."))
	c.mended.Add(1)
	c.Reset(addr)
	c.answers(ctx, addr, tailcfg.PingTSMP) // the first packet starts the session
}

// received returns the number of bytes that WireGuard has received from a peer.
// All of them are authenticated.
func (c *Checker) received(peer key.NodePublic) uint64 {
	if p, ok := c.Sys.Engine.Get().PeerByKey(peer); ok {
		return p.RxBytes()
	}
	return 0
}

// answers pings addr twice at most and reports whether it answered.
func (c *Checker) answers(ctx context.Context, addr netip.Addr, kind tailcfg.PingType) bool {
	for range 2 {
		if c.pingOnce(ctx, addr, kind, answerTime) {
			return true
		}
	}
	return false
}

// Run checks the sessions of suspects, and every checkEvery those with all peers
// that carry routes, until ctx ends. The regular checks also keep the paths
// open: the first connection after a quiet time is as quick as the next.
func (c *Checker) Run(ctx context.Context) {
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
		case suspect = <-c.suspects:
			if p, ok := c.Carrier(suspect); ok && p.Addresses().Len() > 0 {
				peers = append(peers, p)
			}
		case <-t.C:
			maps.DeleteFunc(last, func(_ key.NodePublic, t time.Time) bool { return time.Since(t) > checkAgain })
			peers = c.routers()
		}
		for _, p := range peers {
			wait := checkAgain - time.Since(last[p.Key()])
			switch {
			case !c.Running():
			case wait > 0 && suspect.IsValid() && !later[p.Key()]:
				later[p.Key()] = true
				time.AfterFunc(wait, func() { c.Suspect(suspect) })
			case wait <= 0:
				last[p.Key()] = time.Now()
				delete(later, p.Key())
				g.Go(func() error { c.check(ctx, p); return nil })
			}
		}
	}
}
