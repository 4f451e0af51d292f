package limit

import (
	"net/netip"
	"sync"
)

// ByZone bounds what is in progress for the names of zones. A zone gets a share of
// the whole, so that one whose resolvers are slow leaves room for the others.
// Within a zone each client gets a share of what the zone may have.
type ByZone struct {
	whole  Kind // what a refusal is counted as
	shared Kind // the same, if a share is the reason
	all    int  // of all zones
	each   int  // of one zone
	refuse func(Kind)
	memory *Budget // nil, or takes cost bytes for each
	cost   int64

	mu    sync.Mutex // guards the fields below
	total int
	zones map[string]*tally[int] // without those that have none
}

// lookupCost is the memory that a lookup costs while it waits, in bytes: its
// goroutines, its sockets and a large reply.
const lookupCost = 64 << 10

// NewLookups returns the bounds of lookups in progress. A zone is the source that
// is asked. refused is called for each refusal, and may be nil; memory is where a
// lookup is held, and may be nil.
func NewLookups(refused func(Kind), memory *Budget) *ByZone {
	return &ByZone{
		whole:  Lookups,
		shared: LookupShare,
		all:    1024,
		each:   256,
		refuse: refused,
		memory: memory,
		cost:   lookupCost,
	}
}

// NewQueries returns the bounds of queries of cluster DNS that wait for a lookup.
// refused is called for each refusal, and may be nil.
func NewQueries(refused func(Kind)) *ByZone {
	return &ByZone{
		whole:  Queries,
		shared: QueryShare,
		all:    1024,
		each:   512,
		refuse: refused,
	}
}

// Enter counts one more of client in zone. leave ends it and must be called once. The
// zero address is the replica itself, which needs no memory: it must find its own
// addresses when memory is short, too. If a bound is reached, or the client's memory,
// Enter counts nothing and returns a *flow.Error of class Overloaded.
func (z *ByZone) Enter(client netip.Addr, zone string) (leave func(), err error) {
	if kind := z.enter(client, zone); kind != "" {
		if z.refuse != nil {
			z.refuse(kind)
		}
		return nil, overLimit(kind)
	}
	if z.memory == nil || !client.IsValid() {
		return func() { z.leave(client, zone) }, nil
	}
	if err := z.memory.Take(client, z.cost); err != nil {
		z.leave(client, zone)
		return nil, err
	}
	return func() {
		z.leave(client, zone)
		z.memory.Give(client, z.cost)
	}, nil
}

// enter counts one more of client in zone, or returns the bound that keeps it out.
func (z *ByZone) enter(client netip.Addr, zone string) Kind {
	z.mu.Lock()
	defer z.mu.Unlock()
	within := z.zones[zone]
	if within == nil {
		within = &tally[int]{}
	}
	others := len(z.zones) > 1 || len(z.zones) == 1 && within.total == 0
	ofZone := int(share(int64(z.all), int64(z.total), others))
	switch {
	case reached(z.total, z.all), reached(within.total, z.each), within.total >= ofZone:
		return z.whole
	case within.hasShare(z.each, client):
		return z.shared
	}
	if z.zones == nil {
		z.zones = map[string]*tally[int]{}
	}
	z.zones[zone] = within
	z.total++
	within.add(client, 1)
	return ""
}

// leave ends one of client in zone.
func (z *ByZone) leave(client netip.Addr, zone string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.total--
	within := z.zones[zone]
	within.add(client, -1)
	if within.total == 0 {
		delete(z.zones, zone)
	}
}
