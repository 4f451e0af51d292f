package httpproxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// testRoad leads every request to the server at its address, whatever its target
// is. It keeps the records of the flows that have ended.
type testRoad struct {
	addr netip.AddrPort

	mu       sync.Mutex
	finished []*flow.Record
}

func (r *testRoad) Connect(ctx context.Context, rec *flow.Record) (net.Conn, error) {
	return r.Dial(ctx, rec, nil)
}

func (r *testRoad) Judge(context.Context, *flow.Record) ([]flow.Target, error) {
	return []flow.Target{{Addr: r.addr}}, nil
}

func (r *testRoad) Dial(ctx context.Context, rec *flow.Record, _ []flow.Target) (net.Conn, error) {
	rec.Addr = r.addr
	return (&net.Dialer{}).DialContext(ctx, "tcp", r.addr.String())
}

func (r *testRoad) Serving(*flow.Record, func(error)) {}

func (r *testRoad) Tunnel(rec *flow.Record, p flow.Pair) {
	p.Client.Close()
	p.Target.Close()
	r.Finish(rec)
}

func (r *testRoad) Finish(rec *flow.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finished = append(r.finished, rec)
}

// ended waits until n flows have ended, and returns the record of the last one.
func (r *testRoad) ended(t *testing.T, n int) *flow.Record {
	t.Helper()
	var rec *flow.Record
	testkit.Eventually(t, "the flows to end", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.finished) == n {
			rec = r.finished[n-1]
		}
		return rec != nil
	})
	return rec
}

// serveConns calls serve for each connection to a port on loopback, until the
// test ends. It returns the port.
func serveConns(t *testing.T, serve func(*net.TCPConn)) netip.AddrPort {
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

// testProxy is a proxy on loopback. Its address stands for each of its clients.
type testProxy struct {
	*Proxy
	road *testRoad
	addr netip.AddrPort
}

// startProxy serves a proxy whose origin is at the address origin. edit may
// change the proxy; nil leaves it as it is.
func startProxy(t *testing.T, origin netip.AddrPort, edit func(*Proxy)) testProxy {
	t.Helper()
	road := &testRoad{addr: origin}
	p := &Proxy{Road: road}
	if edit != nil {
		edit(p)
	}
	addr := serveConns(t, func(c *net.TCPConn) { p.Serve(t.Context(), c) })
	t.Cleanup(func() {
		p.Cut()
		p.Close()
	})
	return testProxy{p, road, addr}
}

// testClient is a connection to a proxy.
type testClient struct {
	*net.TCPConn
	br *bufio.Reader
}

// client connects to the proxy from an address of loopback, such as 127.0.0.2.
func (p testProxy) client(t *testing.T, from string) testClient {
	t.Helper()
	local := &net.TCPAddr{IP: net.ParseIP(from)}
	c, err := net.DialTCP("tcp", local, net.TCPAddrFromAddrPort(p.addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return testClient{c, bufio.NewReader(c)}
}

// ask sends a request and returns the status and the body of the response.
func (c testClient) ask(t *testing.T, request string) (int, string) {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	var resp *http.Response
	for resp == nil || resp.StatusCode < 200 {
		var err error
		resp, err = http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatalf("%q: no response: %v", request, err)
		}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%q: the body of the response: %v", request, err)
	}
	return resp.StatusCode, string(body)
}
