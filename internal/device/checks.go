package device

import (
	"errors"
	"fmt"

	"github.com/pandoproxy/pando/internal/status"
)

// Checks returns the conditions of readiness that depend on the device. That the
// control server can be reached is not among them: traffic does not need it.
func (s Snapshot) Checks() []status.Check {
	return []status.Check{
		s.checkTailnet(),
		s.checkExpected(),
		s.checkTunnels(),
		s.checkRoutes(),
		{Name: "state", Err: s.State},
	}
}

// checkTailnet fails while the device is not on its tailnet. It notes when the
// control server cannot be reached.
func (s Snapshot) checkTailnet() status.Check {
	c := status.Check{Name: status.OnTailnet, Err: s.Err}
	if c.Err == nil && !s.Status.Control {
		c.Note = "control server unreachable; using the last known network map"
	}
	return c
}

// checkTunnels fails until the WireGuard sessions with the tailnet's routers are
// warm.
func (s Snapshot) checkTunnels() status.Check {
	c := status.Check{Name: "tunnels"}
	if !s.Warm {
		c.Err = errors.New("not warm yet")
	}
	return c
}

// checkRoutes looks for a resolver of the tailnet's split DNS that no peer
// routes. It fails while the device waits for that route at the start, and while
// it warms the session with a router that appeared late. After that it makes a note.
func (s Snapshot) checkRoutes() status.Check {
	c := status.Check{Name: "routes"}
	waiting := s.Warm && !s.Routed
	if s.Unrouted.IsValid() {
		c.Note = fmt.Sprintf("no peer routes %v, a resolver of the tailnet's split DNS", s.Unrouted)
	}
	switch {
	case waiting && s.Unrouted.IsValid():
		c.Err = errors.New(c.Note)
	case waiting:
		c.Err = errors.New("warming WireGuard sessions with routers that appeared late")
	}
	return c
}
