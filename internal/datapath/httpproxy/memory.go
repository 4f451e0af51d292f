package httpproxy

import (
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Measure measures what each request in progress holds, and returns those that
// make no progress (account.Account). It also closes the idle connections to origins
// that hold bytes. Call it at regular times from one goroutine, with the current time
// as now.
func (p *Proxy) Measure(now time.Time) (stalled []flow.Holder) {
	if p.Memory == nil {
		return nil
	}
	p.pool.DropStale()
	exchanges := map[*session]*exchange{} // of the sessions in a request; nil without one
	p.mu.Lock()
	for s, waiting := range p.sessions {
		if !waiting {
			exchanges[s] = s.current
		}
	}
	p.mu.Unlock()
	for s, x := range exchanges {
		held := 0
		progress := uint64(0)
		if x != nil {
			held = socket.Held(s.c) + socket.Held(x.o.Conn)
			progress = socket.Progress(s.c)
		}
		if h, ok := s.account.Measure(now, int64(held), progress); ok {
			h.End = s.evict
			stalled = append(stalled, h)
		}
	}
	return stalled
}

// evict ends the request of s because the memory that it holds is needed. A head
// that is not whole is answered; an exchange is reset. If the request has ended since
// it was measured, evict does nothing: the connection waits for another request, or
// a tunnel owns it.
func (s *session) evict() {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	waiting, known := s.p.sessions[s]
	switch {
	case waiting || !known:
	case s.account.Evict():
		s.c.SetReadDeadline(past)
	default:
		socket.Abort(s.c)
		if s.current != nil {
			s.current.o.Close()
		}
	}
}
