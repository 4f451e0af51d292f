package explain

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

// explainer returns an Explainer whose road is probe, and which lets every
// client in.
func explainer(probe func(*flow.Record, *datapath.Trace) (net.Conn, error)) *Explainer {
	return &Explainer{
		Road:         fakeRoad{probe: probe},
		Resolver:     fakeResolver{},
		Admits:       func(netip.Addr) error { return nil },
		Carrier:      func(netip.Addr) (status.Carrier, bool) { return status.Carrier{}, false },
		AcceptRoutes: true,
		Status:       func(int) status.Replica { return status.Replica{} },
	}
}

// TestTarget checks which targets are valid, and what is asked of the road.
func TestTarget(t *testing.T) {
	errEnd := &flow.Error{Class: flow.NotFound, Op: "test"}
	for _, tc := range []struct {
		name    string
		request status.ExplainRequest
		target  string // as the road gets it; empty if it gets none
		front   flow.Front
		says    string // of the failure, if the road gets nothing
		hint    string
	}{
		{"host_port", status.ExplainRequest{Target: "db.corp.example:5432"}, "db.corp.example:5432", flow.Connect, "", ""},
		{"ipv6", status.ExplainRequest{Target: "[2001:db8::1]:80"}, "[2001:db8::1]:80", flow.Connect, "", ""},
		{"http", status.ExplainRequest{Target: "http://api.corp.example/x"}, "api.corp.example:80", flow.HTTP, "", ""},
		{"https", status.ExplainRequest{Target: "https://api.corp.example/x"}, "api.corp.example:443", flow.Connect, "", ""},
		{"port_in_a_url", status.ExplainRequest{Target: "https://api.corp.example:8443/"}, "api.corp.example:8443", flow.Connect, "", ""},
		{"other_scheme", status.ExplainRequest{Target: "ftp://api.corp.example/"}, "", "", `fail target: unknown scheme "ftp"`, "write http://"},
		{"white_space", status.ExplainRequest{Target: "http://api.corp.example/a b"}, "", "", "fail target: the target contains white space", "write a URL such as"},
		{"no_port", status.ExplainRequest{Target: "api.corp.example"}, "", "", "fail target: address api.corp.example: missing port in address", "write a URL such as"},
		{"one_slash", status.ExplainRequest{Target: "a/b:1"}, "", "", "fail target: the target is neither of them", "write a URL such as"},
		{"not_a_url", status.ExplainRequest{Target: "http://[::1"}, "", "", "fail target: parse…", "write a URL such as"},
		{"port_zero", status.ExplainRequest{Target: "db:0"}, "", "", `fail target: invalid port "0"`, "from 1 to 65535"},
		{"port_too_large", status.ExplainRequest{Target: "db:65536"}, "", "", `fail target: invalid port "65536"`, "from 1 to 65535"},
		{"bad_client", status.ExplainRequest{Target: "db:1", Client: "me"}, "", "", "fail target: ParseAddr…", "write the client's address"},
		{"bad_authorities", status.ExplainRequest{Target: "db:1", CA: "junk"}, "", "", "fail target: the CA contains no certificate", "authorities in PEM"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got *flow.Record
			e := explainer(func(rec *flow.Record, _ *datapath.Trace) (net.Conn, error) {
				got = rec
				return nil, errEnd
			})
			x := e.Explain(t.Context(), tc.request)
			if tc.target == "" {
				wantLines(t, tc.name, lines(x), []string{tc.says})
				wantFailure(t, tc.name, x, flow.BadRequest, tc.hint)
				return
			}
			if got == nil {
				t.Fatalf("the road got nothing, want %s: %q", tc.target, lines(x))
			}
			if got.Target() != tc.target || got.Front != tc.front {
				t.Errorf("the road got %s as %s, want %s as %s", got.Target(), got.Front, tc.target, tc.front)
			}
			if x.Flow == nil || x.Flow.Target() != tc.target || x.Client != "127.0.0.1" {
				t.Errorf("flow = %+v for the client %s, want the target %s for 127.0.0.1", x.Flow, x.Client, tc.target)
			}
		})
	}
}

