package testkit

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

// ServeConns calls serve for each connection to a port on loopback, until the test
// ends, and then waits for the calls. It returns the port.
func ServeConns(t testing.TB, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			all.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// Road is what lies behind an HTTP front under test: it leads every flow to the
// server at its address, whatever the target is. Its tunnels end at once. It keeps
// what the front passes to Serving and to Finish.
type Road struct {
	Addr netip.AddrPort

	mu       sync.Mutex
	ends     []func(error)
	finished []*flow.Record
}

// Connect dials the server.
func (r *Road) Connect(ctx context.Context, rec *flow.Record) (net.Conn, error) {
	return r.Dial(ctx, rec, nil)
}

// Judge allows every target.
func (r *Road) Judge(context.Context, *flow.Record) ([]flow.Target, error) {
	return []flow.Target{{Addr: r.Addr}}, nil
}

// Dial dials the server.
func (r *Road) Dial(ctx context.Context, rec *flow.Record, _ []flow.Target) (net.Conn, error) {
	rec.Addr = r.Addr
	return (&net.Dialer{}).DialContext(ctx, "tcp", r.Addr.String())
}

// Serving keeps end.
func (r *Road) Serving(_ *flow.Record, end func(error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends = append(r.ends, end)
}

// Tunnel closes both connections and finishes the flow.
func (r *Road) Tunnel(rec *flow.Record, p flow.Pair) {
	p.Client.Close()
	p.Target.Close()
	r.Finish(rec)
}

// Finish keeps rec.
func (r *Road) Finish(rec *flow.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finished = append(r.finished, rec)
}

// Finished returns the records of the flows that have ended.
func (r *Road) Finished() []*flow.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.finished)
}

// Ends returns what Serving got for each request.
func (r *Road) Ends() []func(error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ends)
}

// AwaitFinished waits until n flows have ended, and returns the record of the last
// one.
func (r *Road) AwaitFinished(t testing.TB, n int) *flow.Record {
	t.Helper()
	var all []*flow.Record
	Eventually(t, "the flows to end", func() bool {
		all = r.Finished()
		return len(all) == n
	})
	return all[n-1]
}
