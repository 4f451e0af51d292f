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
)

// talkTime bounds a handshake, and an answer.
const talkTime = 10 * time.Second

// TLS is what a target showed of itself.
type TLS struct {
	Version  string    `json:"version"`
	Protocol string    `json:"protocol,omitempty"` // agreed upon by ALPN
	Names    []string  `json:"names"`
	Issuer   string    `json:"issuer"`
	Expires  time.Time `json:"expires"`
	Verified bool      `json:"verified"`
	// WantsCertificate says that the target asked for a client's.
	WantsCertificate bool   `json:"wantsCertificate,omitempty"`
	Err              string `json:"err,omitempty"` // why it is not
}

// talk is what comes after the road: TLS, and HTTP in it.
func (w *walk) talk(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if w.request.TLS || w.url == nil && w.rec.Port == 443 {
		tc, ok := w.handshake(ctx, conn)
		if !ok {
			return
		}
		conn = tc
	}
	if w.request.HTTP {
		w.get(conn)
	}
}

// handshake shakes hands, whoever the target proves to be, and then judges that.
func (w *walk) handshake(ctx context.Context, conn net.Conn) (*tls.Conn, bool) {
	ctx, cancel := context.WithTimeout(ctx, talkTime)
	defer cancel()
	asked := false
	conf := &tls.Config{ServerName: w.rec.Host, InsecureSkipVerify: true} // judged below
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return new(tls.Certificate), nil // none
	}
	if w.request.HTTP {
		conf.NextProtos = []string{"http/1.1"}
	}
	start := time.Now()
	tc := tls.Client(conn, conf)
	if err := tc.HandshakeContext(ctx); err != nil {
		w.fail("tls", time.Since(start), broken("TLS handshake", err, asked))
		return nil, false
	}
	took, state := time.Since(start), tc.ConnectionState()
	leaf := state.PeerCertificates[0]
	w.Report.TLS = &TLS{Version: tls.VersionName(state.Version), Protocol: state.NegotiatedProtocol, Names: leaf.DNSNames, Issuer: leaf.Issuer.String(), Expires: leaf.NotAfter, WantsCertificate: asked}
	for _, ip := range leaf.IPAddresses {
		w.Report.TLS.Names = append(w.Report.TLS.Names, ip.String())
	}
	says := fmt.Sprintf("%s, for %s, issued by %s, expires %s", w.Report.TLS.Version, strings.Join(w.Report.TLS.Names, " "), w.Report.TLS.Issuer, leaf.NotAfter.UTC().Format(time.DateOnly))
	err := w.verify(state.PeerCertificates)
	var detail []string
	if asked {
		detail = append(detail, "it asks for a client's certificate, and none was given here: it may still turn this connection away")
	}
	if w.Report.TLS.Verified = err == nil; err == nil {
		status := OK
		if asked {
			status = Warn
		}
		w.add("tls", status, took, says+", verified", detail...)
		return tc, true
	}
	w.Report.TLS.Err = err.Error()
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown && w.request.CA == "" {
		w.add("tls", Warn, took, says, append(detail, "not verified: "+err.Error()+"; clients that trust its authority don't mind: give it with --ca")...)
		return tc, true
	}
	w.fail("tls", took, &flow.Error{Class: flow.BadResponse, Op: "tls", Err: fmt.Errorf("not verified: %w", err),
		Hint: "clients will not take this certificate: look at its names, its dates and its issuer, and at what the name resolves to"}, says)
	return nil, false
}

// verify judges a chain as clients do.
func (w *walk) verify(chain []*x509.Certificate) error {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM([]byte(w.request.CA))
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{DNSName: w.rec.Host, Roots: roots, Intermediates: others})
	return err
}

// get asks for the URL and tells the status. The body is not wanted, and may have
// no end: it goes with the connection.
func (w *walk) get(conn net.Conn) {
	u := w.url
	if u == nil {
		u = &url.URL{Scheme: "http", Host: w.rec.Target(), Path: "/"}
	}
	start := time.Now()
	conn.SetDeadline(start.Add(talkTime))
	req := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Close: true, Header: http.Header{"User-Agent": {"pando-explain"}}}
	if u.User != nil { // as clients do
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
	err := req.Write(conn)
	var resp *http.Response
	head := &io.LimitedReader{R: conn, N: 1 << 20}
	for br := bufio.NewReader(head); err == nil; {
		if resp, err = http.ReadResponse(br, req); err == nil && (resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols) {
			break
		}
	}
	if err != nil && head.N <= 0 {
		err = errors.New("its head is larger than 1 MiB")
	}
	if err != nil {
		w.fail("http", time.Since(start), broken("HTTP answer", err, w.Report.TLS != nil && w.Report.TLS.WantsCertificate))
		return
	}
	w.HTTP = resp.Proto + " " + resp.Status
	status, says := OK, w.HTTP
	if resp.StatusCode >= 400 {
		status = Warn
	}
	if l := resp.Header.Get("Location"); l != "" {
		says += ", to " + l
	}
	w.add("http", status, time.Since(start), says)
}

// broken gives an error of an open connection its class. certificate says that the
// target wanted a client's.
func broken(what string, err error, certificate bool) error {
	fe := &flow.Error{Class: flow.BadResponse, Op: "talk", Err: fmt.Errorf("%s: %w", what, err), Hint: "the target speaks something else on this port, or refuses this client"}
	switch ne, _ := errors.AsType[net.Error](err); {
	case ne != nil && ne.Timeout(), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		fe.Class, fe.Hint = flow.Timeout, "the target took the connection and then said nothing: is it overloaded, or does it wait for another protocol?"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		fe.Class, fe.Hint = flow.Reset, "the target closed the connection: is there a load balancer without a backend, or a filter, in between?"
	}
	if certificate {
		fe.Hint = "the target wants a client's certificate, which is not given here; clients that have one may fare better"
	}
	return fe
}
