package limit

import (
	"math"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// TestPace checks that connections above the rate wait, that those which would wait
// long are refused, and that the rate of one client is not that of another.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		refused := refusals(&g)
		if wait, err := g.Pace(alice); wait != 0 || err != nil {
			t.Errorf("Pace without a rate = %v, %v, want 0, nil", wait, err)
		}
		g.Set(Limits{Rate: 10})
		for i := range 20 { // ten at once, and ten that wait
			want := max(time.Duration(i-9)*100*time.Millisecond, 0)
			if wait, err := g.Pace(alice); wait != want || err != nil {
				t.Errorf("connection %d: Pace = %v, %v, want %v, nil", i+1, wait, err, want)
			}
		}
		if _, err := g.Pace(alice); flow.ClassOf(err) != flow.Overloaded || refused[Rate] != 1 {
			t.Errorf("connection 21: Pace = %v with refusals %v, want class overloaded", err, refused)
		}
		if wait, err := g.Pace(bob); wait != 0 || err != nil {
			t.Errorf("Pace of another client = %v, %v, want 0, nil", wait, err)
		}
		time.Sleep(100 * time.Millisecond)
		if wait, err := g.Pace(alice); wait != time.Second || err != nil {
			t.Errorf("Pace a tenth of a second later = %v, %v, want 1s, nil", wait, err)
		}
		g.Set(Limits{Rate: 1000})
		if wait, err := g.Pace(alice); wait != 0 || err != nil {
			t.Errorf("Pace with a higher rate = %v, %v, want 0, nil", wait, err)
		}
	})
}

// TestPaceBytes checks the rate of bytes, in each direction, and its changes.
func TestPaceBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		if g.PaceBytes(alice) != nil {
			t.Error("PaceBytes without a rate is not nil")
		}
		g.Set(Limits{Bytes: 1000})
		one := g.PaceBytes(alice)
		two := g.PaceBytes(alice) // of the same client
		for i, want := range []time.Duration{0, 0, 500 * time.Millisecond, time.Second} {
			take := one
			if i%2 == 1 {
				take = two
			}
			if wait := take(true, 500); wait != want {
				t.Errorf("take %d waits for %v, want %v", i+1, wait, want)
			}
		}
		if wait := one(false, 1000); wait != 0 {
			t.Errorf("the other direction waits for %v, want 0", wait)
		}
		if wait := g.PaceBytes(bob)(true, 1000); wait != 0 {
			t.Errorf("another client waits for %v, want 0", wait)
		}
		g.Set(Limits{})
		if wait := one(true, 1<<20); wait != 0 {
			t.Errorf("after the rate was switched off: %v, want 0", wait)
		}
	})
}

// FuzzRates checks that no client ever gets more than its rate, and that full buckets
// are deleted.
func FuzzRates(f *testing.F) {
	f.Add([]byte{0, 10, 0, 0, 200, 1, 1, 3, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		const perSecond = 100
		var r rates
		start := time.Unix(1, 0)
		now := start
		given := map[netip.Addr]float64{} // tokens, each at the time at which it may be used
		for len(ops) >= 3 {
			client := clientAt(int(ops[0]))
			n := int(ops[1])
			now = now.Add(time.Duration(ops[2]) * 10 * time.Millisecond)
			ops = ops[3:]
			wait, ok := r.take(client, n, perSecond, time.Second, now)
			if !ok {
				continue
			}
			given[client] += float64(n)
			// A bucket that is full at the start, and what has come since then.
			most := perSecond * (1 + now.Add(wait).Sub(start).Seconds())
			if given[client] > most+0.001 {
				t.Fatalf("a client gets %v tokens, want at most %v", given[client], most)
			}
		}
		now = now.Add(time.Hour)
		r.sweepAt = 0
		r.take(clientAt(1), 0, 1, math.MaxInt64, now)
		if len(r.full) != 0 {
			t.Fatalf("%d buckets are left, want none", len(r.full))
		}
	})
}

// TestRatesAreSwept checks that the buckets of many clients do not stay.
func TestRatesAreSwept(t *testing.T) {
	var r rates
	now := time.Unix(1, 0)
	for i := range 10000 {
		now = now.Add(10 * time.Millisecond)
		r.take(clientAt(i), 1, 10, time.Second, now)
		if len(r.full) > leastSweep+1 {
			t.Fatalf("%d buckets of clients that are away, want %d at most", len(r.full), leastSweep+1)
		}
	}
}

// TestAnswer checks that a client that is refused again and again gets few answers, that
// another one gets its own, and that there are more after a while.
func TestAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		count := func(client netip.Addr, tries int) (n int) {
			for range tries {
				if g.Answer(client) {
					n++
				}
			}
			return n
		}
		if n := count(alice, 1000); n != answers {
			t.Errorf("1000 refusals at once have %d answers, want %d", n, answers)
		}
		if n := count(bob, 10); n != 10 {
			t.Errorf("10 refusals of another client have %d answers, want all", n)
		}
		time.Sleep(time.Second / 2) // of the bubble's clock
		if n := count(alice, 1000); n != answers/2 {
			t.Errorf("half a second later there are %d answers, want %d", n, answers/2)
		}
	})
}
