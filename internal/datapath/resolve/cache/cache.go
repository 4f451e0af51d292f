// Package cache keeps outcomes of lookups by name, within a bound of bytes. Each
// outcome belongs to the client whose lookup it was. What must go is the least
// recently used outcome of the client that holds most: a client that asks for
// random names loses its own outcomes, and takes from others only what they hold
// beyond their fair part. The package does not know lifetimes.
package cache

import (
	"container/heap"
	"math"
	"net/netip"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Cache keeps values of type V. Its methods may be called at the same time.
type Cache[V any] struct {
	most int

	mu      sync.Mutex // guards the fields below
	held    int
	names   map[string]*client[V]
	clients map[netip.Addr]*client[V]
	order   byHeld[V] // all clients, that with most first
}

// client is what the lookups of one client gave.
type client[V any] struct {
	addr  netip.Addr
	kept  *simplelru.LRU[string, weighed[V]]
	held  int
	index int // in Cache.order
}

type weighed[V any] struct {
	value V
	bytes int
}

// What the cache itself takes, in bytes, rounded up.
const (
	nameCost   = 256  // for each name: its part of two maps and a list
	clientCost = 1024 // for each client
)

// New returns an empty cache that holds most bytes.
func New[V any](most int) *Cache[V] {
	c := &Cache[V]{most: most}
	c.clear()
	return c
}

func (c *Cache[V]) clear() {
	c.held = 0
	c.names = map[string]*client[V]{}
	c.clients = map[netip.Addr]*client[V]{}
	c.order = nil
}

// Get returns what is kept for name. It counts as a use.
func (c *Cache[V]) Get(name string) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	owner := c.names[name]
	if owner == nil {
		return value, false
	}
	w, _ := owner.kept.Get(name)
	return w.value, true
}

// Add keeps value for name, instead of what was kept for it. addr is the client
// whose lookup it was; the zero address is a client like others. bytes is what
// the value takes, without name. A value that does not fit alone is not kept.
func (c *Cache[V]) Add(addr netip.Addr, name string, value V, bytes int) {
	bytes += len(name) + nameCost
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(name)
	if bytes+clientCost > c.most {
		return
	}
	owner := c.clients[addr]
	if owner == nil {
		kept, _ := simplelru.NewLRU[string, weighed[V]](math.MaxInt, nil) // fails for a size below 1
		owner = &client[V]{addr: addr, kept: kept}
		c.clients[addr] = owner
		heap.Push(&c.order, owner)
		c.grow(owner, clientCost)
	}
	owner.kept.Add(name, weighed[V]{value, bytes})
	c.names[name] = owner
	c.grow(owner, bytes)
	for c.held > c.most {
		oldest, _, _ := c.order[0].kept.GetOldest()
		c.remove(oldest)
	}
}

// Remove forgets name.
func (c *Cache[V]) Remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(name)
}

// Purge forgets all names.
func (c *Cache[V]) Purge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
}

// Use returns the number of names that are kept, and the bytes that are held for
// them.
func (c *Cache[V]) Use() (names, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.names), c.held
}

// remove forgets name. c.mu is held.
func (c *Cache[V]) remove(name string) {
	owner := c.names[name]
	if owner == nil {
		return
	}
	w, _ := owner.kept.Peek(name)
	owner.kept.Remove(name)
	delete(c.names, name)
	c.grow(owner, -w.bytes)
	if owner.kept.Len() == 0 {
		c.grow(owner, -clientCost)
		heap.Remove(&c.order, owner.index)
		delete(c.clients, owner.addr)
	}
}

// grow changes what is held for owner by n bytes. c.mu is held.
func (c *Cache[V]) grow(owner *client[V], n int) {
	c.held += n
	owner.held += n
	heap.Fix(&c.order, owner.index)
}

// byHeld is a heap of clients; the first one holds most.
type byHeld[V any] []*client[V]

func (h byHeld[V]) Len() int           { return len(h) }
func (h byHeld[V]) Less(i, j int) bool { return h[i].held > h[j].held }

func (h byHeld[V]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index = i
	h[j].index = j
}

// Push adds x, a *client[V], at the end.
func (h *byHeld[V]) Push(x any) {
	owner := x.(*client[V])
	owner.index = len(*h)
	*h = append(*h, owner)
}

// Pop removes the client at the end.
func (h *byHeld[V]) Pop() any {
	old := *h
	owner := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return owner
}
