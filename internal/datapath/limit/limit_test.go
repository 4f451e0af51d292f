package limit

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

var alice, bob = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::2")

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
			t.Errorf("%d: %v gets %v", i, c.client, err)
		}
	}
	if refused[PerClient] != 1 || refused[Connections] != 1 {
		t.Errorf("refused %v", refused)
	}
	if n, clients := g.Connections(); n != 3 || clients != 2 {
		t.Errorf("%d connections of %d clients", n, clients)
	}
	g.Leave(alice)
	if err := g.Enter(bob); err != nil {
		t.Errorf("bob after alice left: %v", err)
	}
	g.Set(Limits{})
	if err := g.Enter(bob); err != nil {
		t.Errorf("without limits: %v", err)
	}
	for range 3 {
		g.Leave(bob)
	}
	g.Leave(alice)
	if n, clients := g.Connections(); n != 0 || clients != 0 || len(g.clients) != 0 {
		t.Errorf("%d connections of %d clients are left", n, clients)
	}
}

func TestDial(t *testing.T) {
	var g Gate
	refused := refusals(&g)
	for range 3 {
		if err := g.Dial(); err != nil {
			t.Fatalf("without a limit: %v", err)
		}
	}
	g.Set(Limits{Dials: 3})
	if err := g.Dial(); flow.ClassOf(err) != flow.Overloaded || refused[Dials] != 1 {
		t.Errorf("the fourth gets %v, refused %v", err, refused)
	}
	g.Dialed()
	if err := g.Dial(); err != nil || g.Dials() != 3 {
		t.Errorf("after one ended: %v, %d", err, g.Dials())
	}
}

// Never more than the limit are inside, and none is lost.
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
					t.Errorf("%d inside", n)
				}
				if g.Dial() == nil {
					g.Dialed()
				}
				g.Leave(alice)
			}
		})
	}
	wg.Wait()
	if n, _ := g.Connections(); n != 0 || g.Dials() != 0 {
		t.Errorf("left: %d connections, %d dials", n, g.Dials())
	}
}
