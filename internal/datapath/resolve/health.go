package resolve

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Health is how a resolver has fared.
type Health struct {
	Server   string     `json:"server"`
	Answered *time.Time `json:"answered,omitempty"` // last; nil means never
	Failed   *time.Time `json:"failed,omitempty"`   // last; nil means never
	Err      string     `json:"err,omitempty"`      // of that failure
}

// healthKept is how long a resolver that is not asked any more is remembered.
const healthKept = time.Hour

// health is how the resolvers fare that were asked of late.
type health struct {
	mu sync.Mutex
	m  map[string]Health
}

// note keeps the outcome of asking server.
func (h *health) note(server string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		h.m = map[string]Health{}
	}
	s, now := h.m[server], time.Now()
	if s.Server = server; err == nil {
		s.Answered = &now
	} else {
		s.Failed, s.Err = &now, err.Error()
	}
	h.m[server] = s
}

// failedFor is how long a resolver that failed is asked after the others.
const failedFor = 30 * time.Second

// order puts the servers that failed a moment ago behind the others.
func (h *health) order(servers []string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	failed := func(server string) bool {
		addr, err := ServerAddr(server)
		s := h.m[addr.String()]
		return err == nil && s.Failed != nil && time.Since(*s.Failed) < failedFor && (s.Answered == nil || s.Answered.Before(*s.Failed))
	}
	list := slices.Clone(servers)
	slices.SortStableFunc(list, func(a, b string) int {
		switch fa, fb := failed(a), failed(b); {
		case fa == fb:
			return 0
		case fa:
			return 1
		}
		return -1
	})
	return list
}

// Health tells how the resolvers fare that were asked in the last hour.
func (r *Resolver) Health() []Health {
	h := &r.health
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []Health
	for server, s := range h.m {
		recent := func(t *time.Time) bool { return t != nil && time.Since(*t) < healthKept }
		if !recent(s.Answered) && !recent(s.Failed) {
			delete(h.m, server)
			continue
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Health) int { return strings.Compare(a.Server, b.Server) })
	return list
}
