package limit

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

var (
	alice = netip.MustParseAddr("10.0.0.1")
	bob   = netip.MustParseAddr("fd00::2")
)

func refusals(g *Gate) map[Kind]int {
	m := map[Kind]int{}
	g.Refused = func(k Kind) { m[k]++ }
	return m
}

func TestEnter(t *testing.T) {
	var g Gate
	refused := refusals(&g)
	g.Set(Limits{Connections: 3, PerClient: 2})
	for i, c := range []struct {
		client netip.Addr
		ok     bool
	}{{alice, true}, {alice, true}, {alice, false}, {bob, true}, {bob, false}} {
		err := g.Enter(c.client)
		if (err == nil) != c.ok || err != nil && flow.ClassOf(err) != flow.Overloaded {
			t.Errorf("%d: Enter(%v) = %v, want no error: %v", i, c.client, err, c.ok)
		}
	}
	if refused[PerClient] != 1 || refused[Connections] != 1 {
		t.Errorf("refusals %v, want one of per_client and one of connections", refused)
	}
	if n, clients := g.Connections(); n != 3 || clients != 2 {
		t.Errorf("Connections() = %d, %d, want 3, 2", n, clients)
	}
	g.Leave(alice)
	if err := g.Enter(bob); err != nil {
		t.Errorf("Enter(bob) after Leave(alice) = %v, want no error", err)
	}
	g.Set(Limits{})
	if err := g.Enter(bob); err != nil {
		t.Errorf("Enter without limits = %v, want no error", err)
	}
	for range 3 {
		g.Leave(bob)
	}
	g.Leave(alice)
	if n, clients := g.Connections(); n != 0 || clients != 0 || len(g.conns.clients) != 0 {
		t.Errorf("%d connections of %d clients are left, want none", n, clients)
	}
}

func TestDial(t *testing.T) {
	var g Gate
	refused := refusals(&g)
	for range 3 {
		if err := g.Dial(alice); err != nil {
			t.Fatalf("Dial without a limit = %v, want no error", err)
		}
	}
	g.Set(Limits{Dials: 3})
	if err := g.Dial(alice); flow.ClassOf(err) != flow.Overloaded || refused[Dials] != 1 {
		t.Errorf("fourth Dial = %v with refusals %v, want class overloaded, and one of dials", err, refused)
	}
	g.Dialed(alice)
	if err := g.Dial(alice); err != nil || g.Dials() != 3 {
		t.Errorf("Dial after Dialed = %v with %d in progress, want no error and 3", err, g.Dials())
	}
}

// TestManyAtOnce checks that limits hold while many goroutines enter and leave, and
// that no place is lost.
func TestManyAtOnce(t *testing.T) {
	var g Gate
	g.Set(Limits{Connections: 8, Dials: 4})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 200 {
				if g.Enter(alice) != nil {
					continue
				}
				if n, _ := g.Connections(); n > 8 {
					t.Errorf("%d connections, want at most 8", n)
				}
				if g.Dial(alice) == nil {
					g.Dialed(alice)
				}
				g.Leave(alice)
			}
		})
	}
	wg.Wait()
	if n, _ := g.Connections(); n != 0 || g.Dials() != 0 {
		t.Errorf("%d connections and %d dials are left, want none", n, g.Dials())
	}
}
