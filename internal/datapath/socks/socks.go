// Package socks is the front of SOCKS: version 5 (RFC 1928), with the username and
// password method of RFC 1929, and version 4 with its extension 4A
// (https://www.openssh.org/txt/socks4.protocol, https://www.openssh.org/txt/socks4a.protocol).
// It serves the command CONNECT only. It parses and answers; it does not decide, resolve
// or dial.
package socks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Road is what lies behind the front.
type Road interface {
	Connect(context.Context, *flow.Record) (net.Conn, error)
	Tunnel(*flow.Record, flow.Pair)
	Finish(*flow.Record)
}

// defaultTimeout is used when Server.Timeout is zero.
const defaultTimeout = 30 * time.Second

// past is a deadline that ends a pending read at once.
var past = time.Unix(1, 0)

// Server speaks one version of SOCKS to clients. Its fields must not change once it is
// in use.
type Server struct {
	Road Road
	// Version4 has the server speak version 4, and 4A. Otherwise it speaks version 5.
	Version4 bool
	// Authenticate checks a client's username and password. Its error is a
	// *flow.Error. It must take the same time for all wrong ones. Nil means that
	// clients need none. Version 4 has no passwords, so it is then refused.
	Authenticate func(client netip.Addr, user, password string) error
	// Timeout bounds the greeting, the authentication and the request
	// together. Zero means 30 seconds.
	Timeout time.Duration
}

// Serve speaks to one client. It takes c and closes it, unless it became a
// tunnel, which it reports.
func (s *Server) Serve(ctx context.Context, c *net.TCPConn) (tunnelled bool) {
	rec := s.record(c)
	defer flow.CatchTo(func(err error) {
		tunnelled = false
		s.end(c, rec, err)
	})
	in := &reader{conn: c}
	if err := s.handshakeInTime(ctx, in, rec); err != nil {
		s.end(c, rec, err)
		return false
	}
	target, err := s.Road.Connect(ctx, rec)
	if err != nil {
		s.end(c, rec, err)
		return false
	}
	if err := s.reply(c, nil); err != nil {
		target.Close()
		c.Close() // not gently: a client that gets no reply has left
		rec.Err = &flow.Error{
			Class:  flow.Canceled,
			Op:     string(rec.Front),
			Target: rec.Target(),
			Err:    err,
		}
		s.Road.Finish(rec)
		return false
	}
	s.Road.Tunnel(rec, flow.Pair{
		Client:      c,
		Target:      target,
		ClientEarly: in.rest(),
	})
	return true
}

// Refuse answers a client with why, a *flow.Error, without waiting for its
// request. In version 5 it sends the method and the reply together; the client reads
// them one after the other. It takes c and closes it.
func (s *Server) Refuse(c *net.TCPConn, why error) {
	rec := s.record(c)
	if !s.Version4 {
		c.Write([]byte{version5, methodNone})
	}
	s.end(c, rec, why)
}

func (s *Server) record(c *net.TCPConn) *flow.Record {
	front := flow.SOCKS5
	if s.Version4 {
		front = flow.SOCKS4
	}
	return flow.NewRecord(front, socket.ClientAddr(c))
}

// end sends the client the reply for why, if there is one, closes its
// connection and finishes the flow.
func (s *Server) end(c *net.TCPConn, rec *flow.Record, why error) {
	rec.Err = why
	s.reply(c, why)
	socket.CloseGently(c)
	s.Road.Finish(rec)
}

// reply sends the reply for err, if there is one. Nil means success.
func (s *Server) reply(c net.Conn, err error) error {
	b := replyFor(err).message()
	if s.Version4 {
		b = replyFor4(err).message()
	}
	if b == nil {
		return nil
	}
	_, werr := c.Write(b)
	return werr
}

// handshakeInTime runs the handshake within the timeout. If ctx ends, so does
// the handshake.
func (s *Server) handshakeInTime(ctx context.Context, in *reader, rec *flow.Record) error {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	in.conn.SetReadDeadline(time.Now().Add(timeout))
	stop := context.AfterFunc(ctx, func() { in.conn.SetReadDeadline(past) })
	handshake := s.handshake5
	if s.Version4 {
		handshake = s.handshake4
	}
	err := handshake(in, rec)
	stop()
	if err != nil {
		return err
	}
	in.conn.SetReadDeadline(time.Time{})
	return nil
}

// parse runs f on what has been read until f has enough, and consumes that.
func parse[T any](in *reader, f func([]byte) (T, int, error)) (T, error) {
	for {
		v, n, err := f(in.buf[in.start:in.end])
		if err != nil {
			return v, err
		}
		if n > 0 {
			in.start += n
			return v, nil
		}
		if err := in.more(); err != nil {
			return v, err
		}
	}
}

// reader holds what the client has sent and is not parsed yet. The buffer has
// the size of the longest handshake, which is one of version 5, so it never grows.
type reader struct {
	conn       net.Conn
	buf        [1 + 1 + 255 + 3 + 2*255 + 4 + 1 + 255 + 2]byte
	start, end int
}

func (r *reader) more() error {
	if r.end == len(r.buf) {
		return badRequest("handshake too long")
	}
	n, err := r.conn.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return connError(err)
}

// rest returns what came after the handshake.
func (r *reader) rest() []byte {
	return append([]byte(nil), r.buf[r.start:r.end]...)
}

// connError wraps the error of a client's connection: the client was too slow,
// or has left.
func connError(err error) error {
	class := flow.Canceled
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		class = flow.Timeout
	}
	return &flow.Error{
		Class: class,
		Op:    "socks",
		Err:   err,
	}
}

func badRequest(what string) error {
	return &flow.Error{
		Class: flow.BadRequest,
		Op:    "socks",
		Err:   errors.New(what),
	}
}

// unsupported is the error for a request that the front does not do. cause may be a
// replyCode, which then is the one that the client gets.
func unsupported(cause error) error {
	return &flow.Error{
		Class: flow.BadRequest,
		Op:    "socks",
		Hint:  "only CONNECT is supported, to a name, an IPv4 or an IPv6 address",
		Err:   cause,
	}
}
