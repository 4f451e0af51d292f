package explain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
	"github.com/pandoproxy/pando/internal/status"
)

// fakeRoad stands for the data path: probe takes one request through it.
type fakeRoad struct {
	mode  policy.Mode
	probe func(*flow.Record, *datapath.Trace) (net.Conn, error)
}

func (r fakeRoad) Probe(_ context.Context, rec *flow.Record, t *datapath.Trace) (net.Conn, error) {
	return r.probe(rec, t)
}

func (r fakeRoad) Policy() *policy.Policy { return &policy.Policy{Mode: r.mode} }

// fakeResolver answers every lookup with answer, steps and err, and has checked
// its zones with checks.
type fakeResolver struct {
	answer resolve.Answer
	steps  []resolve.Step
	err    error
	checks []resolve.Check
}

func (r fakeResolver) Explain(context.Context, host.Host, resolve.Judge) (resolve.Answer, []resolve.Step, error) {
	return r.answer, r.steps, r.err
}

func (r fakeResolver) CheckZones(context.Context) []resolve.Check { return r.checks }

// stage returns a stage in one line, such as "warn key: expires …".
func stage(s status.Stage) string { return fmt.Sprintf("%s %s: %s", s.Status, s.Name, s.Says) }

// lines returns the stages of x and their details, a line each.
func lines(x status.Explanation) []string {
	var all []string
	for _, s := range x.Stages {
		all = append(all, stage(s))
		for _, d := range s.Detail {
			all = append(all, "  "+d)
		}
	}
	return all
}

