package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/testnet"
)

// errorTargets are targets with the class that each fails with.
var errorTargets = []struct {
	class, host, port string
	status            int
	proxyStatus       string
	reply             byte
}{
	{"refused", testnet.APIName, "81", 502, "connection_refused", 5},
	{"not_found", "nothing." + testnet.Zone, "80", 502, "dns_error", 4},
	{"no_route", "192.0.2.1", "80", 502, "destination_ip_unroutable", 3},
	{"denied", "127.0.0.1", "80", 403, "http_request_denied", 2},
	{"bad_request", "no such name", "80", 400, "http_request_error", 1},
	{"bad_request", "1.2.3.4.5", "80", 400, "http_request_error", 1},
}

func TestErrorClassesHTTP(t *testing.T) { userspace(t, sharedGateway, errorClassesHTTP) }

func errorClassesHTTP(t *testing.T, w *world) {
	for _, e := range errorTargets {
		if strings.Contains(e.host, " ") {
			continue // no request line can hold it
		}
		for _, front := range []string{"CONNECT %s:%s HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://%s:%s/ HTTP/1.1\r\nHost: x\r\n\r\n"} {
			c := w.raw(t)
			fmt.Fprintf(c, front, e.host, e.port)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			ps := resp.Header.Get("Proxy-Status")
			if resp.StatusCode != e.status || !strings.HasPrefix(ps, "gateway; error="+e.proxyStatus+"; details=\""+e.class) || !strings.Contains(string(body), "("+e.class+")") {
				t.Errorf("%s: got %s\nProxy-Status: %s\n%s\nwant %d, error %s and class %s", e.host, resp.Status, ps, body, e.status, e.proxyStatus, e.class)
			}
		}
	}
}

func TestHalfClosePlainHTTP(t *testing.T) { userspace(t, sharedGateway, halfClosePlain) }

// halfClosePlain checks a client whose end comes with its request, as that of
// `nc -N` does.
func halfClosePlain(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/stream HTTP/1.1\r\nHost: x\r\n\r\n", w.origin.host)
	c.CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(b), "tick 2") {
		t.Errorf("the client got %q, %v; want the whole answer", b, err)
	}
}

func TestHopByHop(t *testing.T) { userspace(t, sharedGateway, hopByHop) }

func hopByHop(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/headers HTTP/1.1\r\nHost: other.example\r\nConnection: close, X-Drop, keep-alive\r\nX-Drop: 1\r\nX-Keep: 2\r\n"+
		"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nKeep-Alive: 5\r\nTE: trailers, gzip\r\nUpgrade: foo\r\nVia: 1.0 before\r\n\r\n", w.origin.host)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	got := string(b)
	for _, want := range []string{"Host: " + w.origin.host + "\n", "X-Keep: 2\r\n", "Via: 1.0 before, 1.1 gateway\r\n", "Te: trailers\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the origin did not see %q", want)
		}
	}
	for _, not := range []string{"X-Drop", "Proxy-", "Keep-Alive", "Upgrade", "X-Forwarded", "Forwarded", "Accept-Encoding", "User-Agent", "gzip"} {
		if strings.Contains(got, not) {
			t.Errorf("the origin saw %q", not)
		}
	}
	if t.Failed() {
		t.Logf("the origin saw:\n%s", got)
	}
	if v := resp.Header.Get("Via"); v != "1.1 gateway" {
		t.Errorf("the client saw Via %q", v)
	}
}

func TestKeepAliveAndOriginPool(t *testing.T) { userspace(t, sharedGateway, keepAlive) }

func keepAlive(t *testing.T, w *world) {
	c := w.raw(t)
	br := bufio.NewReader(c)
	before := w.origin.connections()
	for i := range 20 {
		fmt.Fprintf(c, "GET http://%s/headers HTTP/1.1\r\nHost: x\r\n\r\n", w.origin.host)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("request %d: %v, %v; want 200", i, resp, err)
		}
		io.Copy(io.Discard, resp.Body)
	}
	if n := w.origin.connections() - before; n > 2 {
		t.Errorf("20 requests took %d connections to the origin, want them pooled", n)
	}
	for i := range 20 { // a POST has a connection of its own to the origin
		body := strings.Repeat("b", i*1000)
		fmt.Fprintf(c, "POST http://%s/echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", w.origin.host, len(body), body)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != body {
			t.Fatalf("request %d: %d bytes came back, want %d", i, len(b), len(body))
		}
	}
	// Pipelined requests are answered in order.
	for i := range 5 {
		fmt.Fprintf(c, "POST http://%s/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d", w.origin.host, i)
	}
	for i := range 5 {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != fmt.Sprint(i) {
			t.Errorf("pipelined request %d was answered %q", i, b)
		}
	}
}

