package device_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/device"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// TestChecks checks the conditions of readiness that depend on the device.
func TestChecks(t *testing.T) {
	missing := netip.MustParseAddr("10.50.0.2")
	up := tailnet.Status{Up: true, Control: true}
	for name, c := range map[string]struct {
		device device.Snapshot
		want   string
	}{
		"not_up":              {device.Snapshot{Err: tailnet.ErrNotUp}, "tailnet: the tailnet is not up; tunnels: not warm yet"},
		"not_warm":            {device.Snapshot{Status: up}, "tunnels: not warm yet"},
		"not_warm_unrouted":   {device.Snapshot{Status: up, Unrouted: missing}, "tunnels: not warm yet; routes notes: no peer routes 10.50.0.2, a resolver of the tailnet's split DNS"},
		"waits_for_a_route":   {device.Snapshot{Status: up, Warm: true, Unrouted: missing}, "routes: no peer routes 10.50.0.2, a resolver of the tailnet's split DNS"},
		"warms_a_late_router": {device.Snapshot{Status: up, Warm: true}, "routes: warming WireGuard sessions with routers that appeared late"},
		"route_never_came":    {device.Snapshot{Status: up, Warm: true, Routed: true, Unrouted: missing}, "routes notes: no peer routes 10.50.0.2, a resolver of the tailnet's split DNS"},
		"ready":               {device.Snapshot{Status: up, Warm: true, Routed: true}, ""},
		"control_server_away": {device.Snapshot{Status: tailnet.Status{Up: true}, Warm: true, Routed: true}, "tailnet notes: control server unreachable; using the last known network map"},
		"another_pod":         {device.Snapshot{Status: up, Warm: true, Routed: true, State: errors.New("another pod")}, "state: another pod"},
		"tailnet_lost":        {device.Snapshot{Err: tailnet.ErrNotUp, Warm: true, Routed: true}, "tailnet: the tailnet is not up"},
	} {
		var says []string
		for _, check := range c.device.Checks() {
			switch {
			case check.Err != nil:
				says = append(says, check.Name+": "+check.Err.Error())
			case check.Note != "":
				says = append(says, check.Name+" notes: "+check.Note)
			}
		}
		if got := strings.Join(says, "; "); got != c.want {
			t.Errorf("%s: Checks() say %q, want %q", name, got, c.want)
		}
	}
}
