package control

import (
	"context"
	"sync/atomic"
	"time"

	"tailscale.com/control/controlclient"
	"tailscale.com/health"
)

// serverEpoch is the earliest time that a control server may send as its own.
// The library ignores earlier times too, and its test server sends one.
var serverEpoch = time.Date(2023, 6, 1, 0, 0, 0, 0, time.UTC)

// watchEvery is the time between two looks at the connection to the control
// server. It is short because callers that wait for a lost route depend on Returned.
const watchEvery = 200 * time.Millisecond

// Server is what is known about the control server. The zero value knows nothing.
type Server struct {
	clockAhead atomic.Pointer[time.Duration]
	connected  atomic.Bool
	returned   atomic.Pointer[time.Time]
}

// ClockAhead returns the control server's clock minus ours. Nil means unknown.
func (s *Server) ClockAhead() *time.Duration { return s.clockAhead.Load() }

// Connected reports whether the server was connected when Watch looked last.
func (s *Server) Connected() bool { return s.connected.Load() }

// Returned returns when the connection to the server last came back after an
// outage. The zero time means never.
func (s *Server) Returned() time.Time {
	if t := s.returned.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// CompareClocks compares the control server's clock with ours.
func (s *Server) CompareClocks(t controlclient.ControlTime) {
	if t.Value.After(serverEpoch) {
		ahead := time.Until(t.Value)
		s.clockAhead.Store(&ahead)
	}
}

// Watch notes when the connection to the control server comes back, until ctx
// ends. The engine has no notification for that.
func (s *Server) Watch(ctx context.Context, tracker *health.Tracker) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	known := false // whether there has been a connection
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		connected := tracker.GetInPollNetMap()
		was := s.connected.Swap(connected)
		if connected && !was && known {
			now := time.Now()
			s.returned.Store(&now)
		}
		known = known || connected
	}
}
