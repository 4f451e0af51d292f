package explain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

const (
	// expirySoon is how long before the device key expires explain warns.
	expirySoon = 14 * 24 * time.Hour
	// maxClockError is the largest clock error that passes. Certificates and keys
	// have dates.
	maxClockError = time.Minute
	// relaySilence is the longest silence of a working relay. It sends a frame
	// every minute.
	relaySilence = 90 * time.Second
)

// checkReplica checks the replica itself.
func (x *explanation) checkReplica(ctx context.Context) {
	st := x.Status(0)
	x.checkKey(st.Tailnet) // before the login, which may fail because of the key
	x.checkLogin(st)
	for _, h := range st.Tailnet.Health {
		x.add("health", status.Warn, 0, h)
	}
	x.checkRelay(st.Tailnet)
	x.checkRoutes(st)
	if st.Tailnet.Up {
		x.checkZones(ctx)
	}
	x.checkClock(st.Tailnet)
	for _, c := range st.Checks {
		switch {
		case c.Name == status.OnTailnet && c.Err != nil, c.Name == status.ExpectedTailnet: // checkLogin reports them
		case c.Err != nil:
			x.fail(c.Name, 0, readinessError(c))
		case c.Err == nil && c.Note != "":
			x.add(c.Name, status.Warn, 0, c.Note)
		}
	}
}

// readinessError returns the error of a check that fails, with a class.
func readinessError(c status.Check) error {
	if fe, ok := errors.AsType[*flow.Error](c.Err); ok {
		return fe
	}
	class := flow.NotReady
	if c.Name == status.NotDraining {
		class = flow.Cut
	}
	return &flow.Error{
		Class: class,
		Op:    "ready",
		Err:   c.Err,
		Hint:  "the Service sends no traffic to this replica until the check passes",
	}
}

func (x *explanation) checkLogin(st status.Replica) {
	device := st.Tailnet
	if !device.Up {
		err := errors.New("state " + device.State)
		for _, c := range st.Checks {
			if c.Name == status.OnTailnet && c.Err != nil {
				err = c.Err
			}
		}
		x.fail("login", 0, &flow.Error{
			Class: flow.NotReady,
			Op:    "tailnet",
			Err:   err,
			Hint:  "check that the control server (tailnet.controlURL) is reachable from here; if it is, check the auth key: it may be expired, used up, or not allowed to use these tags",
		})
		return
	}
	if i := slices.IndexFunc(st.Checks, func(c status.Check) bool { return c.Name == status.ExpectedTailnet && c.Err != nil }); i >= 0 {
		x.fail("login", 0, &flow.Error{
			Class: flow.NotReady,
			Op:    "tailnet",
			Err:   st.Checks[i].Err,
			Hint:  "check who logged the device in, and its auth key; remove its state (tailnet.kubeSecret or tailnet.stateDir) and restart the replica",
		})
		return
	}
	says := fmt.Sprintf("%s %v, state %s", device.Name, device.Addrs, device.State)
	if !device.ControlConnected {
		x.add("login", status.Warn, 0, says+"; control server unreachable; using the last known network map")
		return
	}
	x.add("login", status.OK, 0, says+", control server connected")
}

func (x *explanation) checkKey(device status.Device) {
	if device.KeyExpiry == nil {
		x.add("key", status.OK, 0, "does not expire")
		return
	}
	at := device.KeyExpiry.UTC().Format(time.RFC3339)
	left := time.Until(*device.KeyExpiry)
	if left <= 0 {
		x.fail("key", 0, &flow.Error{
			Class: flow.NotReady,
			Op:    "tailnet",
			Err:   errors.New("expired at " + at),
			Hint:  "give the replica a valid auth key, or disable key expiry for this device",
		})
		return
	}
	outcome := status.OK
	if left < expirySoon {
		outcome = status.Warn
	}
	x.add("key", outcome, 0, "expires "+at+", in "+left.Round(time.Hour).String())
}

