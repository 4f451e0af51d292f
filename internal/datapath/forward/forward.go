// Package forward is the front of a port that stands for one target. It
// passes on whatever clients send there and does not look at it. So it works for
// every protocol, also if the server speaks first, as with MySQL, or if TLS
// begins later, as with PostgreSQL. The package does not decide, resolve or dial.
package forward

import (
	"context"
	"net"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Road is what lies behind the front.
type Road interface {
	Connect(context.Context, *flow.Record) (net.Conn, error)
	Tunnel(*flow.Record, flow.Pair)
	Finish(*flow.Record)
}

// Server forwards to one target. Its fields must not change once it is in use.
type Server struct {
	Road Road
	Host string // the target: a name, or an address without brackets
	Port uint16 // the target's port; never 0
}

// Serve opens a tunnel for one client. It takes c and closes it, unless it
// became a tunnel, which it reports.
func (s *Server) Serve(ctx context.Context, c *net.TCPConn) (tunnelled bool) {
	rec := s.record(c)
	defer flow.CatchTo(func(err error) {
		tunnelled = false
		s.end(c, rec, err)
	})
	target, err := s.Road.Connect(ctx, rec)
	if err != nil {
		s.end(c, rec, err)
		return false
	}
	s.Road.Tunnel(rec, flow.Pair{Client: c, Target: target})
	return true
}

// Refuse ends a client's flow with why, a *flow.Error. It takes c and resets
// it: the client's protocol is not known, so no reply can say why.
func (s *Server) Refuse(c *net.TCPConn, why error) { s.end(c, s.record(c), why) }

func (s *Server) record(c *net.TCPConn) *flow.Record {
	rec := flow.NewRecord(flow.Forward, socket.ClientAddr(c))
	rec.Host = s.Host
	rec.Port = s.Port
	return rec
}

// end resets the client's connection and finishes the flow.
func (s *Server) end(c *net.TCPConn, rec *flow.Record, why error) {
	socket.Abort(c)
	rec.Err = why
	s.Road.Finish(rec)
}
