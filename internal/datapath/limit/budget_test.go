package limit

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

// clientAt returns one of many client addresses.
func clientAt(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}) }

// takeAll has client take steps of n bytes until it is refused, and returns what it
// got.
func takeAll(b *Budget, client netip.Addr, n int64) (got int64) {
	for b.Take(client, n) == nil {
		got += n
	}
	return got
}

// TestShares checks that a client alone gets half, that many clients that take all
// they can leave room for the next, and that none gets more than a quarter then.
func TestShares(t *testing.T) {
	const whole = 1 << 20
	for _, k := range []int{1, 2, 4, 16} {
		t.Run(fmt.Sprintf("%d_greedy", k), func(t *testing.T) {
			var b Budget
			b.Set(whole)
			b.Take(alice, 1024) // an innocent client
			for range 50 {
				for i := range k {
					b.Take(clientAt(i), whole/1000)
				}
			}
			for i := range k {
				takeAll(&b, clientAt(i), 64)
				if held := b.Held(clientAt(i)); held > whole/4 {
					t.Errorf("a greedy client holds %d, want at most a quarter, %d", held, whole/4)
				}
			}
			if got := takeAll(&b, alice, 64); got < whole/200 {
				t.Errorf("with %d greedy clients the innocent one gets %d of %d", k, got, whole)
			}
		})
	}
	var b Budget
	b.Set(whole)
	if got := takeAll(&b, alice, 64); got < whole*49/100 || got > whole*51/100 {
		t.Errorf("a client alone gets %d of %d, want half", got, whole)
	}
}

// TestPressure checks who gets memory when that of the process is short.
func TestPressure(t *testing.T) {
	var b Budget
	refused := map[Kind]int{}
	b.Refused = func(k Kind) { refused[k]++ }
	b.Set(64000)
	b.Take(alice, 2000)
	b.Press(Tight)
	if err := b.Take(alice, 1); flow.ClassOf(err) != flow.Overloaded || refused[MemoryShare] != 1 {
		t.Errorf("Take of a client that holds much = %v, want class overloaded", err)
	}
	if err := b.Take(bob, 1000); err != nil {
		t.Errorf("Take of a client that holds nothing = %v, want nil", err)
	}
	b.Press(Critical)
	if err := b.Take(bob, 1); flow.ClassOf(err) != flow.Overloaded || refused[Memory] != 1 {
		t.Errorf("Take in a critical state = %v, want class overloaded", err)
	}
	b.Press(Relaxed)
	if err := b.Take(alice, 1); err != nil {
		t.Errorf("Take after the pressure = %v, want nil", err)
	}
}

// TestConnectionShares checks that clients which take all connections that they can
// leave some for the next one.
func TestConnectionShares(t *testing.T) {
	var g Gate
	refused := refusals(&g)
	g.Set(Limits{Connections: 1000})
	for range 500 {
		for i := range 4 {
			g.Enter(clientAt(i))
		}
	}
	for i := range 30 {
		if err := g.Enter(alice); err != nil {
			t.Fatalf("connection %d of an innocent client = %v, want nil", i, err)
		}
	}
	if n := g.conns.clients[clientAt(0)]; n < 150 || n > 250 {
		t.Errorf("each of four greedy clients has %d of 1000 connections, want a fifth", n)
	}
	if refused[Share] == 0 {
		t.Errorf("refusals %v, want some of share", refused)
	}
}

// TestDialShares checks that clients which dial as much as they can leave dials for
// the next one, that one alone gets half, and that shares are free again after it.
func TestDialShares(t *testing.T) {
	var g Gate
	refused := refusals(&g)
	g.Set(Limits{Dials: 1000})
	alone := 0
	for g.Dial(clientAt(0)) == nil {
		alone++
	}
	if alone != 500 || refused[DialShare] != 1 {
		t.Errorf("a client alone has %d of 1000 dials with refusals %v, want half, and one of dials_share", alone, refused)
	}
	if err := g.Full(clientAt(0)); flow.ClassOf(err) != flow.Overloaded || refused[DialShare] != 1 {
		t.Errorf("Full = %v with refusals %v, want class overloaded, and none more", err, refused)
	}
	for range 500 {
		for i := 1; i < 4; i++ {
			g.Dial(clientAt(i))
		}
	}
	for i := range 30 {
		if err := g.Dial(alice); err != nil {
			t.Fatalf("dial %d of an innocent client = %v, want nil", i, err)
		}
	}
	for client, n := range g.dials.clients {
		for range n {
			g.Dialed(client)
		}
	}
	if g.Dials() != 0 || len(g.dials.clients) != 0 {
		t.Errorf("%d dials of %d clients are left, want none", g.Dials(), len(g.dials.clients))
	}
}

// FuzzGate compares connections and dials with a model: what is granted never exceeds
// the limits or a client's share, and nothing is leaked.
func FuzzGate(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 0, 1, 2, 2, 1, 3, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		const whole = 80
		var g Gate
		g.Set(Limits{Connections: whole, Dials: whole})
		var connections, dials model
		for len(ops) >= 2 {
			client := clientAt(int(ops[0] % 5))
			op := ops[1] % 8
			ops = ops[2:]
			switch op {
			case 0, 1, 2:
				connections.enter(t, client, whole, g.Enter)
			case 3:
				connections.leave(client, g.Leave)
			case 4, 5, 6:
				dials.enter(t, client, whole, g.Dial)
			case 7:
				dials.leave(client, g.Dialed)
			}
			if n, clients := g.Connections(); n != connections.total || clients != len(connections.clients) || g.Dials() != dials.total {
				t.Fatalf("%d connections of %d clients and %d dials, want %d, %d and %d", n, clients, g.Dials(), connections.total, len(connections.clients), dials.total)
			}
		}
		for i := range 5 {
			for connections.leave(clientAt(i), g.Leave) || dials.leave(clientAt(i), g.Dialed) {
			}
		}
		if n, clients := g.Connections(); n != 0 || clients != 0 || g.Dials() != 0 || len(g.dials.clients) != 0 {
			t.Fatalf("%d connections and %d dials are left, want none", n, g.Dials())
		}
	})
}

