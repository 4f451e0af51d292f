package httpproxy

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/secure"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// getSecure is what BusyBox wget sends to a proxy for an https:// URL, but for
// Connection: close. The name is in the certificate of package httptest.
const getSecure = "GET https://example.com/x HTTP/1.1\r\nHost: example.com\r\nUser-Agent: Wget\r\n\r\n"

// startSecure serves a proxy that opens TLS to its origin, which serve is. It does not trust
// the origin's authority if untrusted is set.
func startSecure(t *testing.T, untrusted bool, serve func(*tls.Conn), edit func(*Proxy)) testProxy {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	s.Close()
	roots := x509.NewCertPool()
	if !untrusted {
		roots.AddCert(s.Certificate())
	}
	addr := testkit.ServeConns(t, func(c *net.TCPConn) {
		defer c.Close()
		conn := tls.Server(c, &tls.Config{Certificates: s.TLS.Certificates})
		if conn.Handshake() == nil {
			serve(conn)
		}
	})
	return startProxy(t, addr, func(p *Proxy) {
		p.Secure = secure.New(roots)
		if edit != nil {
			edit(p)
		}
	})
}

// answerSecure answers each request with what the origin sees of it.
func answerSecure(conns *atomic.Int32) func(*tls.Conn) {
	return func(c *tls.Conn) {
		conns.Add(1)
		br := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(req.Body)
			seen := fmt.Sprintf("%s %s, Host %s, SNI %s, body %q", req.Method, req.RequestURI, req.Host, c.ConnectionState().ServerName, body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(seen), seen)
		}
	}
}

// TestSecureRequests checks that requests for https:// URLs reach their origin over TLS, and
// that connections are used again for them alone.
func TestSecureRequests(t *testing.T) {
	var conns atomic.Int32
	p := startSecure(t, false, answerSecure(&conns), nil)
	client := p.client(t, victim)
	for i, c := range []struct {
		request, want string
		conns         int32
	}{
		{getSecure, `GET /x, Host example.com, SNI example.com, body ""`, 1},
		{getSecure, `GET /x, Host example.com, SNI example.com, body ""`, 1},
		{"POST https://EXAMPLE.com:443/y?z HTTP/1.1\r\nHost: other\r\nContent-Length: 2\r\n\r\nhi", `POST /y?z, Host example.com, SNI example.com, body "hi"`, 2},
		{"PUT https://example.com/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", `PUT /, Host example.com, SNI example.com, body "hi"`, 3},
		{"GET https://example.com:8443 HTTP/1.1\r\nHost: a\r\n\r\n", `GET /, Host example.com:8443, SNI example.com, body ""`, 3},
		{"GET https://127.0.0.1/ HTTP/1.1\r\nHost: a\r\n\r\n", `GET /, Host 127.0.0.1, SNI , body ""`, 4},
		{getSecure, `GET /x, Host example.com, SNI example.com, body ""`, 4},
	} {
		if status, body := client.ask(t, c.request); status != 200 || body != c.want {
			t.Errorf("request %d: status %d, %q; want 200, %q", i, status, body, c.want)
		}
		if n := conns.Load(); n != c.conns {
			t.Errorf("after request %d the origin has got %d connections, want %d", i, n, c.conns)
		}
	}
	recs := p.road.Finished()
	if rec := recs[0]; rec.Target() != "example.com:443" || rec.Front != flow.HTTP || rec.Status != 200 || rec.Dial <= 0 {
		t.Errorf("the record is %+v, want target example.com:443, front http and status 200", rec)
	}
}

// TestSecureAndPlain checks that no request uses a connection of the other kind.
func TestSecureAndPlain(t *testing.T) {
	p := startSecure(t, false, answerSecure(new(atomic.Int32)), nil)
	client := p.client(t, victim)
	client.ask(t, getSecure)
	status, body := client.ask(t, "GET http://example.com:443/x HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
	if rec := p.road.AwaitFinished(t, 2); status == 200 || rec.Reused {
		t.Errorf("a request for http:// to the same port: status %d, %q, reused %v; want a failure of its own connection", status, body, rec.Reused)
	}
}

// TestSecureStreams checks that events reach the client as they come over TLS, and that a
// body may end with its connection.
func TestSecureStreams(t *testing.T) {
	next := make(chan struct{})
	p := startSecure(t, false, func(c *tls.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
		for range 3 {
			<-next
			io.WriteString(c, "data: x\n\n")
		}
		c.Close()
	}, nil)
	client := p.client(t, victim)
	io.WriteString(client, getSecure)
	resp, err := http.ReadResponse(client.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		next <- struct{}{}
		b := make([]byte, len("data: x\n\n"))
		if _, err := io.ReadFull(resp.Body, b); err != nil {
			t.Fatal(err)
		}
	}
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("behind the events: %q, error %v; want the end", rest, err)
	}
}

