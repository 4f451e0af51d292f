package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// road is what lies behind the front.
type road struct {
	target   net.Conn // what Connect returns
	err      error    // what Connect returns
	asked    flow.Request
	tunnels  []flow.Pair
	finished []*flow.Record
}

func (r *road) Connect(_ context.Context, rec *flow.Record) (net.Conn, error) {
	r.asked = rec.Request
	return r.target, r.err
}

func (r *road) Tunnel(_ *flow.Record, p flow.Pair) { r.tunnels = append(r.tunnels, p) }

func (r *road) Finish(rec *flow.Record) { r.finished = append(r.finished, rec) }

// TestServe checks that a client is connected to the one target before it has
// sent a byte.
func TestServe(t *testing.T) {
	client, server := testkit.TCPPair(t)
	target, _ := net.Pipe()
	r := &road{target: target}
	s := &Server{
		Road: r,
		Host: "db.corp.example",
		Port: 5432,
	}
	if !s.Serve(t.Context(), server) {
		t.Fatal("Serve = false, want a tunnel")
	}
	want := flow.Request{
		Front:  flow.Forward,
		Client: client.LocalAddr().(*net.TCPAddr).AddrPort(),
		Host:   "db.corp.example",
		Port:   5432,
	}
	if r.asked != want {
		t.Errorf("the road was asked for %+v, want %+v", r.asked, want)
	}
	if len(r.tunnels) != 1 || r.tunnels[0].Client != net.Conn(server) || r.tunnels[0].Target != target {
		t.Errorf("tunnels %+v, want one between the client and the target", r.tunnels)
	}
	if len(r.finished) != 0 {
		t.Errorf("%d records are finished, want 0: the tunnel finishes its own", len(r.finished))
	}
}

// TestResets checks that a client without a tunnel is reset, and that its
// record has the reason.
func TestResets(t *testing.T) {
	why := &flow.Error{Class: flow.Refused}
	for _, c := range []struct {
		name string
		do   func(*testing.T, *Server, *net.TCPConn)
	}{
		{"road_fails", func(t *testing.T, s *Server, c *net.TCPConn) {
			if s.Serve(t.Context(), c) {
				t.Error("Serve = true, want false")
			}
		}},
		{"refused", func(_ *testing.T, s *Server, c *net.TCPConn) { s.Refuse(c, why) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := testkit.TCPPair(t)
			r := &road{err: why}
			c.do(t, &Server{Road: r, Host: "db.corp.example", Port: 5432}, server)
			if b, err := io.ReadAll(client); len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client reads %q, error %v; want %v", b, err, syscall.ECONNRESET)
			}
			if len(r.finished) != 1 || r.finished[0].Err != error(why) || r.finished[0].Target() != "db.corp.example:5432" {
				t.Errorf("finished records %+v, want one for the target with %v", r.finished, why)
			}
		})
	}
}
