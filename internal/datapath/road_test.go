package datapath

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/relay"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// outside is what surrounds the road in these tests: a tailnet that routes
// 10.0.0.0/8, its DNS for corp.example, and targets. It records what the road
// does.
type outside struct {
	addrs    map[string][]string // the addresses of names
	rebound  map[string][]string // their addresses from the second lookup on
	silent   bool                // targets do not answer
	panics   bool                // its DNS panics
	notReady error

	mu       sync.Mutex
	lookups  []string // names, one entry for each lookup
	dialled  []string // such as "tailnet 10.0.0.1:443", in order
	finished []*flow.Record
}

// newRoad returns a road that leads to o. Its rules are p's.
func newRoad(t *testing.T, o *outside, p policy.Policy) *Road {
	t.Helper()
	r := &Road{
		Ready: func(context.Context) error { return o.notReady },
		Resolver: resolve.New(resolve.Options{
			Tailnet: func() (resolve.TailnetDNS, bool) {
				return resolve.TailnetDNS{Magic: true, MagicSuffix: "corp.example", Search: []string{"corp.example"}}, true
			},
			QueryMagic: o.answer,
			HostsFile:  os.DevNull,
			ResolvConf: os.DevNull,
		}),
		Routes: func(_ context.Context, addrs []netip.Addr) []bool {
			routed := make([]bool, len(addrs))
			for i, a := range addrs {
				routed[i] = netip.MustParsePrefix("10.0.0.0/8").Contains(a)
			}
			return routed
		},
		Dialer: &dial.Dialer{
			Tailnet: func(_ context.Context, a netip.AddrPort) (net.Conn, error) { return o.dial(t, "tailnet", a) },
			Direct:  func(_ context.Context, a netip.AddrPort) (net.Conn, error) { return o.dial(t, "direct", a) },
		},
		Relay:       &relay.Relay{},
		Limit:       &limit.Gate{},
		CarrierText: func(a netip.Addr) string { return "carrier of " + a.String() },
		Finished:    o.finish,
	}
	r.SetPolicy(&p)
	return r
}

// answer answers a query for MagicDNS. No name has an IPv6 address.
func (o *outside) answer(_ context.Context, wire []byte) ([]byte, error) {
	if o.panics {
		panic("boom in DNS")
	}
	q := new(dns.Msg)
	if err := q.Unpack(wire); err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(q.Question[0].Name, ".")
	o.mu.Lock()
	defer o.mu.Unlock()
	addrs, exists := o.addrs[name]
	if again := o.rebound[name]; again != nil && slices.Contains(o.lookups, name) {
		addrs = again
	}
	m := new(dns.Msg).SetReply(q)
	if !exists {
		m.Rcode = dns.RcodeNameError
	}
	if q.Question[0].Qtype == dns.TypeA {
		o.lookups = append(o.lookups, name)
		for _, a := range addrs {
			h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.ParseIP(a)})
		}
	}
	return m.Pack()
}

// dial records a dial, and returns a connection whose other end echoes.
func (o *outside) dial(t *testing.T, path string, a netip.AddrPort) (net.Conn, error) {
	o.mu.Lock()
	o.dialled = append(o.dialled, path+" "+a.String())
	o.mu.Unlock()
	if o.silent {
		return nil, syscall.ETIMEDOUT
	}
	conn, target := testkit.TCPPair(t)
	go func() { // ends when conn is closed
		io.Copy(target, target)
		target.Close()
	}()
	return conn, nil
}

func (o *outside) finish(rec *flow.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finished = append(o.finished, rec)
}

// seen returns copies of what o has recorded.
func (o *outside) seen() (lookups, dialled []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.lookups), slices.Clone(o.dialled)
}

// record returns the record of a flow to host:443.
func record(host string) *flow.Record {
	rec := flow.NewRecord(flow.Connect, netip.MustParseAddrPort("10.244.1.7:40000"))
	rec.Host = host
	rec.Port = 443
	return rec
}

