package origin

import (
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

const (
	maxIdlePerTarget = 256
	maxIdle          = 2048
)

// Pool keeps connections to origins between requests. It finds them by
// address, which was judged for the request at hand, never by name. The zero
// value is ready.
type Pool struct {
	mu     sync.Mutex
	idle   map[flow.Target][]*Conn // the last one was used last
	count  int
	closed bool
}

// Take returns an idle connection to one of targets, or nil.
func (p *Pool) Take(targets []flow.Target) *Conn {
	for {
		o := p.pop(targets)
		if o == nil || !o.stale() {
			return o
		}
		o.Close()
	}
}

func (p *Pool) pop(targets []flow.Target) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range targets {
		list := p.idle[t]
		if n := len(list); n > 0 {
			o := list[n-1]
			p.remove(t, n-1)
			o.idleDeadline.Stop()
			o.Reused = true
			return o
		}
	}
	return nil
}

// Put takes o and keeps it for a later request, for idle at most. It closes o
// if the pool is full or closed.
func (p *Pool) Put(o *Conn, idle time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.count >= maxIdle || len(p.idle[o.Target]) >= maxIdlePerTarget {
		o.Close()
		return
	}
	if p.idle == nil {
		p.idle = map[flow.Target][]*Conn{}
	}
	p.idle[o.Target] = append(p.idle[o.Target], o)
	p.count++
	if o.idleDeadline == nil {
		o.idleDeadline = time.AfterFunc(idle, func() { p.expire(o) })
	} else {
		o.idleDeadline.Reset(idle)
	}
}

// Close closes the idle connections, and all that are put later.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, list := range p.idle {
		for _, o := range list {
			o.idleDeadline.Stop()
			o.Close()
		}
	}
	p.idle = nil
	p.count = 0
}

// expire closes o if it is still idle.
func (p *Pool) expire(o *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, x := range p.idle[o.Target] {
		if x == o {
			p.remove(o.Target, i)
			o.Close()
			return
		}
	}
}

// remove takes entry i out of t's list. p.mu is held.
func (p *Pool) remove(t flow.Target, i int) {
	list := p.idle[t]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	list = list[:len(list)-1]
	if len(list) == 0 {
		delete(p.idle, t)
	} else {
		p.idle[t] = list
	}
	p.count--
}
