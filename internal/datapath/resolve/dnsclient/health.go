package dnsclient

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Health is the latest state of a server.
type Health struct {
	Server   string     `json:"server"`
	Answered *time.Time `json:"answered,omitempty"` // the last answer; nil means never
	Failed   *time.Time `json:"failed,omitempty"`   // the last failure; nil means never
	Err      string     `json:"err,omitempty"`      // of that failure
}

// healthKept is how long the state of a server is kept after its last query.
const healthKept = time.Hour

// health holds the state of each server that was asked recently.
type health struct {
	mu     sync.Mutex
	m      map[string]Health    // by address
	noEDNS map[string]time.Time // when a server that does not understand EDNS said so, by address
}

// record stores the outcome of a query to server.
func (h *health) record(server string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		h.m = map[string]Health{}
	}
	now := time.Now()
	s := h.m[server]
	s.Server = server
	if err == nil {
		s.Answered = &now
	} else {
		s.Failed = &now
		s.Err = err.Error()
	}
	h.m[server] = s
}

// plainFor is how long a server that does not understand EDNS is asked without it. It
// may be replaced by one that does.
const plainFor = 10 * time.Minute

// noteNoEDNS stores that server does not understand EDNS.
func (h *health) noteNoEDNS(server string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(h.noEDNS, func(_ string, said time.Time) bool { return now.Sub(said) > plainFor })
	if h.noEDNS == nil {
		h.noEDNS = map[string]time.Time{}
	}
	h.noEDNS[server] = now
}

// lacksEDNS reports whether server has said a while ago that it does not understand
// EDNS.
func (h *health) lacksEDNS(server string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	said, ok := h.noEDNS[server]
	return ok && time.Since(said) <= plainFor
}

// failedFor is how long a server that failed is asked after the others.
const failedFor = 30 * time.Second

// order returns servers with those last that failed a moment ago.
func (h *health) order(servers []string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	failed := func(server string) bool {
		addr, err := ServerAddr(server)
		if err != nil {
			return false
		}
		s := h.m[addr.String()]
		return s.Failed != nil && time.Since(*s.Failed) < failedFor && (s.Answered == nil || s.Answered.Before(*s.Failed))
	}
	var good, bad []string
	for _, s := range servers {
		if failed(s) {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	return append(good, bad...)
}

// Health returns the state of the servers that were asked in the last hour,
// sorted by address.
func (c *Client) Health() []Health {
	h := &c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	recent := func(t *time.Time) bool { return t != nil && time.Since(*t) < healthKept }
	var list []Health
	for server, s := range h.m {
		if !recent(s.Answered) && !recent(s.Failed) {
			delete(h.m, server)
			continue
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Health) int { return strings.Compare(a.Server, b.Server) })
	return list
}
