package auth

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/pandoproxy/pando/internal/flow"
)

// Bounds of guesses. A guess is a wrong pair that was not given before.
const (
	clientGuesses = 10               // of one client at once
	clientEvery   = 10 * time.Second // and then one in this time
	allGuesses    = 100              // of all clients at once
	allEvery      = time.Second / 10 // and then one in this time
	recent        = 2 * time.Minute  // how long a guess counts as one of late
	maxWait       = 5 * time.Second  // for the turn to be checked
	maxClients    = 8192             // that are remembered
)

// Guard verifies the passwords that clients give, and slows down guesses. A client
// that has made too many must wait. When all clients together have made too many,
// each that has made one of late must wait. A client without wrong passwords never
// waits for others.
//
// bcrypt is slow, so that guesses cost processor time. Few are computed at a time,
// and those for clients that guess do not take the place of others.
type Guard struct {
	users     atomic.Pointer[Users]
	clients   *lru.Cache[netip.Prefix, *client]
	all       *rate.Limiter
	clean     chan struct{} // a place for each check for a client without guesses
	guessing  chan struct{} // a place for each check for another client
	throttled func()
}

// client is what a Guard knows about an address.
type client struct {
	turn    chan struct{} // holds one place: the passwords of a client are verified one by one
	guesses *rate.Limiter // the guesses that are left
	last    time.Time     // of the last guess; only with the turn
}

// NewGuard returns a Guard for users. It calls throttled for each password that it
// refuses without a check.
func NewGuard(users *Users, throttled func()) *Guard {
	g := &Guard{
		all:       rate.NewLimiter(rate.Every(allEvery), allGuesses),
		clean:     make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		guessing:  make(chan struct{}, 1),
		throttled: throttled,
	}
	g.clients, _ = lru.New[netip.Prefix, *client](maxClients) // fails for a size below 1 only
	g.Set(users)
	return g
}

// Set replaces the users. What was remembered of the old ones is gone. The counts of
// guesses stay.
func (g *Guard) Set(users *Users) { g.users.Store(users) }

// Verify reports whether a user exists and has this password. It does not count
// guesses: it is not for clients.
func (g *Guard) Verify(name, password string) bool { return g.users.Load().Verify(name, password) }

// Check returns nil if the user exists and has this password. Otherwise it returns a
// *flow.Error, of class Unauthenticated for a wrong pair, and of class Overloaded if
// the client must wait. It takes a bounded time.
func (g *Guard) Check(addr netip.Addr, name, password string) error {
	c := g.client(addr)
	end := time.Now().Add(maxWait)
	if !enter(c.turn, end) {
		return g.refuse("wait until your other passwords are verified", 0)
	}
	defer leave(c.turn)
	if err := g.wait(c); err != nil {
		return err
	}
	users := g.users.Load()
	d := users.digest(name, password)
	right, known := users.recall(name, d)
	if !known {
		lane := g.clean
		if c.guessed() {
			lane = g.guessing
		}
		if !enter(lane, end) {
			return g.refuse("too many passwords are being verified", 0)
		}
		defer leave(lane)
		right, known = users.recall(name, d) // another client may have given it meanwhile
		if !known {
			right = users.check(name, password, d)
			if !right {
				g.count(c)
			}
		}
	}
	if !right {
		return &flow.Error{
			Class: flow.Unauthenticated,
			Op:    "auth",
			Hint:  "the user or the password is wrong",
			Err:   errors.New("wrong user or password"),
		}
	}
	return nil
}

// wait returns the error for a client that must wait because of guesses.
func (g *Guard) wait(c *client) error {
	if left := c.guesses.Tokens(); left < 1 {
		return g.refuse("too many wrong passwords from your address", until(left, clientEvery))
	}
	if left := g.all.Tokens(); left < 1 && c.guessed() {
		return g.refuse("too many wrong passwords from all clients, and one from your address", clientEvery)
	}
	return nil
}

// until returns how long it takes until a whole token is there.
func until(left float64, every time.Duration) time.Duration {
	return time.Duration((1 - left) * float64(every))
}

func (g *Guard) refuse(why string, wait time.Duration) error {
	g.throttled()
	seconds := max(1, int(math.Ceil(wait.Seconds())))
	return &flow.Error{
		Class: flow.Overloaded,
		Op:    "auth",
		Hint:  fmt.Sprintf("%s: try again in %d s", why, seconds),
		Err:   errors.New(why),
	}
}

// client returns what is known about the client at addr. The addresses of an IPv6
// network are one client, because a host has all of them.
func (g *Guard) client(addr netip.Addr) *client {
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	network, _ := addr.Prefix(bits)
	if c, ok := g.clients.Get(network); ok {
		return c
	}
	fresh := &client{turn: make(chan struct{}, 1), guesses: rate.NewLimiter(rate.Every(clientEvery), clientGuesses)}
	if c, ok, _ := g.clients.PeekOrAdd(network, fresh); ok {
		return c
	}
	return fresh
}

// count counts a guess of c.
func (g *Guard) count(c *client) {
	c.last = time.Now()
	c.guesses.Allow()
	g.all.Allow()
}

// guessed reports whether the client has made a guess of late.
func (c *client) guessed() bool { return !c.last.IsZero() && time.Since(c.last) < recent }

// enter takes a place, unless end comes first.
func enter(places chan struct{}, end time.Time) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
	}
	select {
	case places <- struct{}{}:
		return true
	case <-time.After(time.Until(end)):
		return false
	}
}

func leave(places chan struct{}) { <-places }