func TestChunkedAndTrailers(t *testing.T) { userspace(t, sharedGateway, trailers) }

func trailers(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "POST http://%s/trailers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Request-Sum\r\n\r\n"+
		"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Request-Sum: eleven\r\n\r\n", w.origin.host)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "hello world" {
		t.Errorf("body %q", b)
	}
	if got := resp.Trailer.Get("X-Sum"); got != "11 eleven" {
		t.Errorf("trailer %q, want \"11 eleven\"", got)
	}
}

func TestBadRequests(t *testing.T) { userspace(t, sharedGateway, badRequests) }

func badRequests(t *testing.T, w *world) {
	for name, c := range map[string]struct {
		request, want string
		status        int
	}{
		"origin_form":    {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "this port is a proxy", 400},
		"https":          {"GET https://" + testnet.APIName + "/ HTTP/1.1\r\nHost: x\r\n\r\n", "set HTTPS_PROXY", 400},
		"ftp":            {"GET ftp://" + testnet.APIName + "/ HTTP/1.1\r\nHost: x\r\n\r\n", "only http", 400},
		"userinfo":       {"GET http://a:b@" + testnet.APIName + "/ HTTP/1.1\r\nHost: x\r\n\r\n", "user name", 400},
		"connect_noport": {"CONNECT " + testnet.APIName + " HTTP/1.1\r\nHost: x\r\n\r\n", "host:port", 400},
		"port_0":         {"CONNECT " + testnet.APIName + ":0 HTTP/1.1\r\nHost: x\r\n\r\n", "host:port", 400},
		"port_99999":     {"GET http://" + testnet.APIName + ":99999/ HTTP/1.1\r\nHost: x\r\n\r\n", "1 to 65535", 400},
		"garbage":        {"HELLO\r\n\r\n", "could not be understood", 400},
		"header":         {"GET http://" + w.origin.host + "/ HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n", "well-formed", 400},
		"no_host":        {"GET http://" + w.origin.host + "/ HTTP/1.1\r\n\r\n", "needs a Host", 400},
		"two_hosts":      {"GET http://" + w.origin.host + "/ HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", "could not be understood", 400},
		"both_framings":  {"POST http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "not both", 400},
		"chunked_http10": {"POST http://" + w.origin.host + "/echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0", 400},
		"bad_escape":     {"GET http://" + w.origin.host + "/%zz HTTP/1.1\r\nHost: x\r\n\r\n", "could not be understood", 400},
		"bad_port":       {"GET http://" + testnet.APIName + ":abc/ HTTP/1.1\r\nHost: x\r\n\r\n", "could not be understood", 400},
		"bad_connect":    {"CONNECT foo:bar HTTP/1.1\r\nHost: x\r\n\r\n", "could not be understood", 400},
		"space_length":   {"POST http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\nContent-Length : 60\r\n\r\n", "without a space", 400},
		"space_encoding": {"POST http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n", "without a space", 400},
		"two_lengths":    {"POST http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "could not be understood", 400},
		"huge_header":    {"GET http://" + w.origin.host + "/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100_000) + "\r\n\r\n", "larger than Pando accepts", 431},
	} {
		conn := w.raw(t)
		io.WriteString(conn, c.request)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: no response: %v", name, err)
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != c.status || !strings.Contains(string(b), c.want) || (c.want == "not both" || c.want == "without a space" || c.want == "well-formed") && !resp.Close {
			t.Errorf("%s: got %s, closed %v\n%s\nwant %d and %q", name, resp.Status, resp.Close, b, c.status, c.want)
		}
	}
	// An empty line before a request is ignored (RFC 9112 section 2.2).
	conn := w.raw(t)
	br := bufio.NewReader(conn)
	for range 2 {
		fmt.Fprintf(conn, "\r\nPOST http://%s/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok", w.origin.host)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != "ok" {
			t.Errorf("after an empty line: got %s %q, want the body ok", resp.Status, b)
		}
	}
}

func TestBrokenRequestBody(t *testing.T) { userspace(t, sharedGateway, brokenBody) }

// brokenBody checks that a request body which breaks off is the client's
// mistake.
func brokenBody(t *testing.T, w *world) {
	for name, request := range map[string]string{
		"chunk":  "POST http://%s/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nxx",
		"length": "POST http://%s/trailers HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
	} {
		c := w.raw(t)
		fmt.Fprintf(c, request, w.origin.host)
		c.CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 400 || !resp.Close {
			t.Errorf("%s: %v, %v; want 400 and a closed connection", name, resp, err)
		}
	}
}

func TestConnectionAuthenticationIsNotShared(t *testing.T) {
	userspace(t, sharedGateway, connectionAuth)
}
