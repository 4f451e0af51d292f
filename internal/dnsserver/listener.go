package dnsserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/socket"
)

// writeTime bounds one answer over TCP: a client that doesn't read ends its
// connection, not our patience.
const writeTime = 5 * time.Second

// listener keeps the library's server, which knows neither limits nor what to do
// when descriptors run out, from taking more than it should.
type listener struct {
	net.Listener
	ctx    context.Context // ends a pause
	server *Server
}

// Accept returns the next client that is let in. It does not spin on errors that
// may pass.
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
		client := clientOf(c)
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

func clientOf(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// conn is a client over TCP.
type conn struct {
	net.Conn
	leave func()
}

func (c *conn) Write(b []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(writeTime))
	return c.Conn.Write(b)
}

// CloseWrite ends the stream towards the client.
func (c *conn) CloseWrite() error {
	if hc, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return hc.CloseWrite()
	}
	return nil
}

// Close closes the connection and leaves.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
