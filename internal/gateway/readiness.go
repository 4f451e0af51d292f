package gateway

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pandoproxy/pando/internal/device"
	"github.com/pandoproxy/pando/internal/memory"
	"github.com/pandoproxy/pando/internal/status"
)

// newConditions returns the conditions under which the replica should be sent
// clients, besides those of the probe targets. Each returns how it is now. That
// the control server can be reached is not among them: traffic does not need it.
func (g *Gateway) newConditions() []func() status.Check {
	return []func() status.Check{
		func() status.Check { return checkTailnet(g.device) },
		func() status.Check { return checkTunnels(g.device) },
		func() status.Check { return checkNotDraining(g.draining.Load()) },
		func() status.Check { return status.Check{Name: "configuration", Note: g.reloads.state()} },
		func() status.Check { return checkRoutes(g.device) },
		func() status.Check { return memory.Check(g.road.Limit.Memory) },
	}
}

// checks returns all conditions as they are now. Call it once for each answer:
// a second call may return others.
func (g *Gateway) checks() []status.Check {
	var list []status.Check
	for _, condition := range g.conditions {
		list = append(list, condition())
	}
	return append(list, g.prober.Checks()...)
}

// ready reports whether all conditions hold.
func ready(checks []status.Check) bool {
	return !slices.ContainsFunc(checks, func(c status.Check) bool { return c.Err != nil })
}

// checkTailnet fails while the device is not on its tailnet. It notes when the
// control server cannot be reached.
func checkTailnet(d *device.Device) status.Check {
	c := status.Check{Name: status.OnTailnet, Err: d.Err()}
	if c.Err == nil && !d.Status().Control {
		c.Note = "control server unreachable; using the last known network map"
	}
	return c
}

// checkTunnels fails until the tunnels to the tailnet's routers are warm.
func checkTunnels(d *device.Device) status.Check {
	c := status.Check{Name: "tunnels"}
	if !d.Warm() {
		c.Err = errors.New("not warm yet")
	}
	return c
}

// checkNotDraining fails once the drain has begun.
func checkNotDraining(draining bool) status.Check {
	c := status.Check{Name: status.NotDraining}
	if draining {
		c.Err = errDraining
	}
	return c
}

var errDraining = errors.New("the replica is shutting down")

// checkRoutes looks for a resolver of the tailnet's split DNS that no peer
// routes. It fails while the device waits for that route at the start, and while
// it warms the tunnel to a router that appeared late. After that it makes a note.
func checkRoutes(d *device.Device) status.Check {
	c := status.Check{Name: "routes"}
	waiting := d.Warm() && !d.Routed() // read first: the wait may end meanwhile
	missing := d.UnroutedResolver()
	if missing.IsValid() {
		c.Note = fmt.Sprintf("no peer routes %v, a resolver of the tailnet's split DNS", missing)
	}
	switch {
	case waiting && missing.IsValid():
		c.Err = errors.New(c.Note)
	case waiting:
		c.Err = errors.New("warming tunnels to routers that appeared late")
	}
	return c
}