func (x *explanation) checkRelay(device status.Device) {
	switch {
	case !device.Up:
	case device.HomeRelay == "":
		x.add("relay", status.Warn, 0, "no DERP region is reachable, so peers without a direct path are not reachable either")
	case device.HomeHeard == nil:
		x.add("relay", status.Warn, 0, "home region "+device.HomeRelay+", nothing heard from it yet")
	default:
		silence := time.Since(*device.HomeHeard)
		outcome := status.OK
		if silence > relaySilence {
			outcome = status.Warn
		}
		x.add("relay", outcome, 0, "home region "+device.HomeRelay+", last heard "+silence.Round(time.Second).String()+" ago")
	}
}

// checkRoutes reports the peers that carry routes. It fails for a route whose
// peers are all offline.
func (x *explanation) checkRoutes(st status.Replica) {
	if !st.Tailnet.Up {
		return
	}
	online := map[string]bool{} // by route, whether one of its peers is online
	for _, p := range st.Peers {
		if len(p.Routes) > 0 && !x.AcceptRoutes {
			x.add("route", status.Warn, 0, p.Name+" carries "+status.Join(p.Routes)+", which this replica does not use: tailnet.acceptRoutes is off")
			continue
		}
		for _, r := range p.Routes {
			outcome := status.OK
			if !p.Online {
				outcome = status.Warn
			}
			online[r.String()] = online[r.String()] || p.Online
			x.add("route", outcome, 0, status.NewCarrier(r.Addr(), r, p).String())
		}
	}
	if len(online) == 0 && x.AcceptRoutes {
		x.add("route", status.Warn, 0, "no peer carries a route, so only the peers themselves are reachable; check that the routes are advertised and approved")
	}
	for _, r := range slices.Sorted(maps.Keys(online)) {
		if !online[r] {
			x.fail("route", 0, &flow.Error{
				Class: flow.Unreachable,
				Op:    "tailnet",
				Err:   errors.New("the subnet router for " + r + " is offline"),
				Hint:  "check that the subnet router runs and reaches the control server",
			})
		}
	}
}

// checkZones queries the resolvers of all zones. It fails for a zone if none of
// its resolvers answers.
func (x *explanation) checkZones(ctx context.Context) {
	answers := map[string]bool{}
	failures := map[string]error{}
	for _, c := range x.Resolver.CheckZones(ctx) {
		answers[c.Suffix] = answers[c.Suffix] || c.Err == nil
		if c.Err != nil {
			failures[c.Suffix] = c.Err
			x.add("dns", status.Warn, c.Took, c.Suffix+": resolver "+c.Server+" fails: "+c.Err.Error())
			continue
		}
		x.add("dns", status.OK, c.Took, c.Suffix+": resolver "+c.Server+" answers")
	}
	for _, suffix := range slices.Sorted(maps.Keys(answers)) {
		if !answers[suffix] {
			x.fail("dns", 0, &flow.Error{
				Class: flow.ResolveFailed,
				Op:    "resolve",
				Err:   fmt.Errorf("no resolver for %s answers: %w", suffix, failures[suffix]),
				Hint:  x.unlessRoutesAreOff("check that the zone's resolvers run, and that a peer that is online routes them"),
			})
		}
	}
	if len(answers) == 0 {
		x.add("dns", status.OK, 0, "no zone has resolvers of its own")
	}
}

func (x *explanation) checkClock(device status.Device) {
	if device.ClockAhead == nil {
		x.add("clock", status.Warn, 0, "not checked: the control server did not send its time")
		return
	}
	ahead := time.Duration(*device.ClockAhead * float64(time.Second))
	if ahead.Abs() <= maxClockError {
		x.add("clock", status.OK, 0, fmt.Sprintf("within %.1f s of the control server's", ahead.Abs().Seconds()))
		return
	}
	direction := "behind"
	if ahead < 0 {
		direction = "ahead of"
	}
	x.fail("clock", 0, &flow.Error{
		Class: flow.NotReady,
		Op:    "clock",
		Err:   fmt.Errorf("this machine's clock is %v %s the control server's", ahead.Abs().Round(time.Second), direction),
		Hint:  "set the node's clock: certificates and keys are only valid between their dates",
	})
}
