package limit

import (
	"maps"
	"math"
	"net/netip"
	"sync"
	"time"
)

// rates is a token bucket for each client. A bucket holds the tokens of one second.
// The zero value is ready: all buckets are full.
type rates struct {
	mu      sync.Mutex
	full    map[netip.Addr]time.Time // when a client's bucket is full again; without those that are full
	sweepAt int                      // size of full from which on buckets that are full are deleted
}

// longestWait is how long a connection may wait for its rate.
const longestWait = time.Second

// Pace takes a new connection from client's rate of them, and returns how long it must
// wait. If that is longer than a second, Pace takes nothing and returns a *flow.Error of
// class Overloaded.
func (g *Gate) Pace(client netip.Addr) (wait time.Duration, err error) {
	perSecond := g.Limits().Rate
	if perSecond <= 0 {
		return 0, nil
	}
	wait, ok := g.opened.take(client, 1, perSecond, longestWait, time.Now())
	if !ok {
		g.countRefusal(Rate)
		return 0, overLimit(Rate)
	}
	return wait, nil
}

// answers is how many refused connections of a client get an answer in a second. The
// others are reset: an answer costs as much as a small request, and a client that is
// refused can try again at once, thousands of times a second.
const answers = 20

// Answer reports whether a connection of client that was refused gets an answer.
func (g *Gate) Answer(client netip.Addr) bool {
	_, ok := g.told.take(client, 1, answers, 0, time.Now())
	return ok
}

// PaceBytes returns nil if the rate of bytes is off. Otherwise it returns a function
// for a new tunnel or request of client: it takes n bytes of one direction from client's
// rate, which all its tunnels and requests share, and returns how long they must wait.
func (g *Gate) PaceBytes(client netip.Addr) func(up bool, n int) (wait time.Duration) {
	if g.Limits().Bytes <= 0 {
		return nil
	}
	return func(up bool, n int) time.Duration {
		perSecond := g.Limits().Bytes
		if perSecond <= 0 {
			return 0 // switched off since then
		}
		r := &g.down
		if up {
			r = &g.up
		}
		wait, _ := r.take(client, n, perSecond, math.MaxInt64, time.Now())
		return wait
	}
}

const (
	bucket     = time.Second // what a bucket holds, as the time in which it fills up
	leastSweep = 64          // clients from which on a sweep is worth its time
)

// reset fills all buckets.
func (r *rates) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full = nil
}

// take takes n tokens from client's bucket, which gets perSecond tokens a second, and
// returns how long the client must wait for them. If that is longer than most, it
// takes nothing and reports false.
func (r *rates) take(client netip.Addr, n, perSecond int, most time.Duration, now time.Time) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	full := r.full[client]
	if full.Before(now) {
		full = now
	}
	full = full.Add(time.Duration(float64(n) / float64(perSecond) * float64(time.Second)))
	wait = max(full.Sub(now)-bucket, 0)
	if wait > most {
		return wait, false
	}
	if r.full == nil {
		r.full = map[netip.Addr]time.Time{}
	}
	r.full[client] = full
	if len(r.full) > r.sweepAt {
		maps.DeleteFunc(r.full, func(_ netip.Addr, full time.Time) bool { return !full.After(now) })
		r.sweepAt = max(2*len(r.full), leastSweep)
	}
	return wait, true
}