// TestPasswordsAreNotShown checks that the explanation of a URL with a password
// does not contain it.
func TestPasswordsAreNotShown(t *testing.T) {
	e := explainer(func(*flow.Record, *datapath.Trace) (net.Conn, error) { return nil, &flow.Error{Class: flow.NotFound} })
	x := e.Explain(t.Context(), status.ExplainRequest{Target: "http://bob:secret@api.corp.example/"})
	if want := "http://bob:xxxxx@api.corp.example/"; x.Target != want {
		t.Errorf("target = %q, want %q", x.Target, want)
	}
}

// TestAdmission checks what is said at the proxy port.
func TestAdmission(t *testing.T) {
	client := "10.244.1.7"
	full := &flow.Error{Class: flow.Overloaded, Op: "limit", Hint: "raise limits.connections", Err: errors.New("too many connections")}
	for _, tc := range []struct {
		name     string
		admits   error
		password bool // whether clients need one
		user     string
		want     string
		class    flow.Class
		hint     string
	}{
		{"let_in", nil, false, "", "ok port: a client at 10.244.1.7 is let in", flow.OK, ""},
		{"turned_away", full, false, "", "fail port: too many connections", flow.Overloaded, "raise limits.connections"},
		{"password_not_given", nil, true, "", "warn port: clients must send a user and a password (auth.usersFile); give one with --user to test it", flow.OK, ""},
		{"right_password", nil, true, "ann:horse", "ok port: a client at 10.244.1.7 is let in", flow.OK, ""},
		{"wrong_password", nil, true, "ann:zebra", "fail port: wrong password for user ann", flow.Unauthenticated, "not in auth.usersFile"},
		{"password_not_needed", nil, false, "ann:zebra", "ok port: a client at 10.244.1.7 is let in", flow.OK, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			taken := false
			e := explainer(func(rec *flow.Record, trace *datapath.Trace) (net.Conn, error) {
				taken = true
				return nil, &flow.Error{Class: flow.NotFound, Op: "test", Hint: "further on"}
			})
			e.Admits = func(c netip.Addr) error {
				if c.String() != client {
					t.Errorf("Admits(%v), want %s", c, client)
				}
				return tc.admits
			}
			if tc.password {
				e.Password = func(user, password string) bool { return user == "ann" && password == "horse" }
			}
			x := e.Explain(t.Context(), status.ExplainRequest{Target: "db:5432", Client: client, User: tc.user})
			if got := stage(x.Stages[0]); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if taken != (tc.class == flow.OK) {
				t.Errorf("the request took the road: %v, want %v", taken, tc.class == flow.OK)
			}
			if tc.class != flow.OK {
				wantFailure(t, tc.name, x, tc.class, tc.hint)
			}
		})
	}
}

