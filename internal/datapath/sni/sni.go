// Package sni is the front for TLS clients without a proxy setting. The name
// in their ClientHello (server_name, RFC 6066 section 3) is the target. The hello
// and all bytes after it are sent on unchanged. The package has no certificate and
// decrypts nothing. It does not decide, resolve or dial.
package sni

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Road takes requests to their targets: a *datapath.Road.
type Road interface {
	Connect(context.Context, *flow.Record) (net.Conn, error)
	Tunnel(*flow.Record, flow.Pair)
	Finish(*flow.Record)
}

// DefaultTimeout is used when Server.Timeout is zero. It is the default of
// http.headerTimeout, which the replica sets for this front too.
const DefaultTimeout = 30 * time.Second

// Server speaks to TLS clients. Its fields must not change once it is in use.
type Server struct {
	Road Road
	// Port is the target's port: the port that clients have dialled, before a
	// Service or a redirect has changed it.
	Port uint16
	// Timeout bounds the arrival of a ClientHello. Zero means DefaultTimeout.
	Timeout time.Duration
	// Memory counts what hellos cost. Nil means that nothing is counted.
	Memory flow.Memory
}

// Serve opens a tunnel for one client. It takes c and closes it, unless c became a
// tunnel, which it reports.
func (s *Server) Serve(ctx context.Context, c *net.TCPConn) (tunnelled bool) {
	rec := s.record(c)
	defer flow.CatchTo(func(err error) {
		tunnelled = false
		s.end(c, rec, err)
	})
	held := account{
		memory: s.Memory,
		client: socket.ClientAddr(c).Addr(),
	}
	defer held.release()
	if err := held.take(helloCost); err != nil {
		s.end(c, rec, err)
		return false
	}
	timeout := s.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	c.SetReadDeadline(time.Now().Add(timeout))
	cut := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	name, hello, err := readHello(held.reader(c))
	cut()
	c.SetReadDeadline(time.Time{})
	if err != nil {
		s.end(c, rec, err)
		return false
	}
	rec.Host = name
	rec.Port = s.Port
	target, err := s.Road.Connect(ctx, rec)
	if err != nil {
		s.end(c, rec, err)
		return false
	}
	s.Road.Tunnel(rec, flow.Pair{Client: c, Target: target, ClientEarly: hello})
	return true
}

// Refuse answers a client with why, a *flow.Error, without waiting for its
// hello. It takes c and closes it.
func (s *Server) Refuse(c *net.TCPConn, why error) { s.end(c, s.record(c), why) }

func (s *Server) record(c *net.TCPConn) *flow.Record {
	return flow.NewRecord(flow.SNI, socket.ClientAddr(c))
}

// end sends the TLS alert for why, closes c, and finishes rec.
func (s *Server) end(c *net.TCPConn, rec *flow.Record, why error) {
	if a := alertFor(why); a != noAlert {
		c.Write([]byte{21, 3, 3, 0, 2, 2, byte(a)}) // a record of TLS 1.2: alert, fatal
	}
	socket.CloseGently(c)
	rec.Err = why
	s.Road.Finish(rec)
}

// alert is a TLS alert description, RFC 8446 section 6.
type alert byte

const (
	unexpectedMessage alert = 10
	accessDenied      alert = 49
	internalError     alert = 80
	userCanceled      alert = 90
	unrecognizedName  alert = 112

	noAlert alert = 255 // no client is left to read it
)

// Error makes an alert the cause of a flow.Error whose class alone would choose
// another alert.
func (a alert) Error() string {
	if a == unrecognizedName {
		return "no usable server name"
	}
	return "unexpected message"
}

// alertFor returns the alert that a client gets for err, a *flow.Error.
func alertFor(err error) alert {
	if a, ok := errors.AsType[alert](err); ok {
		return a
	}
	switch flow.ClassOf(err) {
	case flow.BadRequest:
		return unexpectedMessage
	case flow.Denied, flow.Unauthenticated, flow.Loop:
		return accessDenied
	case flow.NotFound, flow.NoRoute:
		return unrecognizedName
	case flow.Cut, flow.Overloaded, flow.NotReady:
		return userCanceled // not the target's fault: a retry may succeed
	case flow.Canceled, flow.OK:
		return noAlert
	case flow.ResolveFailed, flow.Refused, flow.Unreachable, flow.Timeout, flow.Reset, flow.BadResponse, flow.BadCertificate, flow.Idle, flow.Internal:
	}
	return internalError
}