// model is what FuzzGate knows of connections or dials.
type model tally[int]

// enter calls take, and checks that what it grants is within the shares.
func (m *model) enter(t *testing.T, client netip.Addr, whole int, take func(netip.Addr) error) {
	mine := m.clients[client]
	if take(client) != nil {
		if mine == 0 && m.total < whole*3/4 {
			t.Fatalf("a client with none is refused while %d of %d are in use", m.total, whole)
		}
		return
	}
	alone := mine == m.total
	if m.total >= whole || mine >= whole/2 || !alone && mine >= whole/4 {
		t.Fatalf("one more is granted with %d of %d in use, %d by the client", m.total, whole, mine)
	}
	(*tally[int])(m).add(client, 1)
}

// leave calls give if client has any, which it reports.
func (m *model) leave(client netip.Addr, give func(netip.Addr)) bool {
	if m.clients[client] == 0 {
		return false
	}
	give(client)
	(*tally[int])(m).add(client, -1)
	return true
}

// TestGateTakesMemory checks that each connection takes memory and gives it back, and
// that one without memory takes no place.
func TestGateTakesMemory(t *testing.T) {
	g := Gate{Memory: &Budget{}}
	g.Memory.Set(4 * connectionCost)
	if err := g.Enter(alice); err != nil {
		t.Fatal(err)
	}
	g.Memory.Press(Critical)
	if err := g.Enter(bob); flow.ClassOf(err) != flow.Overloaded {
		t.Errorf("Enter without memory = %v, want class overloaded", err)
	}
	if n, _ := g.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	if err := g.Full(bob); flow.ClassOf(err) != flow.Overloaded {
		t.Errorf("Full without memory = %v, want class overloaded", err)
	}
	g.Memory.Press(Relaxed)
	if err := g.Full(bob); err != nil || g.Memory.Held(bob) != 0 {
		t.Errorf("Full with memory = %v with %d bytes held, want nil with none", err, g.Memory.Held(bob))
	}
	g.Leave(alice)
	if held := g.Memory.Use().Held; held != 0 {
		t.Errorf("%d bytes are held after the last connection, want none", held)
	}
}

// FuzzBudget compares a budget with a model: what it grants never exceeds the size or
// a client's share, and nothing is leaked.
func FuzzBudget(f *testing.F) {
	f.Add([]byte{1, 10, 0, 2, 200, 0, 1, 9, 1, 0, 0, 3})
	f.Fuzz(func(t *testing.T, ops []byte) {
		const whole = 1000
		var b Budget
		b.Set(whole)
		model := map[netip.Addr]int64{}
		var taken []struct {
			client netip.Addr
			n      int64
		}
		sum := int64(0)
		for len(ops) >= 3 {
			client := clientAt(int(ops[0] % 5))
			n := int64(ops[1])
			op := ops[2] % 4
			ops = ops[3:]
			switch {
			case op < 2:
				if b.Take(client, n) != nil {
					break
				}
				holdsLittle := model[client]+n <= whole/little
				if sum+n > whole+whole/8 || !holdsLittle && (sum+n > whole || model[client]+n > whole-sum) {
					t.Fatalf("Take(%v, %d) is granted with %d of %d held, %d by the client", client, n, sum, whole, model[client])
				}
				sum += n
				model[client] += n
				taken = append(taken, struct {
					client netip.Addr
					n      int64
				}{client, n})
			case op == 2 && len(taken) > 0:
				last := taken[len(taken)-1]
				taken = taken[:len(taken)-1]
				b.Give(last.client, last.n)
				sum -= last.n
				model[last.client] -= last.n
			}
			if got := b.Use().Held; got != sum || b.Held(client) != model[client] {
				t.Fatalf("held %d, %d by the client; want %d and %d", got, b.Held(client), sum, model[client])
			}
		}
		for _, x := range taken {
			b.Give(x.client, x.n)
		}
		if b.Use().Held != 0 || len(b.held.clients) != 0 {
			t.Fatalf("%d bytes of %d clients are left, want none", b.Use().Held, len(b.held.clients))
		}
	})
}

// TestBudgetManyAtOnce checks that the bound holds while many goroutines take and
// give.
func TestBudgetManyAtOnce(t *testing.T) {
	var b Budget
	b.Set(1 << 16)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for range 500 {
				if b.Take(clientAt(i%4), 4096) == nil {
					if held := b.Use().Held; held > 9<<13 {
						t.Errorf("%d bytes are held, want at most %d", held, 9<<13)
					}
					b.Give(clientAt(i%4), 4096)
				}
			}
		})
	}
	wg.Wait()
	if b.Use().Held != 0 {
		t.Errorf("%d bytes are left, want none", b.Use().Held)
	}
}

// TestLittleIsLeft checks that a client that holds little gets more when others have
// added more than there is, and no more than an eighth.
func TestLittleIsLeft(t *testing.T) {
	var b Budget
	b.Set(64000)
	b.Add(bob, 64000)
	if err := b.Take(alice, 2000); err != nil {
		t.Errorf("Take of a client that holds nothing = %v, want nil", err)
	}
	if err := b.Take(bob, 1); err == nil {
		t.Error("Take of the client that holds all succeeds")
	}
	b.Add(bob, 8000)
	if err := b.Take(clientAt(1), 1); err == nil {
		t.Error("Take beyond an eighth more succeeds")
	}
}
