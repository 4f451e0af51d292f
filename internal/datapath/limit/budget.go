package limit

import (
	"net/netip"
	"sync"
)

// Pressure is how short the memory of the whole process is, whatever the budget
// counts.
type Pressure uint8

const (
	Relaxed  Pressure = iota
	Tight             // only clients that hold little get more
	Critical          // no client gets more
)

// Budget bounds the bytes of memory that are held for clients, in all and for
// each client. What can be refused is taken before it is used (Take). What
// cannot be refused, because it is there already, is added (Add). The zero value
// has no bound, and counts.
type Budget struct {
	// Refused is called for each refusal, unless it is nil. It must not change
	// once the budget is in use.
	Refused func(Kind)

	mu       sync.Mutex   // guards the fields below
	whole    int64        // zero means no bound
	held     tally[int64] // bytes
	pressure Pressure
}

// little says which part of the budget a client may always hold, as long as
// there is any left: a thirty-second.
const little = 32

// Set replaces the size of the budget, in bytes. Zero means no bound. What is
// held stays, also if it exceeds the new size.
func (b *Budget) Set(whole int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.whole = whole
}

// Press sets how short the memory of the process is.
func (b *Budget) Press(p Pressure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pressure = p
}

// Take takes n bytes for client, which must be given back (Give). If there is
// not enough, or client would hold more than its share, Take takes nothing and
// returns a *flow.Error of class Overloaded. The held bytes never exceed the
// size because of Take, except by an eighth for clients that hold little: what
// others add must not keep these out before it is noticed.
func (b *Budget) Take(client netip.Addr, n int64) error {
	b.mu.Lock()
	kind := b.lacks(client, n)
	if kind == "" {
		b.held.add(client, n)
	}
	b.mu.Unlock()
	if kind == "" {
		return nil
	}
	b.Count(kind)
	return overLimit(kind)
}

// Count counts a refusal.
func (b *Budget) Count(k Kind) {
	if b.Refused != nil {
		b.Refused(k)
	}
}

// full returns the error that Take would return now, or nil. It takes nothing and
// does not count as a refusal.
func (b *Budget) full(client netip.Addr, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if kind := b.lacks(client, n); kind != "" {
		return overLimit(kind)
	}
	return nil
}

// lacks returns what keeps client from n more bytes, and "" if nothing does.
// b.mu is held.
func (b *Budget) lacks(client netip.Addr, n int64) Kind {
	if b.whole <= 0 {
		return ""
	}
	mine := b.held.clients[client] + n
	all := b.held.total + n
	switch {
	case all > b.whole+b.whole/8, b.pressure == Critical:
		return Memory
	case mine <= b.whole/little:
		return ""
	case all > b.whole:
		return Memory
	case mine > b.held.shareOf(b.whole, client), b.pressure == Tight:
		return MemoryShare
	}
	return ""
}

// Give gives back n bytes that Take or Add took for client.
func (b *Budget) Give(client netip.Addr, n int64) { b.Add(client, -n) }

// Add adds n bytes that are held for client already, even if they exceed the
// size. A negative n gives back.
func (b *Budget) Add(client netip.Addr, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held.add(client, n)
}

// Greedy reports whether what client gets next should be small: it holds more
// than a sixteenth of the budget, or all clients hold more than half.
func (b *Budget) Greedy(client netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whole > 0 && (b.held.clients[client] > b.whole/16 || b.held.total > b.whole/2)
}

// Held returns what client holds, in bytes.
func (b *Budget) Held(client netip.Addr) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held.clients[client]
}

// Use is how much of a budget is used.
type Use struct {
	Whole    int64 // bytes; zero means no bound
	Held     int64 // bytes, by all clients
	Pressure Pressure
}

// Use returns how much of the budget is used.
func (b *Budget) Use() Use {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Use{b.whole, b.held.total, b.pressure}
}

// Scarce reports that a client which holds as much as it can is refused more.
func (u Use) Scarce() bool { return u.Pressure > Relaxed || u.Whole > 0 && u.Held > u.Whole/2 }

// Short reports that a part of the last quarter is in use, which is for clients that
// hold little. What Add adds must not fill it up.
func (u Use) Short() bool { return u.Pressure > Relaxed || u.Whole > 0 && u.Held > u.Whole*3/4 }
