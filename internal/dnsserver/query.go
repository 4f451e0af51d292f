package dnsserver

import (
	"encoding/binary"
	"errors"
	"net"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/socket"
)

// maxQuery bounds the bytes of a query over TCP. Queries with all their options have
// less than 1 KiB. Answers may be longer.
const maxQuery = 4 << 10

var errLongQuery = errors.New("the query is longer than 4 KiB")

// shortQueries reads queries as the library does. Over TCP it ends the connection of a
// client that announces a longer query than maxQuery: the library would allocate what
// is announced, up to 64 KiB, and wait.
type shortQueries struct{ dns.Reader }

// ReadTCP reads one query.
func (r shortQueries) ReadTCP(c net.Conn, timeout time.Duration) ([]byte, error) {
	return r.Reader.ReadTCP(&queryConn{Conn: c}, timeout)
}

// queryConn is a connection while one query is read from it. The first two bytes are the
// query's length (RFC 1035 section 4.2.2).
type queryConn struct {
	net.Conn
	length []byte
}

func (c *queryConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if len(c.length) == 2 {
		return n, err
	}
	c.length = append(c.length, b[:min(n, 2-len(c.length))]...)
	if len(c.length) == 2 && binary.BigEndian.Uint16(c.length) > maxQuery {
		return 0, errLongQuery
	}
	return n, err
}

// CloseWrite ends the stream to the client.
func (c *queryConn) CloseWrite() error { return socket.CloseWrite(c.Conn) }
