package sni

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// maxHello bounds the bytes of a hello, record headers included. A hello with
// post-quantum key shares has about 2 KiB.
const maxHello = 32 << 10

// readHello reads a ClientHello, which may come in any number of records and
// packets. It returns the server name, in lower case and without trailing dot, and
// all bytes that it has read, which may be more than the hello. The error is a
// *flow.Error. If r returns one, it is that.
func readHello(r io.Reader) (name string, read []byte, err error) {
	var tape bytes.Buffer
	in := &helloConn{r: io.TeeReader(io.LimitReader(r, maxHello), &tape)}
	got := false
	// The parser is that of the standard library. It ends with the error of the callback.
	terr := tls.Server(in, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name = strings.ToLower(strings.TrimSuffix(h.ServerName, "."))
		got = true
		return nil, errHello
	}}).Handshake()
	switch {
	case got:
	case in.err != nil && tape.Len() >= maxHello:
		return "", nil, badRequest("the ClientHello is longer than 32 KiB", unexpectedMessage)
	case in.err != nil:
		return "", nil, readError(in.err)
	default:
		return "", nil, badRequest("this port accepts TLS only: the client sent something else", terr)
	}
	switch {
	case name == "":
		return "", nil, badRequest("the client sent no server name (SNI), so the target is unknown: connect by name, or give this target a port of its own with forward", unrecognizedName)
	case host.IsAddress(name): // RFC 6066 section 3 does not allow addresses here
		return "", nil, badRequest("the client sent an address as server name: connect by name", unrecognizedName)
	}
	return name, tape.Bytes(), nil
}

// errHello ends the handshake after the hello.
var errHello = errors.New("the hello has been read")

// badRequest is the error for a client's hello. cause may be an alert, which then
// is the one that the client gets.
func badRequest(hint string, cause error) error {
	return &flow.Error{
		Class: flow.BadRequest,
		Op:    "sni",
		Hint:  hint,
		Err:   cause,
	}
}

// readError is the error for a client that has left, was too slow, or has no more
// memory.
func readError(cause error) error {
	if fe, ok := errors.AsType[*flow.Error](cause); ok {
		return fe
	}
	e := &flow.Error{
		Class: flow.Canceled,
		Op:    "sni",
		Hint:  "the client left before its ClientHello was complete",
		Err:   cause,
	}
	if ne, ok := errors.AsType[net.Error](cause); ok && ne.Timeout() {
		e.Class = flow.Timeout
		e.Hint = "the ClientHello did not arrive in time"
	}
	return e
}

// helloConn lets the parser read, and discards what it writes.
type helloConn struct {
	net.Conn // nil: the parser calls no other method
	r        io.Reader
	err      error // of the last read
}

func (c *helloConn) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.err = err
	return n, err
}

func (c *helloConn) Write(b []byte) (int, error) { return len(b), nil }
func (c *helloConn) CloseWrite() error           { return nil }
