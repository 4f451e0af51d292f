// Package forward is the front end of a port that stands for one target: what a
// client says there is for that target, whatever its protocol, and not looked
// at. So the TLS upgrades of PostgreSQL and MySQL work, and servers that speak
// first. The package does not decide, resolve or dial.
package forward

import (
	"context"
	"net"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Road is what lies behind the front end.
type Road interface {
	Connect(context.Context, *flow.Record) (net.Conn, error)
	Tunnel(*flow.Record, flow.Pair)
	Finish(*flow.Record)
}

// Server forwards to one target. Its fields must not change once it is in use.
type Server struct {
	Road Road
	Host string // a name or an address
	Port uint16
}

// Serve opens a tunnel for one client. It takes c and closes it, unless it
// became a tunnel, which it reports.
func (s *Server) Serve(ctx context.Context, c *net.TCPConn) (tunnelled bool) {
	rec := s.record(c)
	target, err := s.Road.Connect(ctx, rec)
	if err != nil {
		s.end(c, rec, err)
		return false
	}
	s.Road.Tunnel(rec, flow.Pair{Client: c, Target: target})
	return true
}

// Refuse resets a client: its protocol is not known here, so nothing can be
// said. It takes c and closes it.
func (s *Server) Refuse(c *net.TCPConn, why error) { s.end(c, s.record(c), why) }

func (s *Server) record(c *net.TCPConn) *flow.Record {
	rec := flow.NewRecord(flow.Forward, socket.ClientAddr(c))
	rec.Host = s.Host
	rec.Port = s.Port
	return rec
}

func (s *Server) end(c *net.TCPConn, rec *flow.Record, why error) {
	socket.Abort(c)
	rec.Err = why
	s.Road.Finish(rec)
}
