package explain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pandoproxy/pando/internal/admin"
	"github.com/pandoproxy/pando/internal/flow"
)

const (
	expirySoon = 14 * 24 * time.Hour // a key that expires so soon is worth a look
	clockOff   = time.Minute         // certificates and keys are judged by the clock
	// relaySilent is how long a relay that works says nothing at most: it sends a
	// frame a minute.
	relaySilent = 90 * time.Second
)

// check looks at the replica itself.
func (w *walk) check(ctx context.Context) {
	st := w.Status(0)
	w.keyExpiry(st.Tailnet) // before the login, whose failure may be due to it
	w.login(st)
	for _, h := range st.Tailnet.Health {
		w.add("health", Warn, 0, h)
	}
	w.relay(st.Tailnet)
	w.routers(st)
	if st.Tailnet.Up {
		w.zones(ctx)
	}
	w.clock(st.Tailnet)
	for _, c := range st.Checks {
		switch {
		case c.Err != nil && c.Name != admin.OnTailnet: // login has told of that
			w.fail(c.Name, 0, readiness(c))
		case c.Err == nil && c.Note != "":
			w.add(c.Name, Warn, 0, c.Note)
		}
	}
}

// readiness gives a condition that does not hold its class.
func readiness(c admin.Check) error {
	if fe, ok := errors.AsType[*flow.Error](c.Err); ok {
		return fe
	}
	fe := &flow.Error{Class: flow.NotReady, Op: "ready", Err: c.Err, Hint: "the replica gets no traffic from its Service until this holds"}
	if c.Name == admin.NotDraining {
		fe.Class = flow.Cut
	}
	return fe
}

func (w *walk) login(st admin.Status) {
	t := st.Tailnet
	if !t.Up {
		err := errors.New("state " + t.State)
		for _, c := range st.Checks {
			if c.Name == admin.OnTailnet && c.Err != nil {
				err = c.Err
			}
		}
		w.fail("login", 0, &flow.Error{Class: flow.NotReady, Op: "tailnet", Err: err, Hint: "can the control server be reached from here (tailnet.controlURL)? If it can, look at the auth key: is it expired, used up, for the right tags?"})
		return
	}
	says := fmt.Sprintf("%s %v, state %s", t.Name, t.Addrs, t.State)
	if !t.ControlConnected {
		w.add("login", Warn, 0, says+"; the control server is away: what is known goes on")
		return
	}
	w.add("login", OK, 0, says+", control server connected")
}

func (w *walk) keyExpiry(t admin.Tailnet) {
	switch {
	case t.KeyExpiry == nil:
		w.add("key", OK, 0, "does not expire")
	case time.Until(*t.KeyExpiry) <= 0:
		w.fail("key", 0, &flow.Error{Class: flow.NotReady, Op: "tailnet", Err: errors.New("expired at " + t.KeyExpiry.UTC().Format(time.RFC3339)), Hint: "give the replica a good auth key, or disable key expiry for this device"})
	default:
		status := OK
		if time.Until(*t.KeyExpiry) < expirySoon {
			status = Warn
		}
		w.add("key", status, 0, "expires "+t.KeyExpiry.UTC().Format(time.RFC3339)+", in "+time.Until(*t.KeyExpiry).Round(time.Hour).String())
	}
}

func (w *walk) relay(t admin.Tailnet) {
	switch {
	case !t.Up:
	case t.HomeRelay == "":
		w.add("relay", Warn, 0, "no DERP region is reached: peers that can't be reached directly can't be reached at all")
	case t.HomeHeard == nil:
		w.add("relay", Warn, 0, "home region "+t.HomeRelay+", which has said nothing yet")
	default:
		status := OK
		if time.Since(*t.HomeHeard) > relaySilent {
			status = Warn
		}
		w.add("relay", status, 0, "home region "+t.HomeRelay+", last heard "+time.Since(*t.HomeHeard).Round(time.Second).String()+" ago")
	}
}

// routers tells of the peers that carry routes. A route that only peers carry
// that are offline is a failure.
func (w *walk) routers(st admin.Status) {
	if !st.Tailnet.Up {
		return
	}
	online := map[string]bool{}
	for _, p := range st.Peers {
		if len(p.Routes) > 0 && !w.AcceptRoutes {
			w.add("route", Warn, 0, p.Name+" carries "+words(p.Routes)+", which is not used: tailnet.acceptRoutes is off")
			continue
		}
		for _, r := range p.Routes {
			online[r.String()] = online[r.String()] || p.Online
			status := OK
			if !p.Online {
				status = Warn
			}
			w.add("route", status, 0, Carrier{Addr: r.Addr(), Kind: "router", Route: r, Peer: p}.String())
		}
	}
	if len(online) == 0 && w.AcceptRoutes {
		w.add("route", Warn, 0, "no peer carries a route: only the peers themselves can be reached; are the routes advertised and approved?")
	}
	for _, r := range slices.Sorted(maps.Keys(online)) {
		if !online[r] {
			w.fail("route", 0, &flow.Error{Class: flow.Unreachable, Op: "tailnet", Err: errors.New("who carries " + r + " is offline"), Hint: "look at the subnet router: is it running, and in contact with the control server?"})
		}
	}
}

// zones asks the resolvers of all zones. A zone of which none answers is a
// failure.
func (w *walk) zones(ctx context.Context) {
	answers := map[string]bool{}
	why := map[string]error{}
	for _, c := range w.Road.Resolver.CheckZones(ctx) {
		answers[c.Suffix] = answers[c.Suffix] || c.Err == nil
		if c.Err == nil {
			w.add("dns", OK, c.Took, c.Suffix+": resolver "+c.Server+" answers")
		} else {
			why[c.Suffix] = c.Err
			w.add("dns", Warn, c.Took, c.Suffix+": resolver "+c.Server+" fails: "+c.Err.Error())
		}
	}
	for _, suffix := range slices.Sorted(maps.Keys(answers)) {
		if !answers[suffix] {
			w.fail("dns", 0, &flow.Error{Class: flow.ResolveFailed, Op: "resolve", Err: fmt.Errorf("no resolver of %s answers: %w", suffix, why[suffix]), Hint: w.unlessRoutesAreOff("are the zone's resolvers up, and routed by a peer that is online?")})
		}
	}
	if len(answers) == 0 {
		w.add("dns", OK, 0, "no zone has resolvers of its own")
	}
}

// unlessRoutesAreOff is hint, or what comes before it.
func (w *walk) unlessRoutesAreOff(hint string) string {
	if !w.AcceptRoutes {
		return "tailnet.acceptRoutes is off: switch it on, for nothing behind a subnet router can be reached without"
	}
	return hint
}

func (w *walk) clock(t admin.Tailnet) {
	switch {
	case t.ClockAhead == nil:
		w.add("clock", Warn, 0, "the control server has not told its time, to compare this machine's with")
	case *t.ClockAhead > clockOff.Seconds() || *t.ClockAhead < -clockOff.Seconds():
		w.fail("clock", 0, &flow.Error{Class: flow.NotReady, Op: "clock", Hint: "set the node's clock: certificates and keys are judged by it",
			Err: fmt.Errorf("this machine's clock is %v off: the control server's is ahead by so much", time.Duration(*t.ClockAhead*float64(time.Second)).Round(time.Second))})
	default:
		w.add("clock", OK, 0, fmt.Sprintf("within %.1f s of the control server's", max(*t.ClockAhead, -*t.ClockAhead)))
	}
}
