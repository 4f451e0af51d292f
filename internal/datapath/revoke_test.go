package datapath

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// deniesAll denies the test's target by name.
var deniesAll = policy.Policy{Rules: []policy.Rule{{Name: "closed", Names: []string{"api.corp.example"}}}}

// tunnel opens a tunnel to api.corp.example. change, which may be nil, runs once the
// flow has been judged.
func tunnel(t *testing.T, r *Road, change func()) (client net.Conn, rec *flow.Record) {
	t.Helper()
	rec = record("api.corp.example")
	client, server := testkit.TCPPair(t)
	target, err := r.Connect(t.Context(), rec)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change()
	}
	if err := r.Limit.Enter(rec.Client.Addr()); err != nil {
		t.Fatal(err)
	}
	r.Tunnel(rec, flow.Pair{Client: server, Target: target})
	return client, rec
}

// TestRevoke checks which tunnels a change of the policy ends.
func TestRevoke(t *testing.T) {
	direct := policy.Policy{Direct: policy.DirectAny}
	for _, tc := range []struct {
		name        string
		before, now policy.Policy
		addr        string
		ends        bool
		words       string // in the error
	}{
		{name: "denied_by_name", now: deniesAll, ends: true, words: "rule closed"},
		{name: "denied_by_prefix", now: policy.Policy{Rules: []policy.Rule{{Name: "net", Prefixes: prefixes("10.0.0.0/8")}}}, ends: true, words: "rule net"},
		{name: "denied_by_default", now: policy.Policy{Default: policy.Deny}, ends: true, words: "policy.default"},
		{name: "direct_closed", before: direct, addr: "192.0.2.1", ends: true, words: "policy.direct"},
		{name: "still_allowed", now: policy.Policy{Rules: []policy.Rule{{Ports: []policy.PortRange{{First: 22, Last: 22}}}}}},
		{name: "report", now: policy.Policy{Mode: policy.Report, Rules: deniesAll.Rules}},
		{name: "keep_open", now: policy.Policy{KeepOpen: true, Rules: deniesAll.Rules}},
		{name: "reported_before", before: policy.Policy{Mode: policy.Report, Rules: deniesAll.Rules}, now: deniesAll, ends: true, words: "rule closed"},
	} {
		for when, late := range map[string]bool{"live": false, "not_a_tunnel_yet": true} {
			t.Run(tc.name+"/"+when, func(t *testing.T) {
				addr := tc.addr
				if addr == "" {
					addr = "10.0.0.1"
				}
				o := &outside{addrs: map[string][]string{"api.corp.example": {addr}}}
				r := newRoad(t, o, tc.before)
				change := func() { r.SetPolicy(&tc.now) }
				var client net.Conn
				var rec *flow.Record
				if late {
					client, rec = tunnel(t, r, change)
				} else {
					client, rec = tunnel(t, r, nil)
					if n := r.SetPolicy(&tc.now); (n == 1) != tc.ends {
						t.Errorf("SetPolicy = %d, want 1 tunnel ended: %v", n, tc.ends)
					}
				}
				if !tc.ends {
					client.(*net.TCPConn).CloseWrite()
				}
				io.Copy(io.Discard, client)
				client.Close()
				if err := r.Relay.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !tc.ends {
					if rec.Err != nil {
						t.Errorf("the tunnel ended with %v, want no error", rec.Err)
					}
					return
				}
				if flow.ClassOf(rec.Err) != flow.Denied || !strings.Contains(rec.Err.Error(), tc.words) || !strings.Contains(flow.HintOf(rec.Err), "has changed") {
					t.Errorf("the tunnel ended with %v, want denied, and %q", rec.Err, tc.words)
				}
			})
		}
	}
}

// TestRevokeExchange checks that a change of the policy ends a plain-HTTP request in
// progress, before and after the head of its response, and only once.
func TestRevokeExchange(t *testing.T) {
	for name, head := range map[string]string{"before_the_head": "", "in_the_body": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"} {
		t.Run(name, func(t *testing.T) {
			o := &outside{addrs: map[string][]string{"api.corp.example": {"10.0.0.1"}}}
			r := newRoad(t, o, policy.Policy{})
			origins := make(chan net.Conn, 1)
			r.Dialer.Tailnet = func(context.Context, netip.AddrPort) (net.Conn, error) {
				near, far := testkit.TCPPair(t)
				origins <- far
				return near, nil
			}
			finished := make(chan *flow.Record, 1)
			r.Finished = func(rec *flow.Record) { finished <- rec }
			client, server := testkit.TCPPair(t)
			served := make(chan struct{})
			go func() { // ends with the client's connection
				defer close(served)
				(&httpproxy.Proxy{Road: r}).Serve(t.Context(), server)
			}()
			io.WriteString(client, "GET http://api.corp.example/ HTTP/1.1\r\nHost: api.corp.example\r\n\r\n")
			origin := <-origins
			if _, err := http.ReadRequest(bufio.NewReader(origin)); err != nil {
				t.Fatal(err)
			}
			io.WriteString(origin, head)
			if _, err := io.ReadFull(client, make([]byte, min(len(head), 12))); err != nil {
				t.Fatal(err)
			}
			if n := r.SetPolicy(&deniesAll); n != 1 {
				t.Errorf("SetPolicy = %d, want one request ended", n)
			}
			if _, err := io.Copy(io.Discard, client); err == nil {
				t.Error("the client's connection ended well, want a reset")
			}
			<-served
			rec := <-finished
			if flow.ClassOf(rec.Err) != flow.Denied || !strings.Contains(rec.Err.Error(), "rule closed") {
				t.Errorf("the request ended with %v, want denied by rule closed", rec.Err)
			}
			if _, err := origin.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the origin's connection: %v, want its end", err)
			}
			if n := r.SetPolicy(&policy.Policy{Default: policy.Deny}); n != 0 {
				t.Errorf("SetPolicy = %d after the request, want 0", n)
			}
		})
	}
}
