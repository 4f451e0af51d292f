// Package limit says when it is enough. It counts the connections of clients,
// in all and by address, from the accept to the end of the tunnel, and the
// dials in progress. What is over a limit is refused at once, for a client that
// waits in a queue without end learns nothing.
package limit

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/pandoproxy/pando/internal/flow"
)

// Limits are upper bounds; zero means that there is none.
type Limits struct {
	Connections int // of all clients
	PerClient   int // of one client address
	Dials       int // in progress
}

// Which names a limit, as metrics spell it.
type Which string

const (
	Connections Which = "connections"
	PerClient   Which = "per_client"
	Dials       Which = "dials"
	Queries     Which = "dns_queries" // of the cluster's DNS that wait for an answer; package dnsserver counts those
	FirstByte   Which = "first_byte"  // a client that said nothing in time; package mux counts those
)

// All lists every limit.
func All() []Which { return []Which{Connections, PerClient, Dials, Queries, FirstByte} }

// Gate counts and refuses. The zero value lets everything pass.
type Gate struct {
	// Refused, when set, is told of each refusal. It must not change once the
	// gate is in use.
	Refused func(Which)

	limits atomic.Pointer[Limits]
	dials  atomic.Int64

	mu      sync.Mutex
	total   int
	clients map[netip.Addr]int
}

// Set replaces the limits. Whoever is inside stays.
func (g *Gate) Set(l Limits) { g.limits.Store(&l) }

// Limits returns those that apply.
func (g *Gate) Limits() Limits {
	if l := g.limits.Load(); l != nil {
		return *l
	}
	return Limits{}
}

// Enter lets a connection of client in, which then owes a Leave, or returns a
// *flow.Error of class Overloaded.
func (g *Gate) Enter(client netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if which, err := g.full(client); err != nil {
		g.refused(which)
		return err
	}
	g.add(client, 1)
	return nil
}

// Full returns nil if Enter would let a connection of client in and Dial a dial,
// and else what they would say. It counts as no refusal.
func (g *Gate) Full(client netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.full(client); err != nil {
		return err
	}
	if over(g.Dials(), g.Limits().Dials) {
		return overDials
	}
	return nil
}

// full says which limit keeps a connection of client out. g.mu is held.
func (g *Gate) full(client netip.Addr) (Which, error) {
	switch l := g.Limits(); {
	case over(g.total, l.Connections):
		return Connections, overLimit(Connections, "the gateway has as many client connections as it takes (limits.connections); try again, or run more replicas")
	case over(g.clients[client], l.PerClient):
		return PerClient, overLimit(PerClient, "this client has as many connections as one may (limits.perClient); reuse connections, or close those that are idle")
	}
	return "", nil
}

// Leave ends what Enter began.
func (g *Gate) Leave(client netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.add(client, -1)
}

func (g *Gate) add(client netip.Addr, n int) {
	if g.clients == nil {
		g.clients = map[netip.Addr]int{}
	}
	g.total += n
	if g.clients[client] += n; g.clients[client] == 0 {
		delete(g.clients, client)
	}
}

// Connections returns how many are inside, and of how many clients.
func (g *Gate) Connections() (connections, clients int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total, len(g.clients)
}

// Dial lets a dial begin, which then owes a Dialed, or returns a *flow.Error
// of class Overloaded.
func (g *Gate) Dial() error {
	if n := g.dials.Add(1); over(int(n-1), g.Limits().Dials) {
		g.dials.Add(-1)
		g.refused(Dials)
		return overDials
	}
	return nil
}

// Dialed ends what Dial began.
func (g *Gate) Dialed() { g.dials.Add(-1) }

// Dials returns how many are in progress.
func (g *Gate) Dials() int { return int(g.dials.Load()) }

func over(n, limit int) bool { return limit > 0 && n >= limit }

func (g *Gate) refused(w Which) {
	if g.Refused != nil {
		g.Refused(w)
	}
}

var overDials = overLimit(Dials, "as many connections as may are being opened (limits.dials): do the targets answer?")

func overLimit(w Which, hint string) error {
	return &flow.Error{Class: flow.Overloaded, Op: "limit", Hint: hint, Err: errors.New("limit of " + string(w) + " reached")}
}
