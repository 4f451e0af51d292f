package origin

import (
	"cmp"
	"container/list"
	"net/netip"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// Bounds of a pool. One client holds a quarter of it at most.
const (
	maxIdle          = 2048
	maxIdlePerClient = maxIdle / 4
	maxIdlePerTarget = 256
	maxIdleTLS       = 256 // each holds more memory than others
)

// Owner is the client that a connection is kept for. The zero value stands for
// every client.
type Owner struct {
	Addr netip.Addr
	User string // empty when clients need no password
}

// Pool keeps connections to origins between requests. It finds them by
// address, which was judged for the request at hand, never by name. A connection
// that has served a request of one client serves no other client, unless Put
// says so. The zero value is ready.
type Pool struct {
	max int // zero means maxIdle; tests have fewer descriptors

	mu     sync.Mutex
	idle   map[place][]*Conn // the last one was used last
	order  list.List         // all of them, as *Conn: the one that is idle for longest first
	held   map[Owner]int     // how many each client has put
	tls    int               // how many have TLS
	closed bool
}

// place is what the pool finds a connection by.
type place struct {
	owner  Owner
	target flow.Target
	server string // see Conn.Server
}

// pooled is what the pool notes of an idle connection.
type pooled struct {
	place   place
	holder  Owner         // the client that has put it
	element *list.Element // in Pool.order; nil while the connection is in use
	expiry  *time.Timer   // nil before the first time
	until   time.Time     // when expiry ends the idle time; a busy machine may be late
}

// Terms say how a connection is kept.
type Terms struct {
	Shared  bool          // requests of any client may use it
	Idle    time.Duration // for how long it is kept at most, unless its origin says less
	Replace bool          // it takes the place of the one to the same target that is idle for longest
}

// Take returns an idle connection to one of targets that by may use, or nil. With a
// server it is one with TLS for that server.
func (p *Pool) Take(by Owner, targets []flow.Target, server string) *Conn {
	for {
		o := p.pop(by, targets, server)
		if o == nil || !o.stale() {
			return o
		}
		o.Close()
	}
}

func (p *Pool) pop(by Owner, targets []flow.Target, server string) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range targets {
		for _, owner := range [...]Owner{by, {}} {
			list := p.idle[place{owner, t, server}]
			if n := len(list); n > 0 {
				o := list[n-1]
				p.remove(o)
				o.pooled.expiry.Stop()
				o.Reused = true
				return o
			}
		}
	}
	return nil
}

// Put takes o, which has served a request of the client by, and keeps it for a
// later request of the same client, as terms say. A full pool closes the connection
// that is idle for longest. Put reports false if it has closed o: because by has its
// share of the pool already, or because there are enough connections to this target,
// or because the pool is closed.
func (p *Pool) Put(o *Conn, by Owner, terms Terms) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := place{by, o.Target, o.Server}
	if terms.Shared {
		at.owner = Owner{}
	}
	if same := p.idle[at]; terms.Replace && len(same) > 0 {
		p.drop(same[0])
	}
	full := p.held[by] >= maxIdlePerClient || len(p.idle[at]) >= maxIdlePerTarget || o.Server != "" && p.tls >= maxIdleTLS
	if p.closed || full {
		o.Close()
		return false
	}
	if p.order.Len() >= cmp.Or(p.max, maxIdle) {
		p.drop(p.order.Front().Value.(*Conn))
	}
	p.add(o, at, by)
	idle := o.idleFor(terms.Idle)
	o.pooled.until = time.Now().Add(idle)
	if o.pooled.expiry == nil {
		o.pooled.expiry = time.AfterFunc(idle, func() { p.expire(o) })
	} else {
		o.pooled.expiry.Reset(idle)
	}
	return true
}

// DropStale closes the idle connections that their origins have ended, or have sent
// bytes on that no request asked for. Otherwise such bytes would fill the receive buffers.
func (p *Pool) DropStale() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var next *list.Element
	for e := p.order.Front(); e != nil; e = next {
		next = e.Next()
		if o := e.Value.(*Conn); o.stale() {
			p.drop(o)
		}
	}
}

// Close closes the idle connections, and all that are put later.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for p.order.Len() > 0 {
		p.drop(p.order.Front().Value.(*Conn))
	}
}

// expire closes o if it is still idle.
func (p *Pool) expire(o *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.pooled.element != nil {
		p.drop(o)
	}
}

// drop closes the idle connection o. p.mu is held.
func (p *Pool) drop(o *Conn) {
	p.remove(o)
	o.pooled.expiry.Stop()
	o.Close()
}

// add puts o where its client finds it. p.mu is held.
func (p *Pool) add(o *Conn, at place, by Owner) {
	if p.idle == nil {
		p.idle = map[place][]*Conn{}
		p.held = map[Owner]int{}
	}
	o.pooled.place = at
	o.pooled.holder = by
	o.pooled.element = p.order.PushBack(o)
	p.idle[at] = append(p.idle[at], o)
	p.held[by]++
	if at.server != "" {
		p.tls++
	}
}

// remove takes the idle connection o out of the pool. p.mu is held.
func (p *Pool) remove(o *Conn) {
	at := o.pooled.place
	list := p.idle[at]
	i := len(list) - 1
	for list[i] != o {
		i--
	}
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	p.idle[at] = list[:len(list)-1]
	if len(list) == 1 {
		delete(p.idle, at)
	}
	p.held[o.pooled.holder]--
	if p.held[o.pooled.holder] == 0 {
		delete(p.held, o.pooled.holder)
	}
	if at.server != "" {
		p.tls--
	}
	p.order.Remove(o.pooled.element)
	o.pooled.element = nil
}
