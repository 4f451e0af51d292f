package dial

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/pandoproxy/pando/internal/flow"
)

const (
	// namesKept and failuresKept bound what is remembered, for names with several
	// addresses.
	namesKept    = 4096
	failuresKept = 4096
	// failedFor is how long a target that has failed is tried after the others.
	failedFor = 10 * time.Second
)

// spread spreads connections over the targets of a name (RFC 1794): each dial begins
// with the next one, and those that failed a moment ago come last. It does nothing for a
// name with one target. The zero value is ready.
type spread struct {
	mu       sync.Mutex
	turns    *simplelru.LRU[netip.AddrPort, *atomic.Uint32] // by the least target of a name
	failures *simplelru.LRU[netip.AddrPort, time.Time]      // when a target last failed
	known    atomic.Bool                                    // failures may have some
}

// order returns the targets that are tried, in order. The address families alternate,
// that of the first target first (RFC 8305 section 4). Within a family the dials of a name
// take turns. Targets that have failed a moment ago come last, and have no turn: the one
// after them would have two.
func (s *spread) order(targets []flow.Target, now time.Time) []flow.Target {
	if len(targets) == 1 {
		return targets
	}
	turn := s.turn(targets)
	well, failed := s.split(targets, now)
	out := append(inTurn(well, turn), inTurn(failed, turn)...)
	return out[:min(len(out), maxCandidates)]
}

// inTurn returns targets of both families in the order of one turn.
func inTurn(targets []flow.Target, turn int) []flow.Target {
	var first, other []flow.Target // by family
	for _, t := range targets {
		if t.Addr.Addr().Is4() == targets[0].Addr.Addr().Is4() {
			first = append(first, t)
		} else {
			other = append(other, t)
		}
	}
	rotate(first, turn)
	rotate(other, turn)
	out := make([]flow.Target, 0, len(targets))
	for i := range max(len(first), len(other)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(other) {
			out = append(out, other[i])
		}
	}
	return out
}

// turn returns how many dials of a name there were before.
func (s *spread) turn(targets []flow.Target) int {
	key := slices.MinFunc(targets, func(a, b flow.Target) int { return a.Addr.Compare(b.Addr) }).Addr
	s.mu.Lock()
	if s.turns == nil {
		s.turns, _ = simplelru.NewLRU[netip.AddrPort, *atomic.Uint32](namesKept, nil) // fails for a size below 1
	}
	n, ok := s.turns.Get(key)
	if !ok {
		n = new(atomic.Uint32)
		s.turns.Add(key, n)
	}
	s.mu.Unlock()
	return int(n.Add(1) - 1)
}

// rotate moves the first n targets of list to its end.
func rotate(list []flow.Target, n int) {
	if len(list) < 2 {
		return
	}
	n %= len(list)
	slices.Reverse(list[:n])
	slices.Reverse(list[n:])
	slices.Reverse(list)
}

// split returns the targets that have failed a moment ago, and the others.
func (s *spread) split(targets []flow.Target, now time.Time) (well, failed []flow.Target) {
	if !s.known.Load() {
		return targets, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range targets {
		if at, ok := s.failures.Peek(t.Addr); ok && now.Sub(at) < failedFor {
			failed = append(failed, t)
		} else {
			well = append(well, t)
		}
	}
	return well, failed
}

// failed notes that a target of a name with several has not answered, or has refused.
func (s *spread) failed(t flow.Target, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures == nil {
		s.failures, _ = simplelru.NewLRU[netip.AddrPort, time.Time](failuresKept, nil)
	}
	s.failures.Add(t.Addr, now)
	s.known.Store(true)
}

// connected forgets that a target has failed.
func (s *spread) connected(t flow.Target) {
	if !s.known.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures.Remove(t.Addr)
	s.known.Store(s.failures.Len() > 0)
}
