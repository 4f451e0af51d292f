// Package socks5 is the SOCKS5 front end: RFC 1928, with the username and
// password method of RFC 1929. It knows the CONNECT command. It parses and
// answers; it does not decide, resolve or dial.
package socks5

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Road is what lies behind the front end.
type Road interface {
	Connect(context.Context, *flow.Record) (net.Conn, error)
	Tunnel(*flow.Record, flow.Pair)
	Finish(*flow.Record)
}

// DefaultTimeout is used when Server.Timeout is zero.
const DefaultTimeout = 30 * time.Second

// Server speaks SOCKS5 to clients. Its fields must not change once it is in use.
type Server struct {
	Road Road
	// Authenticate checks a username and password; it must take the same time
	// for all of them. Nil means that clients are not asked.
	Authenticate func(user, password string) bool
	// Timeout bounds the greeting, the authentication and the request
	// together. Zero means DefaultTimeout.
	Timeout time.Duration
}

// Serve speaks to one client. It takes c and closes it, unless it became a
// tunnel, which it reports.
func (s *Server) Serve(ctx context.Context, c *net.TCPConn) (tunnelled bool) {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	c.SetReadDeadline(time.Now().Add(timeout))
	rec := flow.NewRecord(flow.SOCKS5, socket.ClientAddr(c))
	in := &reader{conn: c}
	cut := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	err := s.handshake(in, c, rec)
	cut()
	if err != nil {
		rec.Err = err
		reply(c, ReplyFor(err))
		socket.CloseGently(c)
		s.Road.Finish(rec)
		return false
	}
	c.SetReadDeadline(time.Time{})
	target, err := s.Road.Connect(ctx, rec)
	if err != nil {
		rec.Err = err
		reply(c, ReplyFor(err))
		socket.CloseGently(c)
		s.Road.Finish(rec)
		return false
	}
	if err := reply(c, Succeeded); err != nil {
		target.Close()
		c.Close()
		rec.Err = &flow.Error{Class: flow.Canceled, Op: "socks5", Target: rec.Target(), Err: err}
		s.Road.Finish(rec)
		return false
	}
	s.Road.Tunnel(rec, flow.Pair{Client: c, Target: target, ClientEarly: in.rest()})
	return true
}

// Refuse answers a client with why, a *flow.Error, without waiting for its
// request: the method and the reply go out together, to be read one after the
// other. It takes c and closes it.
func (s *Server) Refuse(c *net.TCPConn, why error) {
	rec := flow.NewRecord(flow.SOCKS5, socket.ClientAddr(c))
	rec.Err = why
	c.Write([]byte{version, methodNone})
	reply(c, ReplyFor(why))
	socket.CloseGently(c)
	s.Road.Finish(rec)
}

// handshake goes through greeting, authentication and request, and fills in
// rec. Its errors still want a reply, except those of class Canceled and
// Unauthenticated, where none is due any more.
func (s *Server) handshake(in *reader, c net.Conn, rec *flow.Record) error {
	methods, err := parse(in, parseGreeting)
	if err != nil {
		return err
	}
	want := byte(methodNone)
	if s.Authenticate != nil || !slices.Contains(methods, methodNone) && slices.Contains(methods, methodPassword) {
		want = methodPassword // some clients know no other: unasked, what they say is not judged
	}
	if !slices.Contains(methods, want) {
		c.Write([]byte{version, methodNoneAcceptable})
		hint := "offer the method \"no authentication required\""
		if want == methodPassword {
			hint = "this gateway asks for a username and password"
		}
		return &flow.Error{Class: flow.Unauthenticated, Op: "socks5", Hint: hint, Err: errors.New("no acceptable method")}
	}
	if _, err := c.Write([]byte{version, want}); err != nil {
		return gone(err)
	}
	if want == methodPassword {
		cred, err := parse(in, parseCredentials)
		if err != nil {
			return err
		}
		ok := s.Authenticate == nil || s.Authenticate(cred.user, cred.password)
		status := byte(0)
		if !ok {
			status = 1
		}
		if _, err := c.Write([]byte{passwordVersion, status}); err != nil {
			return gone(err)
		}
		if !ok {
			return &flow.Error{Class: flow.Unauthenticated, Op: "socks5", Err: errors.New("wrong username or password")}
		}
		if s.Authenticate != nil {
			rec.User = cred.user
		}
	}
	req, err := parse(in, parseRequest)
	if err != nil {
		return err
	}
	rec.Host, rec.Port = req.host, req.port
	switch {
	case req.command != commandConnect:
		return unsupported(CommandNotSupported)
	case req.port == 0:
		return bad("port 0 can't be connected to")
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

// reader holds what the client has sent and nobody has parsed. Its size is
// that of the longest handshake, so it can't grow.
type reader struct {
	conn       net.Conn
	buf        [1 + 1 + 255 + 3 + 2*255 + 4 + 1 + 255 + 2]byte
	start, end int
}

func (r *reader) more() error {
	if r.end == len(r.buf) {
		return bad("handshake too long")
	}
	n, err := r.conn.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return gone(err)
}

// rest returns what came after the handshake.
func (r *reader) rest() []byte {
	return append([]byte(nil), r.buf[r.start:r.end]...)
}

// gone wraps the error of a client that left or fell silent.
func gone(err error) error {
	class := flow.Canceled
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		class = flow.Timeout
	}
	return &flow.Error{Class: class, Op: "socks5", Err: err}
}

func bad(what string) error {
	return &flow.Error{Class: flow.BadRequest, Op: "socks5", Err: errors.New(what)}
}

func unsupported(r Reply) error {
	return &flow.Error{Class: flow.BadRequest, Op: "socks5", Hint: "only CONNECT is supported, to a name, an IPv4 or an IPv6 address", Err: r}
}

// reply sends a reply with code; the bound address is left unspecified, as
// clients of CONNECT don't use it (RFC 1928 section 6).
func reply(c net.Conn, code Reply) error {
	if code == noReply {
		return nil
	}
	_, err := c.Write([]byte{version, byte(code), 0, addrIPv4, 0, 0, 0, 0, 0, 0})
	return err
}
