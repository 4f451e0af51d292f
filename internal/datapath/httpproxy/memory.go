package httpproxy

import (
	"net"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Measure measures what each request in progress holds, and returns those that
// make no progress (account.Account). Call it at regular times from one
// goroutine, with the current time as now.
func (p *Proxy) Measure(now time.Time) (stalled []flow.Holder) {
	if p.Memory == nil {
		return nil
	}
	origins := map[*session]net.Conn{} // of the sessions in a request; nil without one
	p.mu.Lock()
	for s, waiting := range p.sessions {
		switch {
		case waiting:
		case s.origin != nil:
			origins[s] = s.origin.Conn
		default:
			origins[s] = nil
		}
	}
	p.mu.Unlock()
	for s, origin := range origins {
		held := 0
		progress := uint64(0)
		if origin != nil {
			held = socket.Held(s.c) + socket.Held(origin)
			progress = socket.Progress(s.c)
		}
		if h, ok := s.account.Measure(now, int64(held), progress); ok {
			h.End = s.evict
			stalled = append(stalled, h)
		}
	}
	return stalled
}

// evict ends s because the memory that it holds is needed. A head that is not
// whole is answered; an exchange is reset.
func (s *session) evict() {
	if s.account.Evict() {
		s.c.SetReadDeadline(past)
		return
	}
	socket.Abort(s.c)
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.origin != nil {
		s.origin.Close()
	}
}