// wantLines checks that got is want, where "…" stands for any text at the end of
// a line.
func wantLines(t *testing.T, name string, got, want []string) {
	t.Helper()
	same := slices.EqualFunc(got, want, func(g, w string) bool {
		begin, open := strings.CutSuffix(w, "…")
		return g == w || open && strings.HasPrefix(g, begin)
	})
	if !same {
		t.Errorf("%s: got\n  %s\nwant\n  %s", name, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// wantFailure checks the class and the words of the hint. An empty class means
// that nothing failed.
func wantFailure(t *testing.T, name string, x status.Explanation, class flow.Class, hint string) {
	t.Helper()
	if x.Class != class.String() {
		t.Errorf("%s: class = %q, want %q", name, x.Class, class)
	}
	if hint == "" && x.Hint != "" || !strings.Contains(x.Hint, hint) {
		t.Errorf("%s: hint = %q, want %q in it", name, x.Hint, hint)
	}
}

// healthy is a replica without faults.
func healthy(now time.Time) status.Replica {
	heard := now.Add(-30 * time.Second)
	ahead := 0.5
	return status.Replica{
		Ready: true,
		Tailnet: status.Device{
			Name:             "pando-0",
			Addrs:            []netip.Addr{netip.MustParseAddr("100.64.0.7")},
			State:            "Running",
			Up:               true,
			ControlConnected: true,
			HomeRelay:        "fra",
			HomeHeard:        &heard,
			ClockAhead:       &ahead,
		},
		Peers: []status.Peer{{
			Name:          "router",
			Routes:        []netip.Prefix{netip.MustParsePrefix("10.12.0.0/16")},
			Online:        true,
			Path:          "direct 192.0.2.1:41641",
			LastHandshake: &heard,
		}},
		Checks: []status.Check{{Name: status.OnTailnet}},
	}
}

// TestReplica checks what is said of each fault that a replica can have itself.
func TestReplica(t *testing.T) { synctest.Test(t, testReplica) }

func testReplica(t *testing.T) {
	now := time.Now()
	in := func(d time.Duration) *time.Time {
		at := now.Add(d)
		return &at
	}
	stamp := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339) }
	zones := []resolve.Check{{Suffix: "corp.example", Server: "10.12.0.2:53"}}
	well := []string{
		"ok key: does not expire",
		"ok login: pando-0 [100.64.0.7], state Running, control server connected",
		"ok relay: home region fra, last heard 30s ago",
		"ok route: router, subnet router of 10.12.0.0/16, direct 192.0.2.1:41641, last handshake 30s ago",
		"ok dns: corp.example: resolver 10.12.0.2:53 answers",
		"ok clock: within 0.5 s of the control server's",
	}
	// but returns well with changed in place of one line.
	but := func(line int, changed ...string) []string { return slices.Concat(well[:line], changed, well[line+1:]) }
	const ( // indices of well
		key = iota
		login
		relay
		route
		dns
		clock
	)
	for _, tc := range []struct {
		name      string
		change    func(*status.Replica)
		checks    []resolve.Check
		routesOff bool
		want      []string
		class     flow.Class
		hint      string
	}{
		{name: "healthy", want: well},
		{
			name:   "key_expires_late",
			change: func(r *status.Replica) { r.Tailnet.KeyExpiry = in(30 * 24 * time.Hour) },
			want:   but(key, "ok key: expires "+stamp(30*24*time.Hour)+", in 720h0m0s"),
		},
		{
			name:   "key_expires_soon",
			change: func(r *status.Replica) { r.Tailnet.KeyExpiry = in(48 * time.Hour) },
			want:   but(key, "warn key: expires "+stamp(48*time.Hour)+", in 48h0m0s"),
		},
		{
			name:   "key_expired",
			change: func(r *status.Replica) { r.Tailnet.KeyExpiry = in(-time.Hour) },
			want:   but(key, "fail key: expired at "+stamp(-time.Hour)),
			class:  flow.NotReady,
			hint:   "a valid auth key",
		},
		{
			name:   "control_server_unreachable",
			change: func(r *status.Replica) { r.Tailnet.ControlConnected = false },
			want:   but(login, "warn login: pando-0 [100.64.0.7], state Running; control server unreachable; using the last known network map"),
		},
		{
			name: "not_logged_in",
			change: func(r *status.Replica) {
				r.Tailnet = status.Device{State: "NeedsLogin", ClockAhead: r.Tailnet.ClockAhead}
				r.Checks[0].Err = errors.New("invalid key")
			},
			want:  []string{well[key], "fail login: invalid key", well[clock]},
			class: flow.NotReady,
			hint:  "check the auth key",
		},
		{
			name: "state_is_all_that_is_known",
			change: func(r *status.Replica) {
				r.Tailnet = status.Device{State: "Starting", ClockAhead: r.Tailnet.ClockAhead}
			},
			want:  []string{well[key], "fail login: state Starting", well[clock]},
			class: flow.NotReady,
			hint:  "tailnet.controlURL",
		},
		{
			name:   "health_of_the_engine",
			change: func(r *status.Replica) { r.Tailnet.Health = []string{"no UDP"} },
			want:   slices.Concat(well[:relay], []string{"warn health: no UDP"}, well[relay:]),
		},
		{
			name:   "no_relay",
			change: func(r *status.Replica) { r.Tailnet.HomeRelay = "" },
			want:   but(relay, "warn relay: no DERP region is reachable, so peers without a direct path are not reachable either"),
		},
		{
			name:   "relay_never_heard",
			change: func(r *status.Replica) { r.Tailnet.HomeHeard = nil },
			want:   but(relay, "warn relay: home region fra, nothing heard from it yet"),
		},
		{
			name:   "relay_silent",
			change: func(r *status.Replica) { r.Tailnet.HomeHeard = in(-2 * time.Minute) },
			want:   but(relay, "warn relay: home region fra, last heard 2m0s ago"),
		},
		{
			name:   "no_routes",
			change: func(r *status.Replica) { r.Peers = []status.Peer{{Name: "laptop"}} },
			want:   but(route, "warn route: no peer carries a route, so only the peers themselves are reachable; check that the routes are advertised and approved"),
		},
		{
			name:      "routes_not_used",
			routesOff: true,
			want:      but(route, "warn route: router carries 10.12.0.0/16, which this replica does not use: tailnet.acceptRoutes is off"),
		},
		{
			name: "only_router_offline",
			change: func(r *status.Replica) {
				r.Peers[0].Online = false
			},
			want: but(route,
				"warn route: router, subnet router of 10.12.0.0/16, OFFLINE according to the control server, direct 192.0.2.1:41641, last handshake 30s ago",
				"fail route: the subnet router for 10.12.0.0/16 is offline"),
			class: flow.Unreachable,
			hint:  "the subnet router runs",
		},
		{
			name: "one_of_two_routers_offline",
			change: func(r *status.Replica) {
				r.Peers = append(r.Peers, status.Peer{Name: "second", Routes: r.Peers[0].Routes})
			},
			want: but(route, well[route], "warn route: second, subnet router of 10.12.0.0/16, OFFLINE according to the control server, no path used yet, no handshake yet"),
		},
		{
			name:   "exit_node",
			change: func(r *status.Replica) { r.Peers[0].Routes = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")} },
			want:   but(route, "ok route: router, exit node of 0.0.0.0/0, direct 192.0.2.1:41641, last handshake 30s ago"),
		},
		{
			name:   "no_zones",
			checks: []resolve.Check{},
			want:   but(dns, "ok dns: no zone has resolvers of its own"),
		},
		{
			name: "one_of_two_resolvers_fails",
			checks: []resolve.Check{
				{Suffix: "corp.example", Server: "10.12.0.2:53"},
				{Suffix: "corp.example", Server: "10.12.0.3:53", Err: errors.New("timed out")},
			},
			want: but(dns, well[dns], "warn dns: corp.example: resolver 10.12.0.3:53 fails: timed out"),
		},
		{
			name:   "no_resolver_answers",
			checks: []resolve.Check{{Suffix: "corp.example", Server: "10.12.0.3:53", Err: errors.New("timed out")}},
			want: but(dns, "warn dns: corp.example: resolver 10.12.0.3:53 fails: timed out",
				"fail dns: no resolver for corp.example answers: timed out"),
			class: flow.ResolveFailed,
			hint:  "the zone's resolvers run",
		},
		{
			name:      "no_resolver_answers_and_routes_are_off",
			routesOff: true,
			checks:    []resolve.Check{{Suffix: "corp.example", Server: "10.12.0.3:53", Err: errors.New("timed out")}},
			want: []string{well[key], well[login], well[relay], "warn route: router carries…",
				"warn dns: corp.example: resolver 10.12.0.3:53 fails: timed out", "fail dns: no resolver for corp.example answers: timed out", well[clock]},
			class: flow.ResolveFailed,
			hint:  "switch it on",
		},
		{
			name:   "clock_unknown",
			change: func(r *status.Replica) { r.Tailnet.ClockAhead = nil },
			want:   but(clock, "warn clock: not checked: the control server did not send its time"),
		},
		{
			name:   "clock_behind",
			change: func(r *status.Replica) { *r.Tailnet.ClockAhead = 300 },
			want:   but(clock, "fail clock: this machine's clock is 5m0s behind the control server's"),
			class:  flow.NotReady,
			hint:   "set the node's clock",
		},
		{
			name:   "clock_ahead",
			change: func(r *status.Replica) { *r.Tailnet.ClockAhead = -300 },
			want:   but(clock, "fail clock: this machine's clock is 5m0s ahead of the control server's"),
			class:  flow.NotReady,
			hint:   "set the node's clock",
		},
		{
			name: "checks",
			change: func(r *status.Replica) {
				r.Checks = append(r.Checks,
					status.Check{Name: "configuration", Note: "waiting for a restart"},
					status.Check{Name: "tunnels", Err: errors.New("not warm yet")},
				)
			},
			want:  append(slices.Clone(well), "warn configuration: waiting for a restart", "fail tunnels: not warm yet"),
			class: flow.NotReady,
			hint:  "until the check passes",
		},
		{
			name: "draining",
			change: func(r *status.Replica) {
				r.Checks = append(r.Checks, status.Check{Name: status.NotDraining, Err: errors.New("shutting down")})
			},
			want:  append(slices.Clone(well), "fail not-draining: shutting down"),
			class: flow.Cut,
			hint:  "until the check passes",
		},
		{
			name: "check_with_a_class_of_its_own",
			change: func(r *status.Replica) {
				err := &flow.Error{Class: flow.Refused, Op: "dial", Hint: "start the database", Err: errors.New("refused")}
				r.Checks = append(r.Checks, status.Check{Name: "probe db:5432", Err: err})
			},
			want:  append(slices.Clone(well), "fail probe db:5432: refused"),
			class: flow.Refused,
			hint:  "start the database",
		},
		{
			name: "first_failure_decides",
			change: func(r *status.Replica) {
				r.Peers[0].Online = false
				*r.Tailnet.ClockAhead = 300
			},
			want: slices.Concat(well[:route], []string{"warn route: router, subnet router…", "fail route: the subnet router for 10.12.0.0/16 is offline",
				well[dns], "fail clock: this machine's clock is 5m0s behind the control server's"}),
			class: flow.Unreachable,
			hint:  "the subnet router runs",
		},
	} {
		replica := healthy(now)
		if tc.change != nil {
			tc.change(&replica)
		}
		if tc.checks == nil {
			tc.checks = zones
		}
		e := &Explainer{
			Resolver:     fakeResolver{checks: tc.checks},
			AcceptRoutes: !tc.routesOff,
			Status:       func(int) status.Replica { return replica },
		}
		x := e.Explain(t.Context(), status.ExplainRequest{})
		wantLines(t, tc.name, lines(x), tc.want)
		wantFailure(t, tc.name, x, tc.class, tc.hint)
		if x.Device != replica.Tailnet.Name || x.Target != "" {
			t.Errorf("%s: device = %q, target = %q; want %q and none", tc.name, x.Device, x.Target, replica.Tailnet.Name)
		}
	}
}
