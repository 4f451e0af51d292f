package datapath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/forward"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/target"
	"github.com/pandoproxy/pando/internal/datapath/mux"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/sni"
	"github.com/pandoproxy/pando/internal/datapath/socks"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// panicConn is a connection to a target that panics on each read or write.
type panicConn struct {
	net.Conn
	read, write bool
}

func (c *panicConn) Read(b []byte) (int, error) {
	if c.read {
		panic("boom in Read")
	}
	return c.Conn.Read(b)
}

func (c *panicConn) Write(b []byte) (int, error) {
	if c.write {
		panic("boom in Write")
	}
	return c.Conn.Write(b)
}

func (c *panicConn) CloseWrite() error { return nil }

// TestPanicEndsOneFlow checks that a panic, in whatever goroutine of a flow, ends the
// flow with class internal, gives the client's place back and leaves the process
// alone, for every front.
func TestPanicEndsOneFlow(t *testing.T) {
	const host = "api.corp.example"
	for _, place := range []struct {
		name string
		edit func(t *testing.T, r *Road)
	}{
		{"policy", func(t *testing.T, r *Road) {
			r.Routes = func(context.Context, []netip.Addr) []bool { panic("boom in Routes") }
		}},
		{"resolver", nil}, // the names of outside are replaced below
		{"dial", func(t *testing.T, r *Road) {
			r.Dialer.Tailnet = func(context.Context, netip.AddrPort) (net.Conn, error) { panic("boom in dial") }
		}},
		{"read_from_target", func(t *testing.T, r *Road) { r.Dialer.Tailnet = panicking(t, panicConn{read: true}) }},
		{"write_to_target", func(t *testing.T, r *Road) { r.Dialer.Tailnet = panicking(t, panicConn{write: true}) }},
	} {
		for _, front := range []struct {
			name    string
			request string
		}{
			{"connect", "CONNECT " + host + ":443 HTTP/1.1\r\nHost: a\r\n\r\nhello"},
			{"http", "POST http://" + host + "/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"},
			{"http_upload", "POST http://" + host + "/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n" + string(make([]byte, 8999))},
			{"web", "GET / HTTP/1.1\r\nConnection: close\r\nHost: " + host + "\r\n\r\n"},
			{"socks5", "\x05\x01\x00\x05\x01\x00\x03" + string([]byte{byte(len(host))}) + host + "\x01\xbbhello"},
			{"socks4", "\x04\x01\x01\xbb\x00\x00\x00\x01\x00" + host + "\x00hello"},
			{"sni", string(testkit.ClientHello(t, host))},
			{"forward", "hello"},
		} {
			t.Run(place.name+"/"+front.name, func(t *testing.T) {
				o := &outside{addrs: map[string][]string{host: {"10.0.0.1", "10.0.0.2"}}}
				if place.name == "resolver" {
					o.addrs = nil
					o.panics = true
				}
				reports := panicsInOneFlow(t, o, front.name, front.request, place.edit)
				if want := place.name == "resolver" || place.name == "dial"; (reports > 0) != want { // another goroutine may have succeeded
					t.Errorf("%d panics are reported at once, want some: %v", reports, want)
				}
			})
		}
	}
}

// panicking returns a dial function whose connections are like c.
func panicking(t *testing.T, c panicConn) func(context.Context, netip.AddrPort) (net.Conn, error) {
	return func(context.Context, netip.AddrPort) (net.Conn, error) {
		conn, _ := testkit.TCPPair(t)
		return &panicConn{conn, c.read, c.write}, nil
	}
}

// panicsInOneFlow sends request to the front, in which something panics. It returns
// how many panics are reported at once.
func panicsInOneFlow(t *testing.T, o *outside, front, request string, edit func(*testing.T, *Road)) (reports int) {
	r := newRoad(t, o, policy.Policy{})
	r.Finished = o.finish
	if edit != nil {
		edit(t, r)
	}
	var reported atomic.Int32
	ctx := flow.WithPanics(t.Context(), func(error) { reported.Add(1) })
	proxy := &httpproxy.Proxy{Road: r}
	defer proxy.Close()
	m := &mux.Mux{
		HTTP:     proxy,
		SOCKS5:   &socks.Server{Road: r},
		SOCKS4:   &socks.Server{Road: r, Version4: true},
		Enter:    r.Limit.Enter,
		Leave:    r.Limit.Leave,
		Panicked: func(err error) { t.Errorf("the mux gets %v, want that the front ends its flow", err) },
	}
	role := map[string]mux.Role{
		"web":     {Front: &httpproxy.Proxy{Road: r, Front: flow.Web, Target: target.ByHost(80)}},
		"sni":     {Front: &sni.Server{Road: r, Port: 443}},
		"forward": {Front: &forward.Server{Road: r, Host: "api.corp.example", Port: 5432}, TargetFirst: true},
	}[front]
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- m.Serve(ctx, ln, role) }()
	defer func() {
		ln.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	}()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err == nil { // forward may have reset it already
		fmt.Fprint(client, request)
		io.Copy(io.Discard, client) // ends with the connection
		client.Close()
	}
	testkit.Eventually(t, "the flow to end and the client's place to be free", func() bool {
		n, _ := r.Limit.Connections()
		o.mu.Lock()
		defer o.mu.Unlock()
		return n == 0 && r.Limit.Dials() == 0 && r.Relay.Active() == 0 && len(o.finished) > 0
	})
	if n := len(o.finished); n != 1 {
		t.Errorf("%d flows have ended, want 1", n)
	}
	rec := o.finished[0]
	if p, ok := errors.AsType[*flow.Panic](rec.Err); flow.ClassOf(rec.Err) != flow.Internal || !ok || p.Stack == "" {
		t.Errorf("the flow ended with %v, want class %v and the stack", rec.Err, flow.Internal)
	}
	if n := len(r.Active()); n != 0 {
		t.Errorf("%d fronts have flows in progress, want 0", n)
	}
	return int(reported.Load())
}