// TestRoad checks what is said of each stage of the road, and where it ends.
func TestRoad(t *testing.T) {
	a := netip.MustParseAddr("10.12.3.4")
	b := netip.MustParseAddr("10.12.3.5")
	passes := &policy.Verdict{}
	ruled := &policy.Verdict{Rule: "dbs"}
	deny := policy.Verdict{Deny: true, Reason: policy.ByRule, Rule: "no-dbs"}
	forbidden := policy.Verdict{Deny: true, Reason: policy.Forbidden}
	notRouted := policy.Verdict{Deny: true, Reason: policy.NotRouted}
	tailnet := policy.Verdict{Tailnet: true}
	answer := &resolve.Answer{Addrs: []netip.Addr{a}, Source: "zone corp.example", TTL: 30 * time.Second}
	cached := &resolve.Answer{Addrs: []netip.Addr{a}, Source: "zone corp.example", Cached: true}
	fail := func(class flow.Class, text string) error {
		return &flow.Error{Class: class, Op: "test", Hint: "hint of " + text, Err: errors.New(text)}
	}
	carrier := status.NewCarrier(a, netip.MustParsePrefix("10.12.0.0/16"), status.Peer{Name: "router", Online: true, Path: "relay fra"})
	offline := carrier
	offline.Online = false
	const letIn = "ok port: a client at 127.0.0.1 is let in"
	const name = "ok policy (name): no rule denies the name before its address is known"
	const resolved = "ok resolve: 10.12.3.4 from zone corp.example, valid for 30s"
	const allowed = "ok policy (address): 10.12.3.4: no rule matches, so it is allowed"
	const routed = "ok route: 10.12.3.4: router, subnet router of 10.12.0.0/16, relay fra, no handshake yet"
	for _, tc := range []struct {
		name     string
		trace    datapath.Trace
		dialled  bool // whether the road got as far as an address
		err      error
		mode     policy.Mode
		resolver fakeResolver
		carrier  *status.Carrier
		off      bool // tailnet.acceptRoutes
		want     []string
		class    flow.Class
		hint     string
	}{
		{
			name:  "not_a_host",
			err:   fail(flow.BadRequest, "bad host"),
			want:  []string{letIn, "fail target: bad host"},
			class: flow.BadRequest,
			hint:  "hint of bad host",
		},
		{
			name:  "name_denied",
			trace: datapath.Trace{Name: &deny},
			err:   fail(flow.Denied, "denied by rule no-dbs"),
			want:  []string{letIn, "fail policy (name): denied by rule no-dbs"},
			class: flow.Denied,
			hint:  "hint of denied",
		},
		{
			name:  "tailnet_not_up",
			trace: datapath.Trace{Name: passes},
			err:   fail(flow.NotReady, "not up"),
			want:  []string{letIn, name, "fail tailnet: not up"},
			class: flow.NotReady,
			hint:  "hint of not up",
		},
		{
			name:     "name_not_found",
			trace:    datapath.Trace{Name: passes, Answer: &resolve.Answer{Source: "base"}},
			err:      fail(flow.NotFound, "no such name"),
			resolver: fakeResolver{steps: []resolve.Step{{Source: "hosts", Name: "db", Says: "no entry"}}, err: fail(flow.NotFound, "no such name")},
			want:     []string{letIn, name, "fail resolve: no such name", "  hosts: no entry (db)"},
			class:    flow.NotFound,
			hint:     "hint of no such name",
		},
		{
			name:     "failure_is_cached_and_over",
			trace:    datapath.Trace{Name: passes, Answer: &resolve.Answer{Source: "base", Cached: true}},
			err:      fail(flow.NotFound, "no such name"),
			resolver: fakeResolver{answer: *answer},
			want:     []string{letIn, name, "fail resolve: no such name", "  clients still get a cached answer; it will change to 10.12.3.4 shortly"},
			class:    flow.NotFound,
			hint:     "hint of no such name",
		},
		{
			name:    "connected",
			trace:   datapath.Trace{Name: ruled, Answer: answer, Addrs: []datapath.Judged{{Addr: a, Verdict: tailnet}}},
			dialled: true,
			carrier: &carrier,
			want:    []string{letIn, "ok policy (name): rule dbs allows it", resolved, allowed, routed, "ok connect: 10.12.3.4:5432 answered"},
		},
		{
			name:    "directly",
			trace:   datapath.Trace{Name: passes, Answer: answer, Addrs: []datapath.Judged{{Addr: a}}},
			dialled: true,
			want:    []string{letIn, name, resolved, allowed, "ok route: 10.12.3.4 is dialled directly, through the pod's own network", "ok connect: 10.12.3.4:5432 answered"},
		},
		{
			name:     "cached_answer_is_still_true",
			trace:    datapath.Trace{Name: passes, Answer: cached, Addrs: []datapath.Judged{{Addr: a}}},
			dialled:  true,
			resolver: fakeResolver{answer: *answer},
			want: []string{letIn, name, "ok resolve: 10.12.3.4 from zone corp.example, cached", allowed,
				"ok route: 10.12.3.4 is dialled directly, through the pod's own network", "ok connect: 10.12.3.4:5432 answered"},
		},
		{
			name:     "cached_answer_will_change",
			trace:    datapath.Trace{Name: passes, Answer: cached, Addrs: []datapath.Judged{{Addr: a}}},
			dialled:  true,
			resolver: fakeResolver{answer: resolve.Answer{Addrs: []netip.Addr{b}}},
			want: []string{letIn, name, "ok resolve: 10.12.3.4 from zone corp.example, cached", "  the source now answers 10.12.3.5", allowed,
				"ok route: 10.12.3.4 is dialled directly, through the pod's own network", "ok connect: 10.12.3.4:5432 answered"},
		},
		{
			name:     "source_of_cached_answer_fails",
			trace:    datapath.Trace{Name: passes, Answer: cached, Addrs: []datapath.Judged{{Addr: a}}},
			dialled:  true,
			resolver: fakeResolver{err: errors.New("timed out")},
			want: []string{letIn, name, "warn resolve: 10.12.3.4 from zone corp.example, cached", "  the source now fails: timed out", allowed,
				"ok route: 10.12.3.4 is dialled directly, through the pod's own network", "ok connect: 10.12.3.4:5432 answered"},
		},
		{
			name:  "all_addresses_denied",
			trace: datapath.Trace{Name: passes, Answer: answer, Addrs: []datapath.Judged{{Addr: a, Verdict: deny}, {Addr: b, Verdict: forbidden}}},
			err:   fail(flow.Denied, "denied by rule no-dbs"),
			want: []string{letIn, name, resolved, "fail policy (address): 10.12.3.4: denied: rule no-dbs denies it",
				"fail policy (address): 10.12.3.5: denied: the address is never reachable through a proxy"},
			class: flow.Denied,
			hint:  "hint of denied",
		},
		{
			name:    "one_address_denied",
			trace:   datapath.Trace{Name: passes, Answer: answer, Addrs: []datapath.Judged{{Addr: b, Verdict: deny}, {Addr: a, Verdict: tailnet}}},
			dialled: true,
			carrier: &carrier,
			want: []string{letIn, name, resolved, "warn policy (address): 10.12.3.5: denied: rule no-dbs denies it", allowed, routed,
				"ok connect: 10.12.3.4:5432 answered"},
		},
		{
			name:  "no_route",
			trace: datapath.Trace{Name: passes, Answer: answer, Addrs: []datapath.Judged{{Addr: a, Verdict: notRouted}}},
			err:   fail(flow.NoRoute, "no peer routes it"),
			want: []string{letIn, name, resolved,
				"fail policy (address): 10.12.3.4: denied: no peer of the tailnet routes it, and policy.direct does not allow a direct connection"},
			class: flow.NoRoute,
			hint:  "hint of no peer",
		},
		{
			name:  "no_route_because_routes_are_off",
			trace: datapath.Trace{Name: passes, Answer: answer, Addrs: []datapath.Judged{{Addr: a, Verdict: notRouted}}},
			err:   fail(flow.NoRoute, "no peer routes it"),
			off:   true,
			want: []string{letIn, name, resolved,
				"fail policy (address): 10.12.3.4: denied: no peer of the tailnet routes it, and policy.direct does not allow a direct connection"},
			class: flow.NoRoute,
			hint:  "tailnet.acceptRoutes is off",
		},
		{
			name:    "report_mode",
			trace:   datapath.Trace{Name: &deny, Answer: answer, Addrs: []datapath.Judged{{Addr: a, Verdict: deny}}},
			dialled: true,
			mode:    policy.Report,
			want: []string{letIn, "warn policy (name): rule no-dbs denies it: allowed only because policy.mode is report", resolved,
				"warn policy (address): 10.12.3.4: rule no-dbs denies it: allowed only because policy.mode is report",
				"ok route: 10.12.3.4 is dialled directly, through the pod's own network", "ok connect: 10.12.3.4:5432 answered"},
		},
		{
			name:  "denied_alias",
			trace: datapath.Trace{Name: passes, Answer: &resolve.Answer{}, Aliases: []datapath.JudgedAlias{{Name: "secret", Verdict: deny}}},
			err:   fail(flow.Denied, "denied by rule no-dbs, which matches the alias secret"),
			want:  []string{letIn, name, "fail policy (alias): denied by rule no-dbs, which matches the alias secret"},
			class: flow.Denied,
			hint:  "hint of denied by rule",
		},
		{
			name:    "reported_alias",
			trace:   datapath.Trace{Name: passes, Answer: answer, Aliases: []datapath.JudgedAlias{{Name: "secret", Verdict: deny}, {Name: "other"}}, Addrs: []datapath.Judged{{Addr: a, Verdict: tailnet}}},
			dialled: true,
			mode:    policy.Report,
			carrier: &carrier,
			want: []string{letIn, name, "warn policy (alias): secret: rule no-dbs denies it: allowed only because policy.mode is report",
				"ok policy (alias): other: no rule denies this alias before its address is known", resolved, allowed, routed, "ok connect: 10.12.3.4:5432 answered"},
		},
		{
			name:    "refused",
			trace:   datapath.Trace{Name: passes, Answer: answer, Addrs: []datapath.Judged{{Addr: a, Verdict: tailnet}}},
			dialled: true,
			err:     fail(flow.Refused, "connection refused"),
			carrier: &carrier,
			want:    []string{letIn, name, resolved, allowed, routed, "fail connect: connection refused"},
			class:   flow.Refused,
			hint:    "hint of connection refused",
		},
		{
			name:    "carrier_offline",
			trace:   datapath.Trace{Name: passes, Answer: answer, Addrs: []datapath.Judged{{Addr: a, Verdict: tailnet}}},
			dialled: true,
			err:     fail(flow.Timeout, "timed out"),
			carrier: &offline,
			want: []string{letIn, name, resolved, allowed,
				"warn route: 10.12.3.4: router, subnet router of 10.12.0.0/16, OFFLINE according to the control server, relay fra, no handshake yet",
				"fail connect: timed out"},
			class: flow.Timeout,
			hint:  "hint of timed out",
		},
		{
			name:    "route_disappeared",
			trace:   datapath.Trace{Name: passes, Answer: answer, Addrs: []datapath.Judged{{Addr: a, Verdict: tailnet}}},
			dialled: true,
			err:     fail(flow.Timeout, "timed out"),
			want:    []string{letIn, name, resolved, allowed, "warn route: 10.12.3.4: its route disappeared a moment ago", "fail connect: timed out"},
			class:   flow.Timeout,
			hint:    "hint of timed out",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := explainer(nil)
			e.Resolver = tc.resolver
			e.AcceptRoutes = !tc.off
			e.Road = fakeRoad{mode: tc.mode, probe: func(rec *flow.Record, trace *datapath.Trace) (net.Conn, error) {
				*trace = tc.trace
				if tc.dialled {
					rec.Addr = netip.AddrPortFrom(a, rec.Port)
				}
				if tc.err != nil {
					return nil, tc.err
				}
				client, target := net.Pipe()
				t.Cleanup(func() { target.Close() })
				return client, nil
			}}
			if tc.carrier != nil {
				e.Carrier = func(netip.Addr) (status.Carrier, bool) { return *tc.carrier, true }
			}
			x := e.Explain(t.Context(), status.ExplainRequest{Target: "db.corp.example:5432"})
			wantLines(t, tc.name, lines(x), tc.want)
			wantFailure(t, tc.name, x, tc.class, tc.hint)
			if (len(x.Carriers) == 1) != (tc.carrier != nil) {
				t.Errorf("carriers = %v, want one: %v", x.Carriers, tc.carrier != nil)
			}
			if !errors.Is(x.Flow.Err, tc.err) {
				t.Errorf("the flow's error = %v, want %v", x.Flow.Err, tc.err)
			}
		})
	}
}