// TestOrder checks the order of the stages: what is looked up and what is dialled
// for each host and policy.
func TestOrder(t *testing.T) {
	rules := func(rules ...policy.Rule) []policy.Rule { return rules }
	notReady := &flow.Error{Class: flow.NotReady, Op: "tailnet"}
	addrs := map[string][]string{
		"api.corp.example":   {"10.0.0.1"},
		"mixed.corp.example": {"127.0.0.1", "192.0.2.1", "10.0.0.2"},
		"local.corp.example": {"127.0.0.1", "169.254.169.254"},
		"web.corp.example":   {"192.0.2.1"},
	}
	for _, tc := range []struct {
		name, host string
		policy     policy.Policy
		notReady   error
		class      flow.Class
		lookups    []string
		dialled    []string
		report     string
	}{
		{name: "name", host: "api.corp.example", lookups: []string{"api.corp.example"}, dialled: []string{"tailnet 10.0.0.1:443"}},
		{name: "address", host: "10.0.0.1", dialled: []string{"tailnet 10.0.0.1:443"}},
		{name: "not_a_host", host: "10.300.0.1", class: flow.BadRequest},
		{name: "no_such_name", host: "none.corp.example", class: flow.NotFound, lookups: []string{"none.corp.example"}},

		{name: "denied_name_is_never_looked_up", host: "api.corp.example", policy: policy.Policy{Rules: rules(policy.Rule{Names: []string{"*.corp.example"}})}, class: flow.Denied},
		{name: "denied_name_in_capitals", host: "API.Corp.Example.", policy: policy.Policy{Rules: rules(policy.Rule{Names: []string{"api.corp.example"}})}, class: flow.Denied},
		{name: "denied_client", host: "api.corp.example", policy: policy.Policy{Rules: rules(policy.Rule{From: prefixes("10.244.0.0/16")})}, class: flow.Denied},
		{name: "denied_completed_name_is_not_dialled", host: "api", policy: policy.Policy{Rules: rules(policy.Rule{Names: []string{"api.corp.example"}})}, class: flow.Denied, lookups: []string{"api.corp.example"}},
		{name: "denied_name_while_not_ready", host: "api.corp.example", policy: policy.Policy{Rules: rules(policy.Rule{})}, notReady: notReady, class: flow.Denied},
		{name: "name_while_not_ready", host: "api.corp.example", notReady: notReady, class: flow.NotReady},
		{name: "address_while_not_ready", host: "192.0.2.1", policy: policy.Policy{Direct: policy.DirectAny}, notReady: notReady, class: flow.NotReady},

		{name: "denied_address", host: "api.corp.example", policy: policy.Policy{Rules: rules(policy.Rule{Prefixes: prefixes("10.0.0.0/8")})}, class: flow.Denied, lookups: []string{"api.corp.example"}},
		{name: "forbidden_addresses", host: "local.corp.example", policy: policy.Policy{Direct: policy.DirectAny}, class: flow.Denied, lookups: []string{"local.corp.example"}},
		{name: "forbidden_address_in_hex", host: "0x7f.1", policy: policy.Policy{Direct: policy.DirectAny}, class: flow.Denied},
		{name: "first_allowed_address", host: "mixed.corp.example", lookups: []string{"mixed.corp.example"}, dialled: []string{"tailnet 10.0.0.2:443"}},
		{name: "not_routed", host: "web.corp.example", class: flow.NoRoute, lookups: []string{"web.corp.example"}},
		{name: "directly", host: "web.corp.example", policy: policy.Policy{Direct: policy.DirectAny}, lookups: []string{"web.corp.example"}, dialled: []string{"direct 192.0.2.1:443"}},

		{name: "report_mode_by_name", host: "api.corp.example", policy: policy.Policy{Mode: policy.Report, Rules: rules(policy.Rule{Name: "none", Names: []string{"*.corp.example"}})},
			lookups: []string{"api.corp.example"}, dialled: []string{"tailnet 10.0.0.1:443"}, report: "rule none"},
		{name: "report_mode_by_address", host: "10.0.0.1", policy: policy.Policy{Mode: policy.Report, Rules: rules(policy.Rule{Prefixes: prefixes("10.0.0.0/8")})},
			dialled: []string{"tailnet 10.0.0.1:443"}, report: "rule #1"},
		{name: "report_mode_not_routed", host: "192.0.2.1", policy: policy.Policy{Mode: policy.Report}, class: flow.NoRoute},
		{name: "report_mode_allowed_but_not_routed", host: "192.0.2.1", policy: policy.Policy{Mode: policy.Report, Rules: rules(policy.Rule{Name: "web", Allow: true})}, class: flow.NoRoute},
		{name: "report_mode_denied_and_not_routed", host: "192.0.2.1", policy: policy.Policy{Mode: policy.Report, Rules: rules(policy.Rule{Prefixes: prefixes("192.0.2.0/24")})}, class: flow.NoRoute},
		{name: "report_mode_denied_name_not_routed", host: "web.corp.example", policy: policy.Policy{Mode: policy.Report, Rules: rules(policy.Rule{Name: "none"})},
			lookups: []string{"web.corp.example"}, class: flow.NoRoute, report: "rule none"},
		{name: "report_mode_direct_public", host: "192.0.2.1", policy: policy.Policy{Mode: policy.Report, Direct: policy.DirectPublic}, class: flow.NoRoute},
		{name: "report_mode_direct", host: "192.0.2.1", policy: policy.Policy{Mode: policy.Report, Direct: policy.DirectAny, Rules: rules(policy.Rule{Name: "none"})},
			dialled: []string{"direct 192.0.2.1:443"}, report: "rule none"},
		{name: "report_mode_forbidden", host: "127.0.0.1", policy: policy.Policy{Mode: policy.Report}, class: flow.Denied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := &outside{addrs: addrs, notReady: tc.notReady}
			rec := record(tc.host)
			conn, err := newRoad(t, o, tc.policy).Connect(t.Context(), rec)
			if conn != nil {
				conn.Close()
			}
			if got := flow.ClassOf(err); got != tc.class {
				t.Errorf("Connect to %s: %v, want class %s", tc.host, err, tc.class)
			}
			lookups, dialled := o.seen()
			if !slices.Equal(lookups, tc.lookups) {
				t.Errorf("looked up %q, want %q", lookups, tc.lookups)
			}
			if !slices.Equal(dialled, tc.dialled) {
				t.Errorf("dialled %q, want %q", dialled, tc.dialled)
			}
			if rec.Report != tc.report {
				t.Errorf("rec.Report = %q, want %q", rec.Report, tc.report)
			}
		})
	}
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// TestJudgedAddressIsDialled checks that a name which changes its address after
// the policy has judged it is not looked up again.
func TestJudgedAddressIsDialled(t *testing.T) {
	o := &outside{
		addrs:   map[string][]string{"api.corp.example": {"10.0.0.1"}},
		rebound: map[string][]string{"api.corp.example": {"127.0.0.1"}},
	}
	rec := record("api.corp.example")
	conn, err := newRoad(t, o, policy.Policy{}).Connect(t.Context(), rec)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	lookups, dialled := o.seen()
	if len(lookups) != 1 || !slices.Equal(dialled, []string{"tailnet 10.0.0.1:443"}) || rec.Addr.String() != "10.0.0.1:443" {
		t.Errorf("looked up %q, dialled %q, recorded %v, want one lookup and 10.0.0.1:443", lookups, dialled, rec.Addr)
	}
}