// TestSecureIdleEnds checks that an origin which ends an idle connection with TLS costs no
// request.
func TestSecureIdleEnds(t *testing.T) {
	p := startSecure(t, false, func(c *tls.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		c.CloseWrite()
	}, nil)
	client := p.client(t, victim)
	for range 5 {
		if status, body := client.ask(t, getSecure); status != 200 || body != "ok" {
			t.Errorf("status %d, %q; want 200, ok", status, body)
		}
	}
}

// TestUntrusted checks what a client learns when the certificate of its origin is not
// accepted: the class, the hint and the error type of RFC 9209. The origin gets nothing.
func TestUntrusted(t *testing.T) {
	for _, c := range []struct {
		name, request string
		untrusted     bool
		hint          string
	}{
		{"authority", getSecure, true, "http.caFile"},
		{"authority_post", "POST https://example.com/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", true, "http.caFile"},
		{"name", "GET https://example.org/ HTTP/1.1\r\nHost: a\r\n\r\n", false, "other names"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startSecure(t, c.untrusted, func(*tls.Conn) { t.Error("the handshake is complete") }, nil)
			client := p.client(t, victim)
			io.WriteString(client, c.request)
			resp, err := http.ReadResponse(client.br, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.Status != "502 Target's certificate is not trusted by Pando" || !strings.Contains(string(body), "bad_certificate") || !strings.Contains(string(body), c.hint) {
				t.Errorf("%s\n%s\nwant 502, the class bad_certificate and a hint with %q", resp.Status, body, c.hint)
			}
			if got := resp.Header.Get("Proxy-Status"); !strings.Contains(got, "error=tls_certificate_error") {
				t.Errorf("Proxy-Status %q, want tls_certificate_error", got)
			}
			if rec := p.road.AwaitFinished(t, 1); flow.ClassOf(rec.Err) != flow.BadCertificate {
				t.Errorf("the record has the error %v, want class bad_certificate", rec.Err)
			}
		})
	}
}

// TestSecureIsOff checks the refusal without the setting. The connection stays usable.
func TestSecureIsOff(t *testing.T) {
	p := startProxy(t, testkit.ServeConns(t, readsBodies), nil)
	client := p.client(t, victim)
	for _, request := range []string{getSecure, strings.Replace(getSecure, "https", "wss", 1)} {
		if status, body := client.ask(t, request); status != 400 || !strings.Contains(body, "HTTPS_PROXY") || !strings.Contains(body, "http.originTLS") {
			t.Errorf("status %d, %q; want 400 and a hint with HTTPS_PROXY", status, body)
		}
	}
	if status, _ := client.ask(t, getA); status != 200 {
		t.Errorf("the next request: status %d, want 200", status)
	}
}

// TestSecureMemory checks that TLS costs memory while a request lasts, and that it is given
// back.
func TestSecureMemory(t *testing.T) {
	m := &counting{}
	taken := make(chan int64, 1)
	p := startSecure(t, false, func(c *tls.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		taken <- m.held.Load()
		io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	}, func(p *Proxy) { p.Memory = m })
	p.client(t, victim).ask(t, getSecure)
	if n := <-taken; n < 64<<10 {
		t.Errorf("a request over TLS takes %d bytes, want 64 KiB or more", n)
	}
	testkit.Eventually(t, "the memory to be given back", func() bool { return m.held.Load() == 0 })
}

// counting is memory without a bound, which counts what is held.
type counting struct{ held atomic.Int64 }

func (m *counting) Take(_ netip.Addr, n int64) error {
	m.held.Add(n)
	return nil
}

func (m *counting) Add(_ netip.Addr, n int64) { m.held.Add(n) }

// TestPoolOfServers checks that a connection serves only the server whose certificate was
// verified.
func TestPoolOfServers(t *testing.T) {
	outcomes := make(chan origin.Outcome, 9)
	var conns atomic.Int32
	p := startSecure(t, false, answerSecure(&conns), func(p *Proxy) { p.Released = func(o origin.Outcome) { outcomes <- o } })
	client := p.client(t, victim)
	for i, name := range []string{"example.com", "127.0.0.1", "example.com", "127.0.0.1"} {
		client.ask(t, "GET https://"+name+"/ HTTP/1.1\r\nHost: a\r\n\r\n")
		if o := <-outcomes; o != origin.Kept {
			t.Errorf("request %d: outcome %s, want %s", i, o, origin.Kept)
		}
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("the origin has got %d connections, want 2: one for each server", n)
	}
}
