// Package limit bounds the connections, the dials in progress and the memory of
// clients, in total and for each client address. A connection counts from its accept
// to the end of its tunnel. What exceeds a limit is refused at once and not queued: a
// client that waits in a queue does not learn why it waits. A rate says how long a
// connection or bytes must wait; package mux and package relay wait.
package limit

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/pandoproxy/pando/internal/flow"
)

// Limits are upper bounds. Zero means no bound.
type Limits struct {
	Connections int // of all clients
	PerClient   int // of one client address
	Dials       int // in progress at a time
	Rate        int // new connections of one client address a second
	Bytes       int // of the tunnels of one client address, a second and in each direction
}

// Kind names a limit, as metrics spell it.
type Kind string

const (
	Connections Kind = "connections"
	PerClient   Kind = "per_client"
	Dials       Kind = "dials"
	DialShare   Kind = "dials_share"       // dials of a client that has its share of them
	Target      Kind = "target"            // dials to one target that does not answer; package dial counts them
	Lookups     Kind = "lookups"           // lookups of names in progress
	LookupShare Kind = "lookups_share"     // lookups of a client that has its share of them
	Queries     Kind = "dns_queries"       // queries of cluster DNS that wait for a lookup
	QueryShare  Kind = "dns_queries_share" // those of a client that has its share of them
	FirstByte   Kind = "first_byte"        // clients that send no byte in time; package mux counts them
	Headers     Kind = "proxy_headers"     // connections whose PROXY header is awaited
	HeaderShare Kind = "proxy_headers_share"
	Share       Kind = "share" // connections of a client that has its share of them
	Rate        Kind = "rate"  // connections of a client that opens too many a second
	Memory      Kind = "memory"
	MemoryShare Kind = "memory_share" // memory for a client that holds its share of it
	Stalled     Kind = "stalled"      // connections without progress that were ended for their memory
	Guesses     Kind = "guesses"      // passwords of clients that guess; package auth counts them
)

// All lists every kind of limit.
func All() []Kind {
	return []Kind{Connections, PerClient, Dials, DialShare, Target, Lookups, LookupShare, Queries, QueryShare, FirstByte, Headers, HeaderShare, Share, Rate, Memory, MemoryShare, Stalled, Guesses}
}

// Gate counts connections and dials and refuses those over a limit. The zero
// value has no limits.
type Gate struct {
	// Refused is called for each refusal, unless it is nil. It must not change once
	// the gate is in use.
	Refused func(Kind)
	// Memory is what connections are held in. Nil means that they cost none.
	Memory *Budget

	limits atomic.Pointer[Limits]

	opened rates // connections
	up     rates // bytes to targets
	down   rates // bytes to clients
	told   rates // refusals that were answered

	mu      sync.Mutex // guards the fields below
	conns   tally[int]
	dials   tally[int] // in progress
	unnamed tally[int] // connections of senders, whose clients are not known yet
}

// Set replaces the limits. Connections and dials that exist stay, also if they
// exceed the new limits. What waits for a rate has its time already.
func (g *Gate) Set(l Limits) {
	old := g.limits.Swap(&l)
	if old == nil {
		return
	}
	if l.Rate != old.Rate {
		g.opened.reset()
	}
	if l.Bytes != old.Bytes {
		g.up.reset()
		g.down.reset()
	}
}

// Limits returns the limits in force.
func (g *Gate) Limits() Limits {
	if l := g.limits.Load(); l != nil {
		return *l
	}
	return Limits{}
}

// Enter counts a connection of client, which must end with Leave. If a limit is
// reached, it counts nothing and returns a *flow.Error of class Overloaded.
func (g *Gate) Enter(client netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if kind, full := g.fullFor(client); full {
		g.countRefusal(kind)
		return overLimit(kind)
	}
	if g.Memory != nil {
		if err := g.Memory.Take(client, connectionCost); err != nil {
			return err
		}
	}
	g.conns.add(client, 1)
	return nil
}

// connectionCost is the memory that a client's connection costs at least, in
// bytes: its goroutine, its buffers and its socket.
const connectionCost = 16 << 10

