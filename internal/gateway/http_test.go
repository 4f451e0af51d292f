package gateway_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testnet"
)

func TestCurlAbsoluteForm(t *testing.T) { userspace(t, sharedGateway, curlAbsoluteForm) }

func curlAbsoluteForm(t *testing.T, w *world) {
	out := w.curl(t, "-x", "http://"+w.addr, "http://"+testnet.APIName+"/v1?a=b%20c")
	if !strings.Contains(out, `"path":"/v1"`) || !strings.Contains(out, `"host":"`+testnet.APIName+`"`) {
		t.Errorf("the API answered %s, want the path and the host of the request", out)
	}
}

// bigFile is several times what the buffers on its way hold before they grow, so
// it has to be streamed.
func bigFile(t *testing.T, w *world) (path string, data []byte) {
	data = bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	path = filepath.Join(w.dir, "big")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func TestCurlUpload(t *testing.T) { eachMode(t, sharedGateway, curlUpload) }

func curlUpload(t *testing.T, w *world) {
	path, data := bigFile(t, w)
	for _, args := range [][]string{
		{"-x", "http://" + w.addr, "-T", path},
		{"-x", "http://" + w.addr, "-T", path, "-H", "Transfer-Encoding: chunked"},
		{"-x", "http://" + w.addr, "-p", "-T", path},
		{"-x", "socks5h://" + w.addr, "-T", path},
	} {
		out := w.curl(t, append(args, "http://"+w.origin.host+"/echo")...)
		if out != string(data) {
			t.Errorf("curl %v: %d bytes came back, want %d", args, len(out), len(data))
		}
	}
}

func TestCurlContinue(t *testing.T) { userspace(t, sharedGateway, curlContinue) }

func curlContinue(t *testing.T, w *world) {
	path, data := bigFile(t, w)
	out := w.curl(t, "-v", "-o", "/dev/null", "-x", "http://"+w.addr, "-H", "Expect: 100-continue", "--expect100-timeout", "60", "--data-binary", "@"+path, "http://"+w.origin.host+"/echo")
	if !strings.Contains(out, "< HTTP/1.1 100 Continue") || !strings.Contains(out, "< HTTP/1.1 200") {
		t.Errorf("curl saw no 100 and 200 (%d bytes were to be sent):\n%s", len(data), out)
	}
	// When an origin refuses, its answer comes before the body is sent.
	out = w.curl(t, "-v", "-o", "/dev/null", "-w", "sent %{size_upload} bytes", "-x", "http://"+w.addr, "-H", "Expect: 100-continue", "--expect100-timeout", "60", "--data-binary", "@"+path, "http://"+w.origin.host+"/early")
	if !strings.Contains(out, "< HTTP/1.1 413") || !strings.Contains(out, "sent 0 bytes") {
		t.Errorf("an origin that refuses: curl got\n%s\nwant 413 and 0 bytes sent", out)
	}
}

func TestCurlHead204And304(t *testing.T) { userspace(t, sharedGateway, curlBodiless) }

func curlBodiless(t *testing.T, w *world) {
	for path, want := range map[string]string{"/echo": "200", "/status/204": "204", "/status/304": "304"} {
		args := []string{"-i", "-x", "http://" + w.addr, "http://" + w.origin.host + path}
		if path == "/echo" {
			args = append([]string{"-I"}, args...)
		}
		if out := w.curl(t, args...); !strings.Contains(out, "HTTP/1.1 "+want) {
			t.Errorf("%s: got\n%s\nwant %s", path, out, want)
		}
	}
}

func TestCurlHTTP10(t *testing.T) { userspace(t, sharedGateway, curlHTTP10) }

func curlHTTP10(t *testing.T, w *world) {
	out := w.curl(t, "-0", "-i", "-x", "http://"+w.addr, "http://"+w.origin.host+"/stream")
	if !strings.HasSuffix(out, "tick 0\ntick 1\ntick 2\n") || strings.Contains(out, "Transfer-Encoding") {
		t.Errorf("an HTTP/1.0 client got:\n%s", out)
	}
	c := w.raw(t)
	for range 2 { // kept alive on request
		fmt.Fprintf(c, "GET http://%s/echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", w.origin.host)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("Connection") != "keep-alive" {
			t.Fatalf("got %v, %v; want 200 and Connection: keep-alive", resp, err)
		}
	}
}

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
	if n := w.origin.connections() - before; n > 2 {
		t.Errorf("20 requests took %d connections to the origin, want them pooled", n)
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

func TestStaleOriginConnection(t *testing.T) { userspace(t, sharedGateway, staleOrigin) }

// staleOrigin checks that an origin which closes a pooled connection does not
// fail the next request.
func staleOrigin(t *testing.T, w *world) {
	var served int
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		served++
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // keeps alive, and then doesn't
		}
	}))
	c := w.raw(t)
	br := bufio.NewReader(c)
	for i := range 3 {
		fmt.Fprintf(c, "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", target)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("request %d: %v, %v", i, resp, err)
		}
		io.ReadAll(resp.Body)
		time.Sleep(200 * time.Millisecond) // for the origin's end to arrive, of which nothing tells before the connection is used
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

func TestEarlyResponse(t *testing.T) { userspace(t, sharedGateway, earlyResponse) }

