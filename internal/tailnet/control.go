package tailnet

import (
	"context"
	"sync/atomic"
	"time"

	"tailscale.com/control/controlclient"
	"tailscale.com/health"
)

// controlEpoch is the earliest time that a control server may send as its own.
// The library ignores earlier times too, and its test server sends one.
var controlEpoch = time.Date(2023, 6, 1, 0, 0, 0, 0, time.UTC)

// controlEvery is the time between two looks at the connection to the control
// server. It is short because AwaitRoutes depends on controlState.returned.
const controlEvery = 200 * time.Millisecond

// controlState is what is known about the control server.
type controlState struct {
	clockAhead atomic.Pointer[time.Duration] // the control server's clock minus ours; nil means unknown
	connected  atomic.Bool                   // whether it was connected when watch looked last
	returned   atomic.Pointer[time.Time]     // when the connection last came back; nil means never
}

// compareClocks compares the control server's clock with ours.
func (c *controlState) compareClocks(t controlclient.ControlTime) {
	if t.Value.After(controlEpoch) {
		ahead := time.Until(t.Value)
		c.clockAhead.Store(&ahead)
	}
}

// watch notes when the connection to the control server comes back, until ctx
// ends. The engine has no notification for that.
func (c *controlState) watch(ctx context.Context, tracker *health.Tracker) {
	t := time.NewTicker(controlEvery)
	defer t.Stop()
	known := false // whether there has been a connection
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		connected := tracker.GetInPollNetMap()
		was := c.connected.Swap(connected)
		if connected && !was && known {
			now := time.Now()
			c.returned.Store(&now)
		}
		known = known || connected
	}
}
