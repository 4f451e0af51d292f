package httpproxy

import (
	"bufio"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

const (
	maxIdlePerTarget = 256
	maxIdle          = 2048
)

// origin is a connection to an origin server.
type origin struct {
	net.Conn
	target  flow.Target
	silence silence       // Conn, with the bound on its silence
	limit   limitReader   // that, with the bound on heads
	br      *bufio.Reader // reads limit
	bw      *bufio.Writer
	reused  bool
	timer   *time.Timer // ends the idle time; nil before the first
}

// silence reads a connection and bounds how long it says nothing.
type silence struct {
	c     net.Conn
	bound time.Duration // zero means none
	since atomic.Int64  // when the read deadline was set, in Unix nanoseconds
}

// restart begins to count anew.
func (s *silence) restart() {
	if s.bound > 0 {
		now := time.Now()
		s.since.Store(now.UnixNano())
		s.c.SetReadDeadline(now.Add(s.bound))
	}
}

// progress begins to count anew because something moves. Deadlines cost more
// than a look at the clock: a bound that is an eighth late is good enough.
func (s *silence) progress() {
	if s.bound > 0 && time.Since(time.Unix(0, s.since.Load())) > s.bound/8 {
		s.restart()
	}
}

// stop ends the counting.
func (s *silence) stop() { s.c.SetReadDeadline(time.Time{}) }

func (s *silence) Read(b []byte) (int, error) {
	s.progress()
	return s.c.Read(b)
}

// CloseWrite passes a half-close on.
func (o *origin) CloseWrite() error {
	return socket.CloseWrite(o.Conn)
}

// pool keeps connections to origins between requests. They are found by
// address, which was judged for the request at hand, never by name.
type pool struct {
	mu     sync.Mutex
	idle   map[flow.Target][]*origin // the last one was used last
	count  int
	closed bool
}

// take returns an idle connection to one of targets, or nil.
func (p *pool) take(targets []flow.Target) *origin {
	for {
		o := p.pop(targets)
		if o == nil || !stale(o) {
			return o
		}
		o.Close()
	}
}

func (p *pool) pop(targets []flow.Target) *origin {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range targets {
		list := p.idle[t]
		if n := len(list); n > 0 {
			o := list[n-1]
			p.remove(t, n-1)
			o.timer.Stop()
			o.reused = true
			return o
		}
	}
	return nil
}

// put keeps o for the next request, at most for idle, or closes it.
func (p *pool) put(o *origin, idle time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.count >= maxIdle || len(p.idle[o.target]) >= maxIdlePerTarget {
		o.Close()
		return
	}
	if p.idle == nil {
		p.idle = map[flow.Target][]*origin{}
	}
	p.idle[o.target] = append(p.idle[o.target], o)
	p.count++
	if o.timer == nil {
		o.timer = time.AfterFunc(idle, func() { p.expire(o) })
	} else {
		o.timer.Reset(idle)
	}
}

func (p *pool) expire(o *origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, x := range p.idle[o.target] {
		if x == o {
			p.remove(o.target, i)
			o.Close()
			return
		}
	}
}

// remove takes entry i of t's list out. p.mu is held.
func (p *pool) remove(t flow.Target, i int) {
	list := p.idle[t]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	if list = list[:len(list)-1]; len(list) == 0 {
		delete(p.idle, t)
	} else {
		p.idle[t] = list
	}
	p.count--
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, list := range p.idle {
		for _, o := range list {
			o.timer.Stop()
			o.Close()
		}
	}
	p.idle, p.count = nil, 0
}

// stale reports whether an idle connection has something to read: the
// origin's end of it, or bytes that no request asked for.
func stale(o *origin) bool {
	if o.br.Buffered() > 0 {
		return true
	}
	return socket.Readable(o.Conn)
}
