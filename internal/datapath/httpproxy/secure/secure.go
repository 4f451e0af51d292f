// Package secure speaks TLS with origins, for clients that send requests for https://
// URLs to the proxy itself instead of CONNECT. It verifies the certificate of an origin
// as a client of https:// has to (RFC 9110 section 4.3.4), and does not send one. It
// does not dial and does not decide.
package secure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// handshakeTime bounds a handshake.
const handshakeTime = 10 * time.Second

// sessions is how many TLS sessions a Client keeps, to begin later ones with less work.
const sessions = 256

// Client opens TLS over connections to origins. Its methods may be called concurrently.
type Client struct{ config tls.Config }

// New returns a client that trusts roots. Nil means the authorities that the system
// trusts.
func New(roots *x509.CertPool) *Client {
	return &Client{tls.Config{
		RootCAs:            roots,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(sessions),
	}}
}

// Conn is a connection to an origin with TLS. Close does not wait for the origin.
type Conn struct {
	*tls.Conn
	raw net.Conn
}

// Open opens TLS over c to the origin called server, which is a name or an address. It
// takes c, and closes it if it fails. The error is a *flow.Error.
func (cl *Client) Open(ctx context.Context, c net.Conn, server string) (net.Conn, error) {
	config := cl.config.Clone()
	config.ServerName = server
	o := &Conn{tls.Client(c, config), c}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := o.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, failure(err, server)
	}
	return o, nil
}

// Close closes the connection at once. tls.Conn would wait until it has sent an alert.
func (c *Conn) Close() error { return c.raw.Close() }

// CloseWrite sends the alert with which TLS ends one direction.
func (c *Conn) CloseWrite() error { return c.Conn.CloseWrite() }

// Abort closes the connection with a reset.
func (c *Conn) Abort() { socket.Abort(c.raw) }

// Readable reports whether something has come: a Read may still wait for the rest of a
// record.
func (c *Conn) Readable() bool { return socket.Readable(c.raw) }

// Held returns the bytes in the buffers of the network stack.
func (c *Conn) Held() int { return socket.Held(c.raw) }

// Shrink bounds what the connection receives ahead to about n bytes.
func (c *Conn) Shrink(n int) { socket.Shrink(c.raw, n) }

// failure returns the error of a handshake with server that err has ended.
func failure(err error, server string) error {
	fe := &flow.Error{
		Class:  flow.Reset,
		Op:     "tls",
		Target: server,
		Hint:   "the target closed the connection during the TLS handshake",
		Err:    err,
	}
	ce, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	op, _ := errors.AsType[*net.OpError](err)
	ne, _ := errors.AsType[net.Error](err)
	switch {
	case untrusted:
		fe.Class = flow.BadCertificate
		fe.Hint = untrustedHint(ce.Err)
	case plain:
		fe.Class = flow.BadResponse
		fe.Hint = "the target does not speak TLS on this port; use http://, or the port of https://"
	case op != nil && op.Op == "remote error":
		fe.Class = flow.BadResponse
		fe.Hint = "the target refused the TLS handshake; it may require a client certificate, or not serve this name"
	case errors.Is(err, context.Canceled):
		fe.Class = flow.Cut
		fe.Hint = "the replica was shutting down"
	case errors.Is(err, context.DeadlineExceeded), ne != nil && ne.Timeout():
		fe.Class = flow.Timeout
		fe.Hint = "the target did not complete the TLS handshake in time"
	}
	return fe
}

// untrustedHint says what to do about a certificate that is not accepted because of err.
func untrustedHint(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "Pando does not trust the authority that signed the target's certificate: add the authority to http.caFile, or let the client use CONNECT, which HTTPS_PROXY sets"
	}
	if _, ok := errors.AsType[x509.SystemRootsError](err); ok {
		return "Pando has no file of authorities: set SSL_CERT_FILE or http.caFile"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "the target's certificate is for other names: check the name in the URL, and what it resolves to"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "the target's certificate has expired, or is not valid yet"
	}
	return "the target's certificate is not valid"
}
