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

// maxHello bounds what a client may send before its hello is complete, record
// headers included. Hellos with post-quantum key shares have about 2 KiB.
const maxHello = 32 << 10

// readHello reads a ClientHello, in as many records and packets as it comes,
// and returns its server name in lower case and all bytes that were read, which
// may be more than the hello. The error is a *flow.Error.
func readHello(r io.Reader) (name string, read []byte, err error) {
	var tape bytes.Buffer
	in := &helloConn{r: io.TeeReader(io.LimitReader(r, maxHello), &tape)}
	got := false
	// The standard library's own parser; it ends with the error of the callback.
	terr := tls.Server(in, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, got = strings.ToLower(strings.TrimSuffix(h.ServerName, ".")), true
		return nil, errHello
	}}).Handshake()
	switch {
	case got:
	case in.err != nil && tape.Len() >= maxHello:
		return "", nil, bad("the ClientHello is too long", UnexpectedMessage)
	case in.err != nil: // it left, or was too slow
		class, hint := flow.Canceled, "the client left before its ClientHello was complete"
		if ne, ok := errors.AsType[net.Error](in.err); ok && ne.Timeout() {
			class, hint = flow.Timeout, "the ClientHello did not arrive in time"
		}
		return "", nil, &flow.Error{Class: class, Op: "sni", Hint: hint, Err: in.err}
	default:
		return "", nil, &flow.Error{Class: flow.BadRequest, Op: "sni", Hint: "this port speaks TLS to names behind the tailnet; the client sent something else", Err: terr}
	}
	switch {
	case name == "":
		return "", nil, bad("the client named no server (SNI), so nobody knows whom it wants; connect by name, or give this target a port of its own", UnrecognizedName)
	case host.IsAddress(name): // RFC 6066 section 3 does not allow addresses here
		return "", nil, bad("the client named an address as its server; connect by name", UnrecognizedName)
	}
	return name, tape.Bytes(), nil
}

var errHello = errors.New("the hello is all that was wanted")

func bad(hint string, a Alert) error {
	return &flow.Error{Class: flow.BadRequest, Op: "sni", Hint: hint, Err: a}
}

// helloConn lets the parser read, and keeps what it would answer to itself.
type helloConn struct {
	net.Conn // nil: nothing else is called
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