// earlyResponse checks an origin that answers while the body is still coming.
func earlyResponse(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "POST http://%s/early HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nsome", w.origin.host)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("got %v, %v; want 413", resp, err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "no thanks\n" {
		t.Errorf("the body is %q, %v; want no thanks", b, err)
	}
	if !resp.Close {
		t.Error("the connection is kept open, with half a request on it")
	}
}

func TestStreamsAsItComes(t *testing.T) { userspace(t, sharedGateway, streams) }

// streams checks that a response is passed on as it comes: the origin writes its
// second line when the client has the first one.
func streams(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/gated HTTP/1.1\r\nHost: x\r\n\r\n", w.origin.host)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(resp.Body)
	if line, err := br.ReadString('\n'); err != nil || line != "first\n" {
		t.Fatalf("the first line is %q, %v; want first, before the origin has ended", line, err)
	}
	close(w.origin.gate)
	if line, err := br.ReadString('\n'); err != nil || line != "second\n" {
		t.Errorf("the second line is %q, %v; want second", line, err)
	}
}

func TestTruncatedResponse(t *testing.T) { userspace(t, sharedGateway, truncatedResponse) }

func truncatedResponse(t *testing.T, w *world) {
	for framing, response := range map[string]string{
		"length": "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this",
		"chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
	} {
		target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
			defer c.Close()
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, response)
		}))
		c := w.raw(t)
		fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
		}
		if err == nil {
			t.Errorf("%s: a truncated response came through as a whole one", framing)
		}
		if f := w.flows.find(t, target); f["class"] != "reset" {
			t.Errorf("%s: flow line %v, want class reset", framing, f)
		}
	}
}

func TestBadRequests(t *testing.T) { userspace(t, sharedGateway, badRequests) }

func badRequests(t *testing.T, w *world) {
	for name, c := range map[string]struct {
		request, want string
		status        int
	}{
		"origin_form":    {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "this port is a proxy", 400},
		"https":          {"GET https://" + testnet.APIName + "/ HTTP/1.1\r\nHost: x\r\n\r\n", "use CONNECT", 400},
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
		"huge_header":    {"GET http://" + w.origin.host + "/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100_000) + "\r\n\r\n", "larger than this gateway accepts", 431},
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

func TestReplayAfterALostRace(t *testing.T) { userspace(t, sharedGateway, replay) }

// replay checks an origin that closes a pooled connection just as the next
// request arrives. It has not seen that request, which is sent again, once, if
// its method allows that.
func replay(t *testing.T, w *world) {
	for _, c := range []struct {
		request string
		status  int
	}{
		{"GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		{"POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 502},
	} {
		var conns atomic.Int32
		target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
			defer c.Close()
			br := bufio.NewReader(c)
			first := conns.Add(1) == 1
			for i := 0; ; i++ {
				req, err := http.ReadRequest(br)
				if err != nil || first && i == 1 {
					return
				}
				io.Copy(io.Discard, req.Body)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}))
		conn := w.raw(t)
		br := bufio.NewReader(conn)
		for i, want := range []int{200, c.status} {
			fmt.Fprintf(conn, c.request, target)
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != want {
				t.Fatalf("%.4s request %d: %v, %v; want %d", c.request, i, resp, err, want)
			}
			io.ReadAll(resp.Body)
		}
	}
}

func TestBadResponses(t *testing.T) { userspace(t, sharedGateway, badResponses) }

// badResponses checks that an answer which is not HTTP has class bad_response,
// and a connection that ends too early has class reset.
func badResponses(t *testing.T, w *world) {
	answer := make(chan string, 1)
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, <-answer)
	}))
	for text, class := range map[string]string{
		"HELLO\r\n\r\n": "bad_response",
		"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n": "bad_response",
		"":             "reset",
		"HTTP/1.1 200": "reset",
	} {
		c := w.raw(t)
		answer <- text
		fmt.Fprintf(c, "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", target)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 502 || !strings.Contains(resp.Header.Get("Proxy-Status"), class) {
			t.Errorf("%q: %v, %v; want 502 and %s", text, resp, err, class)
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

func TestHugeResponseHead(t *testing.T) { userspace(t, sharedGateway, hugeResponseHead) }

// hugeResponseHead checks that a response head without an end does not fill the
// memory.
func hugeResponseHead(t *testing.T, w *world) {
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		line := []byte("X-Filler: " + strings.Repeat("f", 1000) + "\r\n")
		for {
			if _, err := c.Write(line); err != nil {
				return
			}
		}
	}))
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 502 {
		t.Errorf("%v, %v; want 502", resp, err)
	}
}

func TestConnectionAuthenticationIsNotShared(t *testing.T) {
	userspace(t, sharedGateway, connectionAuth)
}

// connectionAuth checks that an origin which authenticates connections (NTLM)
// sees each client on a connection of its own.
func connectionAuth(t *testing.T, w *world) {
	conns := make(chan net.Conn, 4)
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		conns <- c
		defer c.Close()
		br := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}))
	for _, authorization := range []string{"Authorization: NTLM TlRMTVNTUAAB\r\n", ""} {
		c := w.raw(t)
		fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n%s\r\n", target, authorization)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("got %v, %v; want 200", resp, err)
		}
		io.ReadAll(resp.Body)
	}
	if n := len(conns); n != 2 {
		t.Errorf("two clients had %d connections to the origin, want 2", n)
	}
}
