// Package account counts what a client's connection holds for its requests, and
// knows when one makes no progress. It does not decide who may hold how much.
package account

import (
	"net/netip"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

const (
	// headShare is how many bytes of memory a byte of a head costs: the parser's
	// buffers grow by doubling, and the fields are copied out of them. The names of the
	// fields are held once more, as they came.
	headShare = 3
	// exchangeCost is what a request costs while it is with its origin, in bytes,
	// besides the buffers of both sockets: buffers of the body, those of the
	// origin's connection, and two goroutines.
	exchangeCost = 40 << 10
	// tlsCost is what TLS with the origin costs more: records in both directions, and
	// the handshake.
	tlsCost = 48 << 10
	// stalledBytes is from how many bytes on an exchange over which nothing moves
	// is taken for stalled.
	stalledBytes = 16 << 10
)

// Account is what one connection of a client holds. Its methods may be called
// concurrently.
type Account struct {
	Memory flow.Memory // nil means that nothing costs anything
	Client netip.Addr

	mu       sync.Mutex // guards the fields below
	taken    int64      // for the request in progress
	measured int64      // in the buffers of both sockets
	head     time.Time  // since when the head is read; zero otherwise
	progress uint64     // of the client's connection, as Measure last saw it
	since    time.Time  // when Measure first saw that
	evicted  bool
}

// Head takes what n bytes of a head cost, until Release.
func (a *Account) Head(n int) error { return a.take(headShare * int64(n)) }

// Exchange takes what a request costs while it is with its origin, until Release. With
// TLS it costs more.
func (a *Account) Exchange(tls bool) error {
	if tls {
		return a.take(exchangeCost + tlsCost)
	}
	return a.take(exchangeCost)
}

func (a *Account) take(n int64) error {
	if a.Memory == nil {
		return nil
	}
	if err := a.Memory.Take(a.Client, n); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken += n
	return nil
}

// BeginHead says that a head is being read, until EndHead.
func (a *Account) BeginHead() { a.setHead(time.Now()) }

// EndHead says that the head is over.
func (a *Account) EndHead() { a.setHead(time.Time{}) }

func (a *Account) setHead(since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.head = since
}

// Release gives everything back: the request has ended.
func (a *Account) Release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if held := a.taken + a.measured; held != 0 {
		a.Memory.Add(a.Client, -held)
	}
	a.taken = 0
	a.measured = 0
	a.since = time.Time{}
	a.evicted = false
}

// Measure records that held bytes wait in the buffers of both sockets now, and
// how far the client's connection is: progress changes when bytes move. Measure
// reports whether the request makes no progress: its head is not whole yet, or
// nothing moves although data waits. A request that has ended, or holds nothing,
// does not count.
func (a *Account) Measure(now time.Time, held int64, progress uint64) (h flow.Holder, stalled bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.taken == 0 {
		return h, false
	}
	a.Memory.Add(a.Client, held-a.measured)
	a.measured = held
	moves := a.progress != progress || a.since.IsZero()
	if moves {
		a.progress = progress
		a.since = now
	}
	h = flow.Holder{Owner: a.Client, Bytes: a.taken + held, Since: a.since}
	if !a.head.IsZero() {
		h.Since = a.head
		return h, true
	}
	return h, !moves && held >= stalledBytes
}

// Evict says that the request ends because its memory is needed. It reports whether a
// head is being read.
func (a *Account) Evict() (inHead bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.evicted = true
	return !a.head.IsZero()
}

// Evicted returns the error of a request whose memory was needed, and nil for
// other requests.
func (a *Account) Evicted() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.evicted {
		return nil
	}
	return &flow.Error{
		Class: flow.Overloaded,
		Op:    "memory",
		Hint:  "the replica was short of memory, and this request held some without making progress: send it whole, or try again",
	}
}
