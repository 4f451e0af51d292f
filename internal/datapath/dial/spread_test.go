package dial

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// world is a network in which each address behaves in its own way.
type world struct {
	mu              sync.Mutex
	refuses, silent map[netip.Addr]bool
	got             map[netip.Addr]int // connections
	tried           map[netip.Addr]int // dials
}

func newWorld() *world {
	return &world{
		refuses: map[netip.Addr]bool{},
		silent:  map[netip.Addr]bool{},
		got:     map[netip.Addr]int{},
		tried:   map[netip.Addr]int{},
	}
}

// dialer dials in w. It is used in a bubble of synctest, one dial at a time.
func (w *world) dialer() *Dialer {
	return &Dialer{Tailnet: func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
		w.mu.Lock()
		w.tried[a.Addr()]++
		silent := w.silent[a.Addr()]
		refuses := w.refuses[a.Addr()]
		w.mu.Unlock()
		switch {
		case silent:
			<-ctx.Done()
			return nil, ctx.Err()
		case refuses:
			return nil, syscall.ECONNREFUSED
		}
		c, peer := net.Pipe()
		peer.Close()
		return c, nil
	}}
}

// dial makes n connections, one every gap, and returns how long the slowest took.
func (w *world) dial(t *testing.T, d *Dialer, list []flow.Target, n int, gap time.Duration) (slowest time.Duration) {
	t.Helper()
	for range n {
		start := time.Now()
		c, target, err := d.Dial(t.Context(), list)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		synctest.Wait() // the losers have ended
		slowest = max(slowest, time.Since(start))
		w.got[target.Addr.Addr()]++
		time.Sleep(gap) // of the bubble's clock
	}
	return slowest
}

// name returns the targets of a name with n addresses of each family.
func name(n4, n6 int) []flow.Target {
	var list []string
	for i := range n6 {
		list = append(list, fmt.Sprintf("[fd00::%d]:80", i+1))
	}
	for i := range n4 {
		list = append(list, fmt.Sprintf("10.0.0.%d:80", i+1))
	}
	return targets(list...)
}

// TestSpread checks that connections take turns over the addresses of a name, and that
// one address, or one of each family, is used as before.
func TestSpread(t *testing.T) {
	for _, c := range []struct {
		n4, n6, dials int
		want          map[string]int
	}{
		{1, 0, 10, map[string]int{"10.0.0.1": 10}},
		{2, 0, 40, map[string]int{"10.0.0.1": 20, "10.0.0.2": 20}},
		{3, 0, 30, map[string]int{"10.0.0.1": 10, "10.0.0.2": 10, "10.0.0.3": 10}},
		{1, 1, 10, map[string]int{"fd00::1": 10}}, // IPv6 comes first (RFC 6724)
		{3, 2, 10, map[string]int{"fd00::1": 5, "fd00::2": 5}},
	} {
		t.Run(fmt.Sprintf("%d_and_%d", c.n4, c.n6), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.dial(t, w.dialer(), name(c.n4, c.n6), c.dials, time.Millisecond)
				for a, want := range c.want {
					if got := w.got[netip.MustParseAddr(a)]; got != want {
						t.Errorf("%s has %d of %d connections, want %d: %v", a, got, c.dials, want, w.got)
					}
				}
			})
		})
	}
}

// TestSpreadOfTwoNames checks that the turns of one name are not those of another: a
// client that uses both in turn would get the same address of each.
func TestSpreadOfTwoNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := w.dialer()
		other := targets("10.1.0.1:80", "10.1.0.2:80")
		for range 20 {
			w.dial(t, d, name(2, 0), 1, 0)
			w.dial(t, d, other, 1, 0)
		}
		for a, n := range w.got {
			if n != 10 {
				t.Errorf("%v has %d of 20 connections, want 10", a, n)
			}
		}
	})
}

// TestSpreadOverMany checks that all addresses of a name are used, also if there are more
// than one dial tries.
func TestSpreadOverMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		const n = 3 * maxCandidates
		w.dial(t, w.dialer(), name(n, 0), 4*n, 0)
		if len(w.got) != n {
			t.Errorf("%d of %d addresses are used", len(w.got), n)
		}
	})
}

// TestSpreadAvoidsFailures checks that an address that refuses, or is silent, costs the
// connections of a name nothing for a while, and that it comes back.
func TestSpreadAvoidsFailures(t *testing.T) {
	bad := netip.MustParseAddr("10.0.0.2")
	for kind, fails := range map[string]func(*world) map[netip.Addr]bool{
		"refuses": func(w *world) map[netip.Addr]bool { return w.refuses },
		"silent":  func(w *world) map[netip.Addr]bool { return w.silent },
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				d := w.dialer()
				list := name(3, 0)
				fails(w)[bad] = true
				w.dial(t, d, list, 3, 0)
				if w.tried[bad] != 1 {
					t.Fatalf("the bad address was tried %d times in 3 connections, want once", w.tried[bad])
				}
				if slowest := w.dial(t, d, list, 60, 100*time.Millisecond); slowest != 0 || w.tried[bad] != 1 {
					t.Errorf("in the next 6 s the bad address was tried %d times more, and the slowest connection took %v; want never, and 0", w.tried[bad]-1, slowest)
				}
				for _, a := range []string{"10.0.0.1", "10.0.0.3"} {
					if n := w.got[netip.MustParseAddr(a)]; n < 30 || n > 33 {
						t.Errorf("%s has %d of 63 connections, want half: the failed address has no turn to give away", a, n)
					}
				}
				delete(fails(w), bad)
				time.Sleep(failedFor) // of the bubble's clock
				clear(w.got)
				w.dial(t, d, list, 30, 0)
				if w.got[bad] != 10 {
					t.Errorf("the address that is well again has %d of 30 connections, want 10", w.got[bad])
				}
			})
		})
	}
}

// TestSpreadForgets checks that what is remembered is bounded, and that an address that
// connects again has no failure any more.
func TestSpreadForgets(t *testing.T) {
	var s spread
	now := time.Now()
	for i := range 2 * failuresKept {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 80)
		pair := []flow.Target{{Addr: a}, {Addr: netip.AddrPortFrom(a.Addr(), 81)}}
		s.order(pair, now)
		s.failed(pair[0], now)
	}
	if s.turns.Len() > namesKept || s.failures.Len() > failuresKept {
		t.Errorf("%d names and %d failures are kept, want at most %d and %d", s.turns.Len(), s.failures.Len(), namesKept, failuresKept)
	}
	for _, a := range slices.Clone(s.failures.Keys()) {
		s.connected(flow.Target{Addr: a})
	}
	if s.failures.Len() != 0 || s.known.Load() {
		t.Errorf("%d failures are kept after all have connected, want none", s.failures.Len())
	}
}
