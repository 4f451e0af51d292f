// Package socks5 is the SOCKS5 front: RFC 1928, with the username and
// password method of RFC 1929. It serves the CONNECT command only. It parses
// and answers; it does not decide, resolve or dial.
package socks5

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
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

// Server speaks SOCKS5 to clients. Its fields must not change once it is in use.
type Server struct {
	Road Road
	// Authenticate checks a client's username and password. Its error is a
	// *flow.Error. It must take the same time for all wrong ones. Nil means that
	// clients need none.
	Authenticate func(client netip.Addr, user, password string) error
	// Timeout bounds the greeting, the authentication and the request
	// together. Zero means 30 seconds.
	Timeout time.Duration
}

// Serve speaks to one client. It takes c and closes it, unless it became a
// tunnel, which it reports.
func (s *Server) Serve(ctx context.Context, c *net.TCPConn) (tunnelled bool) {
	rec := flow.NewRecord(flow.SOCKS5, socket.ClientAddr(c))
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
	if err := reply(c, succeeded); err != nil {
		target.Close()
		c.Close() // not gently: a client that gets no reply has left
		rec.Err = &flow.Error{
			Class:  flow.Canceled,
			Op:     "socks5",
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
// request. It sends the method and the reply together; the client reads them
// one after the other. It takes c and closes it.
func (s *Server) Refuse(c *net.TCPConn, why error) {
	rec := flow.NewRecord(flow.SOCKS5, socket.ClientAddr(c))
	c.Write([]byte{version, methodNone})
	s.end(c, rec, why)
}

// end sends the client the reply for why, if there is one, closes its
// connection and finishes the flow.
func (s *Server) end(c *net.TCPConn, rec *flow.Record, why error) {
	rec.Err = why
	reply(c, replyFor(why))
	socket.CloseGently(c)
	s.Road.Finish(rec)
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
	err := s.handshake(in, rec)
	stop()
	if err != nil {
		return err
	}
	in.conn.SetReadDeadline(time.Time{})
	return nil
}

// handshake goes through greeting, authentication and request, and fills in
// rec. A reply is still due for its errors, except those of class Canceled and
// Unauthenticated, and those that are answered.
func (s *Server) handshake(in *reader, rec *flow.Record) error {
	method, err := s.chooseMethod(in)
	if err != nil {
		return err
	}
	if method == methodPassword {
		if err := s.authenticate(in, rec); err != nil {
			return err
		}
	}
	req, err := parse(in, parseRequest)
	if err != nil {
		return err
	}
	rec.Host = req.host
	rec.Port = req.port
	switch {
	case req.command != commandConnect:
		return unsupported(commandNotSupported)
	case req.port == 0:
		return badRequest("port 0 is not a port to connect to")
	}
	return nil
}

// chooseMethod reads the greeting and answers with the authentication method.
func (s *Server) chooseMethod(in *reader) (method byte, err error) {
	methods, err := parse(in, parseGreeting)
	if err != nil {
		return 0, err
	}
	method = methodNone
	if s.Authenticate != nil || !slices.Contains(methods, methodNone) && slices.Contains(methods, methodPassword) {
		method = methodPassword // some clients offer nothing else, even if no password is needed
	}
	if !slices.Contains(methods, method) {
		in.conn.Write([]byte{version, methodNoneAcceptable})
		hint := "offer the method \"no authentication required\""
		if method == methodPassword {
			hint = "Pando requires a username and password"
		}
		return 0, &flow.Error{
			Class: flow.Unauthenticated,
			Op:    "socks5",
			Hint:  hint,
			Err:   errors.New("no acceptable method"),
		}
	}
	if _, err := in.conn.Write([]byte{version, method}); err != nil {
		return 0, connError(err)
	}
	return method, nil
}

// authenticate reads a username and password and checks them, if the server
// checks any.
func (s *Server) authenticate(in *reader, rec *flow.Record) error {
	cred, err := parse(in, parseCredentials)
	if err != nil {
		return err
	}
	status := byte(0)
	var wrong error
	if s.Authenticate != nil {
		wrong = s.Authenticate(rec.Client.Addr(), cred.user, cred.password)
	}
	if wrong != nil {
		status = 1
	}
	if _, err := in.conn.Write([]byte{passwordVersion, status}); err != nil {
		return connError(err)
	}
	if wrong != nil {
		return answered{wrong}
	}
	if s.Authenticate != nil {
		rec.User = cred.user
	}
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
// the size of the longest handshake, so it never grows.
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
		Op:    "socks5",
		Err:   err,
	}
}

func badRequest(what string) error {
	return &flow.Error{
		Class: flow.BadRequest,
		Op:    "socks5",
		Err:   errors.New(what),
	}
}

func unsupported(r replyCode) error {
	return &flow.Error{
		Class: flow.BadRequest,
		Op:    "socks5",
		Hint:  "only CONNECT is supported, to a name, an IPv4 or an IPv6 address",
		Err:   r,
	}
}

// reply sends a reply with code. It leaves the bound address unspecified:
// clients of CONNECT do not use it (RFC 1928 section 6).
func reply(c net.Conn, code replyCode) error {
	if code == noReply {
		return nil
	}
	_, err := c.Write([]byte{version, byte(code), 0, addrIPv4, 0, 0, 0, 0, 0, 0})
	return err
}