// TestProbe checks that a probe passes the same stages as a flow and fills in its
// trace, but is not counted as a flow.
func TestProbe(t *testing.T) {
	o := &outside{addrs: map[string][]string{"api.corp.example": {"127.0.0.1", "10.0.0.1"}}}
	r := newRoad(t, o, policy.Policy{})
	r.Limit.Set(limit.Limits{Dials: 1})
	if err := r.Limit.Dial(record("10.0.0.1").Client.Addr()); err != nil { // the only place is taken
		t.Fatal(err)
	}
	var trace Trace
	conn, err := r.Probe(t.Context(), record("api.corp.example"), &trace)
	if err != nil {
		t.Fatalf("Probe over the limit of dials: %v, want no error", err)
	}
	conn.Close()
	if trace.Name == nil || trace.Name.Deny {
		t.Errorf("trace.Name = %+v, want an allowing verdict", trace.Name)
	}
	if trace.Answer == nil || trace.Answer.Source != resolve.SourceMagicDNS || len(trace.Answer.Addrs) != 2 {
		t.Errorf("trace.Answer = %+v, want two addresses of MagicDNS", trace.Answer)
	}
	if len(trace.Addrs) != 2 || !trace.Addrs[0].Deny || trace.Addrs[1].Deny {
		t.Errorf("trace.Addrs = %+v, want one denial and one that passes", trace.Addrs)
	}
	if _, live := r.Flows(10); live != 0 || len(o.finished) != 0 {
		t.Errorf("%d flows are live and %d finished, want none", live, len(o.finished))
	}
	if _, err := r.Connect(t.Context(), record("api.corp.example")); flow.ClassOf(err) != flow.Overloaded {
		t.Errorf("Connect over the limit of dials: %v, want class overloaded", err)
	}
	trace = Trace{}
	r.SetPolicy(&policy.Policy{Rules: []policy.Rule{{}}})
	if _, err := r.Probe(t.Context(), record("api.corp.example"), &trace); err == nil || trace.Name == nil || trace.Answer != nil {
		t.Errorf("Probe of a denied name: %v with trace %+v, want an error and no answer", err, trace)
	}
}

