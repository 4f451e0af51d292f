package limit

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

// enterAll has client enter zone until it is refused, and returns how often it got
// in, and the refusal.
func enterAll(z *ByZone, client netip.Addr, zone string) (got int, err error) {
	for {
		if _, err = z.Enter(client, zone); err != nil {
			return got, err
		}
		got++
	}
}

// TestZoneLeavesRoom checks that a client leaves room for others in its zone, and a
// zone for other zones.
func TestZoneLeavesRoom(t *testing.T) {
	refused := map[Kind]int{}
	z := NewLookups(func(k Kind) { refused[k]++ }, nil)
	z.Enter(bob, "slow.example")
	got, err := enterAll(z, alice, "slow.example")
	if got != 64 || flow.ClassOf(err) != flow.Overloaded || flow.HintOf(err) != hints[LookupShare] {
		t.Errorf("a greedy client has %d of 256 lookups of a zone, then %v, want a quarter, then class overloaded", got, err)
	}
	for i := range 300 {
		enterAll(z, clientAt(i), "slow.example")
	}
	if n := z.zones["slow.example"].total; n != 256 || refused[Lookups] == 0 {
		t.Errorf("%d lookups of a zone are in progress, with refusals %v, want 256 and some of lookups", n, refused)
	}
	for _, zone := range []string{"a.example", "b.example"} {
		if got, err := enterAll(z, alice, zone); got != 128 {
			t.Errorf("beside a slow zone a client has %d lookups of %s, then %v, want 128", got, zone, err)
		}
	}
	q := NewQueries(nil)
	for i := range 600 {
		q.Enter(clientAt(i), "slow.example")
	}
	if got := q.zones["slow.example"].total; got != 512 {
		t.Errorf("a zone alone has %d of 1024 queries, want half", got)
	}
	for i := range 600 {
		q.Enter(clientAt(i), "other.example")
	}
	if got := q.zones["other.example"].total; got != 256 {
		t.Errorf("a zone beside another one has %d of 1024 queries, want a quarter", got)
	}
	q = NewQueries(nil)
	q.Enter(bob, "slow.example")
	if got, err := enterAll(q, alice, "fast.example"); got != 256 {
		t.Errorf("beside a slow zone, a client has %d queries, then %v, want 256", got, err)
	}
}

// TestLookupsTakeMemory checks that lookups count as memory of their client, and
// that nothing is left when they have ended.
func TestLookupsTakeMemory(t *testing.T) {
	var b Budget
	b.Set(64 * lookupCost)
	z := NewLookups(nil, &b)
	var leaves []func()
	for {
		leave, err := z.Enter(alice, "corp.example")
		if err != nil {
			if flow.HintOf(err) != hints[MemoryShare] {
				t.Errorf("the refusal is %v, want one for the share of memory", err)
			}
			break
		}
		leaves = append(leaves, leave)
	}
	if held := b.Held(alice); len(leaves) != 32 || held != 32*lookupCost {
		t.Errorf("%d lookups hold %d bytes, want 32 with %d each", len(leaves), held, lookupCost)
	}
	b.Press(Critical)
	leave, err := z.Enter(netip.Addr{}, "corp.example")
	if err != nil {
		t.Fatalf("a lookup of the replica itself when memory is short: %v, want no error", err)
	}
	for _, leave := range append(leaves, leave) {
		leave()
	}
	if b.Use().Held != 0 || len(z.zones) != 0 || z.total != 0 {
		t.Errorf("%d bytes and %d lookups are left, want none", b.Use().Held, z.total)
	}
}

// TestZonesManyAtOnce checks that bounds hold while many goroutines enter and leave,
// and that no place is lost.
func TestZonesManyAtOnce(t *testing.T) {
	z := NewQueries(nil)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			zone := string(rune('a' + i%3))
			for range 200 {
				var leaves []func()
				for range 40 {
					if leave, err := z.Enter(clientAt(i%5), zone); err == nil {
						leaves = append(leaves, leave)
					}
				}
				for _, leave := range leaves {
					leave()
				}
			}
		})
	}
	wg.Wait()
	if len(z.zones) != 0 || z.total != 0 {
		t.Errorf("%d places of %d zones are left, want none", z.total, len(z.zones))
	}
}
