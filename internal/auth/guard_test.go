package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

var errWrong = errors.New("wrong")

// guard returns a Guard for the users of a file. Its hashes take a second of the
// bubble's time, and the password right is right for each of them.
func guard(t *testing.T, file string) (g *Guard, computed, throttled *atomic.Int64) {
	t.Helper()
	u, err := Read(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	computed = &atomic.Int64{}
	throttled = &atomic.Int64{}
	u.compare = func(_, password []byte) error {
		computed.Add(1)
		time.Sleep(time.Second) // of synctest's clock
		if string(password) == "right" {
			return nil
		}
		return errWrong
	}
	return NewGuard(u, func() { throttled.Add(1) }), computed, throttled
}

// check gives a pair, and fails the test unless the outcome has the class.
func check(t *testing.T, g *Guard, addr, user, password string, want flow.Class) {
	t.Helper()
	err := g.Check(netip.MustParseAddr(addr), user, password)
	if got := flow.ClassOf(err); got != want {
		t.Errorf("Check(%s, %s, %s) = %v, want the class %v", addr, user, password, err, want)
	}
}

// TestGuesses checks that a client can make a bounded number of guesses, that another
// client is not affected, and that time makes up for guesses.
func TestGuesses(t *testing.T) {
	for name, file := range map[string]string{"plain": "ann:right\n", "bcrypt": "ann:" + hashed + "\n"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { guesses(t, file) })
		})
	}
}

func guesses(t *testing.T, file string) {
	const (
		eve = "192.0.2.1"
		ann = "192.0.2.2"
	)
	g, _, throttled := guard(t, file)
	for i := range clientGuesses + 3 { // computing takes up to a second, so up to one more is free by then
		g.Check(netip.MustParseAddr(eve), "ann", fmt.Sprint("guess", i))
	}
	check(t, g, eve, "ann", "guess", flow.Overloaded)
	check(t, g, eve, "ann", "right", flow.Overloaded) // else the throttle would not slow guesses
	check(t, g, "::ffff:"+eve, "ann", "right", flow.Overloaded)
	err := g.Check(netip.MustParseAddr(eve), "ann", "right")
	if hint := flow.HintOf(err); !strings.Contains(hint, "too many wrong passwords from your address: try again in ") {
		t.Errorf("hint = %q, want one that says what to do", hint)
	}
	if throttled.Load() < 4 {
		t.Errorf("throttled = %d, want every refusal counted", throttled.Load())
	}
	check(t, g, ann, "ann", "right", flow.OK)
	begin := time.Now()
	for range 100 {
		check(t, g, ann, "ann", "right", flow.OK)
	}
	if waited := time.Since(begin); waited > 0 {
		t.Errorf("a client with the right password waited %v, want 0s", waited)
	}
	time.Sleep(clientEvery) // of synctest's clock
	check(t, g, eve, "ann", "right", flow.OK)
}

// TestSameMistake checks that a client that repeats the same wrong password uses up
// nothing: it learns nothing from it.
func TestSameMistake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, computed, _ := guard(t, "ann:"+hashed+"\n")
		for range 10 * clientGuesses {
			check(t, g, "192.0.2.1", "ann", "old", flow.Unauthenticated)
		}
		if n := computed.Load(); n != 1 {
			t.Errorf("computed hashes = %d, want 1", n)
		}
		check(t, g, "192.0.2.1", "ann", "right", flow.OK)
	})
}

