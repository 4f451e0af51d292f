package explain

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

const (
	// probeTime bounds a TLS handshake, and an HTTP answer.
	probeTime = 10 * time.Second
	// maxHead bounds the head of an HTTP answer, in bytes.
	maxHead = 1 << 20
)

// errHeadTooLarge is the cause when an answer's head is larger than maxHead.
var errHeadTooLarge = errors.New("the head of the answer is larger than 1 MiB")

// probeTarget shakes hands with a connected target and requests its page, as far
// as the request asks for that. It does not close conn.
func (x *explanation) probeTarget(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if x.request.TLS || x.url == nil && x.rec.Port == 443 {
		tlsConn, ok := x.probeTLS(ctx, conn)
		if !ok {
			return
		}
		conn = tlsConn
	}
	if x.request.HTTP {
		x.probeHTTP(conn)
	}
}

// probeTLS shakes hands with the target, whatever certificate it shows, and then
// verifies the certificate. It returns false if a client would end here.
func (x *explanation) probeTLS(ctx context.Context, conn net.Conn) (*tls.Conn, bool) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	wantsCertificate := false
	conf := &tls.Config{
		ServerName:         x.rec.Host,
		InsecureSkipVerify: true, // reportTLS verifies the certificate
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			wantsCertificate = true
			return new(tls.Certificate), nil // none
		},
	}
	if x.request.HTTP {
		conf.NextProtos = []string{"http/1.1"}
	}
	start := time.Now()
	tlsConn := tls.Client(conn, conf)
	if err := tlsConn.HandshakeContext(ctx); err != nil {
		x.fail("tls", time.Since(start), probeError("TLS handshake", err, wantsCertificate))
		return nil, false
	}
	took := time.Since(start)
	return tlsConn, x.reportTLS(tlsConn.ConnectionState(), took, wantsCertificate)
}

// reportTLS reports what the target showed in its handshake. It returns false
// if clients would reject the certificate.
func (x *explanation) reportTLS(state tls.ConnectionState, took time.Duration, wantsCertificate bool) bool {
	leaf := state.PeerCertificates[0]
	names := leaf.DNSNames
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	shown := &status.TLS{
		Version:          tls.VersionName(state.Version),
		Protocol:         state.NegotiatedProtocol,
		Names:            names,
		Issuer:           leaf.Issuer.String(),
		Expires:          leaf.NotAfter,
		WantsCertificate: wantsCertificate,
	}
	x.TLS = shown
	says := fmt.Sprintf("%s, for %s, issued by %s, expires %s", shown.Version, strings.Join(names, " "), shown.Issuer, leaf.NotAfter.UTC().Format(time.DateOnly))
	outcome := status.OK
	var detail []string
	if wantsCertificate {
		outcome = status.Warn
		detail = append(detail, "the server asks for a client certificate; none was sent, so it may still close the connection")
	}
	err := x.verify(state.PeerCertificates)
	if err == nil {
		shown.Verified = true
		x.add("tls", outcome, took, says+", verified", detail...)
		return true
	}
	shown.Err = err.Error()
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown && x.request.CA == "" {
		detail = append(detail, "not verified: "+err.Error()+"; if clients trust another authority, give it with --ca")
		x.add("tls", status.Warn, took, says, detail...)
		return true
	}
	x.fail("tls", took, &flow.Error{
		Class: flow.BadCertificate,
		Op:    "tls",
		Err:   fmt.Errorf("not verified: %w", err),
		Hint:  "clients reject this certificate; check its names, dates and issuer, and what the name resolves to",
	}, says)
	return false
}

// verify verifies a chain of certificates as clients do.
func (x *explanation) verify(chain []*x509.Certificate) error {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM([]byte(x.request.CA))
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		DNSName:       x.rec.Host,
		Roots:         roots,
		Intermediates: intermediates,
	})
	return err
}

// probeHTTP requests the URL and reports the status of the answer. It leaves the
// body unread, which may have no end: closing the connection drops it.
func (x *explanation) probeHTTP(conn net.Conn) {
	u := x.url
	if u == nil {
		u = &url.URL{Scheme: "http", Host: x.rec.Target(), Path: "/"}
	}
	start := time.Now()
	conn.SetDeadline(start.Add(probeTime))
	resp, err := get(conn, u)
	if err != nil {
		x.fail("http", time.Since(start), probeError("HTTP answer", err, x.TLS != nil && x.TLS.WantsCertificate))
		return
	}
	x.HTTP = resp.Proto + " " + resp.Status
	outcome := status.OK
	if resp.StatusCode >= 400 {
		outcome = status.Warn
	}
	says := x.HTTP
	if l := resp.Header.Get("Location"); l != "" {
		says += ", to " + l
	}
	x.add("http", outcome, time.Since(start), says)
}

// get requests u over conn and returns the answer without its body. It skips
// interim answers, of status 1xx (RFC 9110 section 15.2), but for 101.
func get(conn net.Conn, u *url.URL) (*http.Response, error) {
	req := &http.Request{
		Method: http.MethodGet,
		URL:    u,
		Host:   u.Host,
		Close:  true,
		Header: http.Header{"User-Agent": {"pando-explain"}},
	}
	if u.User != nil { // clients send it as HTTP Basic
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	head := &io.LimitedReader{R: conn, N: maxHead}
	br := bufio.NewReader(head)
	for {
		resp, err := http.ReadResponse(br, req)
		switch {
		case err != nil && head.N <= 0:
			return nil, errHeadTooLarge
		case err != nil:
			return nil, err
		case resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols:
			return resp, nil
		}
	}
}

// probeError gives the failure of an open connection its class. op names what
// failed. wantsCertificate reports whether the target asked for a client
// certificate.
func probeError(op string, err error, wantsCertificate bool) error {
	fe := &flow.Error{
		Class: flow.BadResponse,
		Op:    "probe",
		Err:   fmt.Errorf("%s: %w", op, err),
		Hint:  "the target speaks another protocol on this port, or refuses this client",
	}
	netErr, _ := errors.AsType[net.Error](err)
	switch {
	case netErr != nil && netErr.Timeout(), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		fe.Class = flow.Timeout
		fe.Hint = "the target accepted the connection and then sent nothing; it may be overloaded, or wait for another protocol"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		fe.Class = flow.Reset
		fe.Hint = "the target closed the connection; check for a load balancer without a backend, or a filter, in between"
	}
	if wantsCertificate {
		fe.Hint = "the target asks for a client certificate, and explain sends none; clients that have one may succeed"
	}
	return fe
}