// TestCarrierHint checks that a target that does not answer is reported with the
// peer that carries it, and that the error itself is not changed.
func TestCarrierHint(t *testing.T) {
	o := &outside{silent: true}
	r := newRoad(t, o, policy.Policy{Direct: policy.DirectAny})
	for host, want := range map[string]bool{"10.0.0.1": true, "192.0.2.1": false} {
		_, err := r.Connect(t.Context(), record(host))
		hint := flow.HintOf(err)
		if flow.ClassOf(err) != flow.Timeout || strings.Contains(err.Error(), "carrier of "+host) != want || strings.Contains(hint, host) {
			t.Errorf("Connect to silent %s: %v with hint %q, want class timeout, the carrier in the error: %v, and no address in the hint", host, err, hint, want)
		}
	}
	shared := &flow.Error{
		Class: flow.Timeout,
		Op:    "dial",
		Hint:  "once",
		Err:   errors.New("silent"),
	}
	rec := record("10.0.0.1")
	rec.Path = flow.Tailnet
	rec.Addr = netip.MustParseAddrPort("10.0.0.1:443")
	for range 2 {
		err := r.withCarrier(rec, shared)
		if got := err.Error(); got != "dial: timeout: silent; 10.0.0.1: carrier of 10.0.0.1" || flow.HintOf(err) != "once" || shared.Error() != "dial: timeout: silent" {
			t.Errorf("error %q of shared error %q, want the carrier once, and the shared error unchanged", got, shared)
		}
	}
}

// TestLiveFlows checks what the status shows of a tunnel while it exists.
func TestLiveFlows(t *testing.T) {
	o := &outside{addrs: map[string][]string{"api.corp.example": {"10.0.0.1"}}}
	r := newRoad(t, o, policy.Policy{})
	denied := record("10.0.0.9")
	denied.Front = flow.SOCKS5
	if _, err := r.Judge(t.Context(), denied); err != nil { // it is live before it is dialled
		t.Fatal(err)
	}
	rec := record("api.corp.example")
	rec.Start = rec.Start.Add(-time.Hour)
	client, server := testkit.TCPPair(t)
	target, err := r.Connect(t.Context(), rec)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Limit.Enter(rec.Client.Addr()); err != nil {
		t.Fatal(err)
	}
	r.Tunnel(rec, flow.Pair{Client: server, Target: target})
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if n := r.Active(); n["connect"] != 1 || n["socks5"] != 1 {
		t.Errorf("Active() = %v, want one of connect and of socks5", n)
	}
	list, total := r.Flows(1)
	if total != 2 || len(list) != 1 || list[0].Host != "api.corp.example" || list[0].Addr.String() != "10.0.0.1:443" || list[0].Up != 5 || list[0].Down != 5 || list[0].Total < time.Hour {
		t.Errorf("Flows(1) = %+v of %d, want the older of 2 with its address, its age and 5 bytes each way", list, total)
	}
	client.Close()
	if err := r.Relay.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Finish(denied)
	if _, total := r.Flows(1); total != 0 || len(o.finished) != 2 {
		t.Errorf("%d flows are live and %d finished, want 0 and 2", total, len(o.finished))
	}
	if rec.Up != 5 || rec.Down != 5 || rec.Err != nil || rec.Total < time.Hour {
		t.Errorf("the finished record says %d up, %d down, %v, after %v, want 5, 5, no error, an hour", rec.Up, rec.Down, rec.Err, rec.Total)
	}
	if n, _ := r.Limit.Connections(); n != 0 {
		t.Errorf("%d connections are counted after the tunnel, want 0", n)
	}
}

// TestCutCause checks which flows get the cause of a drain.
func TestCutCause(t *testing.T) {
	cut := &flow.Error{Class: flow.Cut, Op: "relay"}
	for _, tc := range []struct {
		name  string
		err   error
		class flow.Class
		op    string // of the error
	}{
		{"ended_well", nil, flow.OK, ""},
		{"failed", &flow.Error{Class: flow.Reset, Op: "relay"}, flow.Cut, "drain"},
		{"unknown_failure", errors.New("closed"), flow.Cut, "drain"},
		{"cut_already", cut, flow.Cut, "relay"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRoad(t, &outside{}, policy.Policy{})
			rec := record("10.0.0.1")
			rec.Err = tc.err
			r.Finish(rec)
			if !errors.Is(rec.Err, tc.err) {
				t.Errorf("before the drain: error %v, want %v", rec.Err, tc.err)
			}
			r.SetCutCause("the drain time is over")
			r.Finish(rec)
			op := ""
			if fe, ok := errors.AsType[*flow.Error](rec.Err); ok {
				op = fe.Op
			}
			if flow.ClassOf(rec.Err) != tc.class || op != tc.op {
				t.Errorf("after SetCutCause: error %v, want class %s of %q", rec.Err, tc.class, tc.op)
			}
		})
	}
}
