package secure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/testkit"
)

// server is the name in the certificate of package httptest.
const server = "example.com"

// certificate returns that certificate, with the authorities that verify it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.TLS.Certificates[0], roots
}

// answer is a server that completes a handshake, and then echoes.
func answer(config *tls.Config) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		defer c.Close()
		s := tls.Server(c, config)
		if s.Handshake() == nil {
			io.Copy(s, s)
			s.CloseWrite()
		}
	}
}

// TestOpen checks which servers are accepted, and what becomes of the others.
func TestOpen(t *testing.T) {
	cert, roots := certificate(t)
	good := answer(&tls.Config{Certificates: []tls.Certificate{cert}})
	for _, c := range []struct {
		name   string
		serve  func(*net.TCPConn)
		server string
		edit   func(*Client)
		class  flow.Class
		hint   string // a part of it
	}{
		{"accepted", good, server, nil, flow.OK, ""},
		{"accepted_by_address", good, "127.0.0.1", nil, flow.OK, ""},
		{"unknown_authority", good, server, func(c *Client) { c.config.RootCAs = x509.NewCertPool() }, flow.BadCertificate, "http.caFile"},
		{"authorities_of_the_system", good, server, func(c *Client) { c.config.RootCAs = nil }, flow.BadCertificate, "http.caFile"},
		{"another_name", good, "example.org", nil, flow.BadCertificate, "other names"},
		{"another_address", good, "10.0.0.1", nil, flow.BadCertificate, "other names"},
		{"expired", good, server, func(c *Client) { c.config.Time = func() time.Time { return time.Now().AddDate(1000, 0, 0) } }, flow.BadCertificate, "expired"},
		{"not_valid_yet", good, server, func(c *Client) { c.config.Time = func() time.Time { return time.Unix(-1<<35, 0) } }, flow.BadCertificate, "not valid yet"},
		{"plain_http", func(c *net.TCPConn) {
			defer c.Close()
			io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\n")
			io.Copy(io.Discard, c)
		}, server, nil, flow.BadResponse, "does not speak TLS"},
		{"old_tls", answer(&tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS10, MinVersion: tls.VersionTLS10}), server, nil, flow.BadResponse, "refused the TLS handshake"},
		{"client_certificate", answer(&tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert}), server, nil, flow.BadResponse, "client certificate"},
		{"other_protocols_only", answer(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"mqtt"}}), server, nil, flow.BadResponse, "refused the TLS handshake"},
		{"closes", func(c *net.TCPConn) { c.Close() }, server, nil, flow.Reset, "closed the connection"},
		{"resets", func(c *net.TCPConn) {
			socket.Peek(c, make([]byte, 1), nil) // after the client has connected
			socket.Abort(c)
		}, server, nil, flow.Reset, "closed the connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := New(roots)
			if c.edit != nil {
				c.edit(cl)
			}
			raw, err := net.Dial("tcp", testkit.ServeConns(t, c.serve).String())
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			conn, err := cl.Open(t.Context(), raw, c.server)
			if class := flow.ClassOf(err); class != c.class || !strings.Contains(flow.HintOf(err), c.hint) {
				t.Fatalf("Open = %v with hint %q; want class %v and %q", err, flow.HintOf(err), c.class, c.hint)
			}
			if err != nil {
				if _, err := raw.Write([]byte("x")); err == nil {
					t.Error("the connection is still open, want it closed")
				}
				return
			}
			io.WriteString(conn, "hello")
			socket.CloseWrite(conn)
			if b, err := io.ReadAll(conn); string(b) != "hello" || err != nil {
				t.Errorf("the echo is %q, error %v", b, err)
			}
		})
	}
}

// TestUntrustedHint checks hints for errors that no server here can cause.
func TestUntrustedHint(t *testing.T) {
	for want, err := range map[string]error{
		"SSL_CERT_FILE": x509.SystemRootsError{},
		"is not valid":  x509.CertificateInvalidError{Reason: x509.TooManyIntermediates},
	} {
		if got := untrustedHint(err); !strings.Contains(got, want) {
			t.Errorf("the hint for %T is %q, want %q in it", err, got, want)
		}
	}
}

// TestOpenEnds checks that a handshake ends with its context.
func TestOpenEnds(t *testing.T) {
	silent := testkit.ServeConns(t, func(c *net.TCPConn) {
		defer c.Close()
		io.Copy(io.Discard, c)
	})
	for name, c := range map[string]struct {
		ctx  func() (context.Context, context.CancelFunc)
		want flow.Class
	}{
		"deadline": {func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 10*time.Millisecond)
		}, flow.Timeout},
		"canceled": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Millisecond, cancel)
			return ctx, cancel
		}, flow.Cut},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := net.Dial("tcp", silent.String())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := c.ctx()
			defer cancel()
			if _, err := New(nil).Open(ctx, raw, server); flow.ClassOf(err) != c.want {
				t.Errorf("Open = %v, want class %v", err, c.want)
			}
		})
	}
}

// TestCloseDoesNotWait checks that Close and Abort return although the server reads nothing
// and the buffers are full.
func TestCloseDoesNotWait(t *testing.T) {
	cert, roots := certificate(t)
	done := make(chan struct{})
	defer close(done)
	addr := testkit.ServeConns(t, func(c *net.TCPConn) {
		defer c.Close()
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		if s.Handshake() == nil {
			<-done
		}
	})
	for name, end := range map[string]func(net.Conn){"close": func(c net.Conn) { c.Close() }, "abort": socket.Abort} {
		t.Run(name, func(t *testing.T) {
			raw, err := net.Dial("tcp", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			conn, err := New(roots).Open(t.Context(), raw, server)
			if err != nil {
				t.Fatal(err)
			}
			raw.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			for err == nil { // until the buffers are full
				_, err = raw.Write(make([]byte, 64<<10))
			}
			raw.SetWriteDeadline(time.Time{})
			begin := time.Now()
			end(conn)
			if took := time.Since(begin); took > 3*time.Second { // tls.Conn waits for five
				t.Errorf("it took %v", took)
			}
		})
	}
}