// TestManyAddresses checks that guesses from many addresses are bounded, and that a
// client without a wrong password is not affected, also when it comes first then.
func TestManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _, _ := guard(t, "ann:right\n")
		guess := 0
		wrong := func(addr string) error {
			guess++
			return g.Check(netip.MustParseAddr(addr), "ann", fmt.Sprint("guess", guess))
		}
		made := 0
		for i := range 50 {
			for range clientGuesses {
				if flow.ClassOf(wrong(fmt.Sprintf("10.0.0.%d", i))) == flow.Unauthenticated {
					made++
				}
			}
		}
		if made > allGuesses+50 { // an address can always make one
			t.Errorf("guesses from 50 addresses = %d, want %d at most", made, allGuesses+50)
		}
		err := wrong("10.0.0.49")
		if hint := flow.HintOf(err); flow.ClassOf(err) != flow.Overloaded || !strings.Contains(hint, "from all clients") {
			t.Errorf("Check = %v, hint %q; want overloaded because of all clients", err, hint)
		}
		check(t, g, "10.0.1.1", "ann", "right", flow.OK)
		time.Sleep(10 * allEvery)
		check(t, g, "10.0.0.49", "ann", "right", flow.OK)
	})
}

// TestIPv6Network checks that the addresses of one IPv6 network are one client.
func TestIPv6Network(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _, _ := guard(t, "ann:right\n")
		for i := range clientGuesses {
			check(t, g, fmt.Sprintf("2001:db8::%x", i+1), "ann", fmt.Sprint("guess", i), flow.Unauthenticated)
		}
		check(t, g, "2001:db8::ffff", "ann", "right", flow.Overloaded)
		check(t, g, "2001:db8:0:1::1", "ann", "right", flow.OK)
	})
}

// TestFewComputations checks that guesses from many addresses compute one hash at a
// time, that no client waits for long, and that a client without a wrong password does
// not wait behind them.
func TestFewComputations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _, _ := guard(t, "ann:"+hashed+"\nbob:"+hashed+"\n")
		users := g.users.Load()
		var running, most atomic.Int64
		compare := users.compare
		users.compare = func(hash, password []byte) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			return compare(hash, password)
		}
		for i := range 30 { // now each of them has guessed
			g.Check(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), "ann", fmt.Sprint("first", i))
		}
		most.Store(0)
		begin := time.Now()
		var all sync.WaitGroup
		for i := range 30 {
			all.Go(func() {
				g.Check(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), "ann", fmt.Sprint("second", i))
			})
		}
		synctest.Wait()
		if n := most.Load(); n != 1 {
			t.Errorf("hashes for clients that guess at a time = %d, want 1", n)
		}
		check(t, g, "10.0.1.1", "bob", "right", flow.OK)
		if waited := time.Since(begin); waited > time.Second {
			t.Errorf("a client without a wrong password waited %v, want the second that its hash takes", waited)
		}
		all.Wait()
		if waited := time.Since(begin); waited > maxWait+2*time.Second {
			t.Errorf("the last client waited %v, want about %v", waited, maxWait)
		}
	})
}

// TestOnePairAtOnce checks that many connections with the same pair compute one hash.
func TestOnePairAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, computed, _ := guard(t, "ann:"+hashed+"\n")
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { check(t, g, "192.0.2.1", "ann", "right", flow.OK) })
		}
		all.Wait()
		if n := computed.Load(); n != 1 {
			t.Errorf("computed hashes = %d, want 1", n)
		}
	})
}

// TestSet checks that new users take the place of what was remembered of the old.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _, _ := guard(t, "ann:"+hashed+"\n")
		check(t, g, "192.0.2.1", "ann", "right", flow.OK)
		check(t, g, "192.0.2.1", "bob", "b", flow.Unauthenticated)
		users, err := Read(strings.NewReader("bob:b\n"))
		if err != nil {
			t.Fatal(err)
		}
		g.Set(users)
		check(t, g, "192.0.2.1", "ann", "right", flow.Unauthenticated)
		check(t, g, "192.0.2.1", "bob", "b", flow.OK)
	})
}

// TestFewClients checks that what is remembered of clients has a bound.
func TestFewClients(t *testing.T) {
	g, _, _ := guard(t, "ann:right\n")
	for i := range maxClients + 10 {
		check(t, g, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String(), "ann", "right", flow.OK)
	}
	if n := g.clients.Len(); n != maxClients {
		t.Errorf("remembered clients = %d, want %d", n, maxClients)
	}
}