// Full returns the error that Enter for client or Dial would return now, or nil.
// It does not count as a refusal.
func (g *Gate) Full(client netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if kind, full := g.fullFor(client); full {
		return overLimit(kind)
	}
	if kind, full := g.dialsFullFor(client); full {
		return overLimit(kind)
	}
	if g.Memory != nil {
		return g.Memory.full(client, connectionCost)
	}
	return nil
}

// fullFor reports whether a limit keeps a connection of client out, and which.
// g.mu is held.
func (g *Gate) fullFor(client netip.Addr) (kind Kind, full bool) {
	limits := g.Limits()
	switch {
	case reached(g.conns.total, limits.Connections):
		return Connections, true
	case reached(g.conns.clients[client], limits.PerClient):
		return PerClient, true
	case g.conns.hasShare(limits.Connections, client):
		return Share, true
	}
	return "", false
}

// dialsFullFor reports whether a limit keeps a dial for client from starting, and
// which. g.mu is held.
func (g *Gate) dialsFullFor(client netip.Addr) (kind Kind, full bool) {
	most := g.Limits().Dials
	switch {
	case reached(g.dials.total, most):
		return Dials, true
	case g.dials.hasShare(most, client):
		return DialShare, true
	}
	return "", false
}

// Leave ends a connection that Enter counted.
func (g *Gate) Leave(client netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns.add(client, -1)
	if g.Memory != nil {
		g.Memory.Give(client, connectionCost)
	}
}

// Connections returns the number of connections, and of client addresses that
// have one.
func (g *Gate) Connections() (connections, clients int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conns.total, len(g.conns.clients)
}

// Dial counts a dial for client, which must end with Dialed. If a limit is reached,
// it counts nothing and returns a *flow.Error of class Overloaded.
func (g *Gate) Dial(client netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if kind, full := g.dialsFullFor(client); full {
		g.countRefusal(kind)
		return overLimit(kind)
	}
	g.dials.add(client, 1)
	return nil
}

// Dialed ends a dial that Dial counted.
func (g *Gate) Dialed(client netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dials.add(client, -1)
}

// Dials returns the number of dials in progress.
func (g *Gate) Dials() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dials.total
}

func reached(n, limit int) bool { return limit > 0 && n >= limit }

func (g *Gate) countRefusal(k Kind) {
	if g.Refused != nil {
		g.Refused(k)
	}
}

// hints say which setting helps.
var hints = map[Kind]string{
	Connections: "the replica has as many client connections as limits.connections allows: try again, or run more replicas",
	PerClient:   "this client has as many connections as limits.perClient allows: reuse connections, or close idle ones",
	Share:       "this client has its share of limits.connections: reuse connections, close idle ones, or run more replicas",
	Rate:        "this client opens more connections a second than limits.rate.connections allows: reuse connections, or try again in a moment",
	Memory:      "the replica has no memory left for more: try again, run more replicas, or raise their memory limit",
	MemoryShare: "this client holds its share of the replica's memory: reuse connections, read what they carry, or run more replicas",
	Lookups:     "as many names of this zone are being looked up as the replica allows: check whether the zone's resolvers answer",
	LookupShare: "this client has its share of the lookups in progress for this zone: try again, and check whether the zone's resolvers answer",
	Queries:     "as many queries for this zone wait for a lookup as the replica allows: check whether the zone's resolvers answer",
	QueryShare:  "this client has its share of the queries that wait for a lookup: try again, and check whether the zone's resolvers answer",
	Dials:       "as many connections to targets are being opened as limits.dials allows: check whether the targets answer",
	Headers:     "as many connections wait for their PROXY header as the replica allows: check whether the load balancers send it at once",
	HeaderShare: "this sender has its share of the connections that wait for their PROXY header: check whether it sends the header at once",
	DialShare:   "this client has its share of limits.dials: check whether its targets answer, or run more replicas",
}

// overLimit returns a new error each time, because others add to the hints of
// errors.
func overLimit(k Kind) error {
	return &flow.Error{
		Class: flow.Overloaded,
		Op:    "limit",
		Hint:  hints[k],
		Err:   errors.New("limit of " + string(k) + " reached"),
	}
}
