package explain

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

// listen runs serve for each connection to a port of loopback, which it returns.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// connectsTo returns an Explainer whose road leads to addr, whatever the target.
func connectsTo(addr string) *Explainer {
	return explainer(func(rec *flow.Record, trace *datapath.Trace) (net.Conn, error) {
		rec.Addr = netip.MustParseAddrPort(addr)
		*trace = datapath.Trace{
			Name:   &policy.Verdict{},
			Answer: &resolve.Answer{Addrs: []netip.Addr{rec.Addr.Addr()}, Source: "hosts"},
			Addrs:  []datapath.Judged{{Addr: rec.Addr.Addr()}},
		}
		return net.Dial("tcp", addr)
	})
}

// TestProbe checks what is said of a target that is connected: its TLS handshake
// and its HTTP answer.
func TestProbe(t *testing.T) {
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "" {
			w.Header().Set("Location", "/"+user+"/"+password)
		}
		if r.URL.Path == "/moved" {
			w.WriteHeader(http.StatusFound)
		}
	}))
	defer web.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
	tlsAddr := web.Listener.Addr().String()
	wantsCertificate := listen(t, func(c net.Conn) {
		server := tls.Server(c, &tls.Config{Certificates: web.TLS.Certificates, ClientAuth: tls.RequestClientCert})
		server.Handshake()
		io.Copy(io.Discard, server)
	})
	busy := listen(t, func(c net.Conn) { // an interim answer first, and a body without an end
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		io.Copy(io.Discard, c)
	})
	endless := listen(t, func(c net.Conn) {
		for {
			if _, err := c.Write(bytes.Repeat([]byte("x"), 32<<10)); err != nil {
				return
			}
		}
	})
	mail := listen(t, func(c net.Conn) {
		io.WriteString(c, "220 mail\r\n")
		io.Copy(io.Discard, c)
	})
	closes := listen(t, func(net.Conn) {})
	for _, tc := range []struct {
		name    string
		addr    string
		request status.ExplainRequest
		want    []string // the stages after connect
		class   flow.Class
		hint    string
	}{
		{"tcp_only", mail, status.ExplainRequest{Target: "example.com:25"}, nil, flow.OK, ""},
		{"https", tlsAddr, status.ExplainRequest{Target: "https://example.com/", CA: ca},
			[]string{"ok tls: TLS 1.3, for example.com *.example.com 127.0.0.1 ::1, issued by O=Acme Co, expires…", "ok http: HTTP/1.1 200 OK"}, flow.OK, ""},
		{"port_443", tlsAddr, status.ExplainRequest{Target: "example.com:443", CA: ca}, []string{"ok tls: TLS 1.3…"}, flow.OK, ""},
		{"tls_flag", tlsAddr, status.ExplainRequest{Target: "example.com:5432", TLS: true, CA: ca}, []string{"ok tls: TLS 1.3…"}, flow.OK, ""},
		{"both_flags", tlsAddr, status.ExplainRequest{Target: "example.com:8443", TLS: true, HTTP: true, CA: ca}, []string{"ok tls: TLS 1.3…", "ok http: HTTP/1.1 200 OK"}, flow.OK, ""},
		{"redirect_with_credentials", tlsAddr, status.ExplainRequest{Target: "https://bob:secret@example.com/moved", CA: ca},
			[]string{"ok tls: TLS 1.3…", "ok http: HTTP/1.1 302 Found, to /bob/secret"}, flow.OK, ""},
		{"unknown_authority", tlsAddr, status.ExplainRequest{Target: "https://example.com/"},
			[]string{"warn tls: TLS 1.3…", "  not verified: x509: certificate signed by unknown authority; if clients trust another authority, give it with --ca", "ok http: HTTP/1.1 200 OK"}, flow.OK, ""},
		{"other_name", tlsAddr, status.ExplainRequest{Target: "https://other.example/", CA: ca},
			[]string{"fail tls: not verified: x509: certificate is valid for example.com, *.example.com, not other.example", "  TLS 1.3…"}, flow.BadCertificate, "check its names"},
		{"wants_a_certificate", wantsCertificate, status.ExplainRequest{Target: "example.com:443", CA: ca},
			[]string{"warn tls: TLS 1.3…", "  the server asks for a client certificate; none was sent, so it may still close the connection"}, flow.OK, ""},
		{"not_tls", mail, status.ExplainRequest{Target: "example.com:25", TLS: true},
			[]string{"fail tls: TLS handshake: tls: first record does not look like a TLS handshake"}, flow.BadResponse, "speaks another protocol"},
		{"closes_before_tls", closes, status.ExplainRequest{Target: "https://example.com/"}, []string{"fail tls: TLS handshake: …"}, flow.Reset, "load balancer"},
		{"not_http", mail, status.ExplainRequest{Target: "example.com:25", HTTP: true}, []string{`fail http: HTTP answer: malformed HTTP status code "mail"`}, flow.BadResponse, "speaks another protocol"},
		{"closes_before_http", closes, status.ExplainRequest{Target: "http://example.com/"}, []string{"fail http: HTTP answer: …"}, flow.Reset, "load balancer"},
		{"busy", busy, status.ExplainRequest{Target: "http://example.com/"}, []string{"warn http: HTTP/1.1 503 Busy"}, flow.OK, ""},
		{"endless_head", endless, status.ExplainRequest{Target: "http://example.com/"}, []string{"fail http: HTTP answer: the head of the answer is larger than 1 MiB"}, flow.BadResponse, "speaks another protocol"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := connectsTo(tc.addr).Explain(t.Context(), tc.request)
			got := lines(x)
			for i, line := range got {
				if strings.HasPrefix(line, "ok connect: ") {
					got = got[i+1:]
					break
				}
			}
			wantLines(t, tc.name, got, tc.want)
			wantFailure(t, tc.name, x, tc.class, tc.hint)
		})
	}
}

