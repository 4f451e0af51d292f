package dnsserver

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/socket"
)

// writeTimeout bounds one answer over TCP. A client that does not read loses its
// connection and holds up no other.
const writeTimeout = 5 * time.Second

// listener accepts clients for the library's server, which has no limits and
// ends when the process has no file descriptor left.
type listener struct {
	net.Listener
	ctx    context.Context // ends a pause after a failure
	server *Server
}

// Accept returns the next client that Enter admits. After a temporary error it
// pauses and tries again.
func (l *listener) Accept() (net.Conn, error) {
	var failures socket.AcceptFailures
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || l.ctx.Err() != nil {
				return nil, err
			}
			failures.Wait(l.ctx, l.server.Log.With("port", "dns"), err)
			continue
		}
		failures.Over()
		client := socket.ClientAddr(c).Addr()
		if l.server.Enter == nil {
			return &conn{Conn: c, leave: func() {}}, nil
		}
		if l.server.Enter(client) != nil {
			c.Close()
			continue
		}
		return &conn{Conn: c, leave: sync.OnceFunc(func() { l.server.Leave(client) })}, nil
	}
}

// conn is a client over TCP.
type conn struct {
	net.Conn
	leave func()
}

func (c *conn) Write(b []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(writeTimeout))
	return c.Conn.Write(b)
}

// CloseWrite ends the stream to the client.
func (c *conn) CloseWrite() error { return socket.CloseWrite(c.Conn) }

// Close closes the connection. Its first call also calls Leave.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