// TestTLSReport checks what programs get of a TLS handshake.
func TestTLSReport(t *testing.T) {
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
	for _, verified := range []bool{true, false} {
		q := status.ExplainRequest{Target: "https://example.com/"}
		if verified {
			q.CA = ca
		}
		x := connectsTo(web.Listener.Addr().String()).Explain(t.Context(), q)
		got := x.TLS
		if got == nil || got.Verified != verified || (got.Err == "") != verified || got.Protocol != "http/1.1" || got.WantsCertificate || len(got.Names) != 4 {
			t.Errorf("with an authority that is known: %v, TLS = %+v", verified, got)
		}
		if x.HTTP != "HTTP/1.1 404 Not Found" {
			t.Errorf("HTTP = %q, want HTTP/1.1 404 Not Found", x.HTTP)
		}
	}
}

// TestProbeError checks the class and the hint of each failure of a connection
// that is open.
func TestProbeError(t *testing.T) {
	for _, tc := range []struct {
		name             string
		err              error
		wantsCertificate bool
		class            flow.Class
		hint             string
	}{
		{"deadline", context.DeadlineExceeded, false, flow.Timeout, "sent nothing"},
		{"socket_timeout", &net.OpError{Op: "read", Err: syscall.ETIMEDOUT}, false, flow.Timeout, "sent nothing"},
		{"reset", syscall.ECONNRESET, false, flow.Reset, "load balancer"},
		{"broken_pipe", syscall.EPIPE, false, flow.Reset, "load balancer"},
		{"end", io.EOF, false, flow.Reset, "load balancer"},
		{"early_end", io.ErrUnexpectedEOF, false, flow.Reset, "load balancer"},
		{"other", errors.New("malformed"), false, flow.BadResponse, "another protocol"},
		{"unknown_authority", x509.UnknownAuthorityError{}, false, flow.BadResponse, "another protocol"},
		{"wants_a_certificate", syscall.ECONNRESET, true, flow.Reset, "asks for a client certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := probeError("HTTP answer", tc.err, tc.wantsCertificate)
			if flow.ClassOf(err) != tc.class || !strings.Contains(flow.HintOf(err), tc.hint) || !errors.Is(err, tc.err) {
				t.Errorf("probeError = %v with the hint %q, want class %v and %q", err, flow.HintOf(err), tc.class, tc.hint)
			}
		})
	}
}
