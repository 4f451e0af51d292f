package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testnet"
)

// oneGateway are the cases that share a gateway with the default policy.
var oneGateway = []testCase{
	{"curl_connect", curlConnect},
	{"curl_absolute_form", curlAbsoluteForm},
	{"curl_socks5h", curlSOCKS5h},
	{"curl_socks5_ipv4_and_ipv6", curlSOCKS5Address},
	{"curl_upload", curlUpload},
	{"curl_100_continue", curlContinue},
	{"curl_head_204_304", curlBodiless},
	{"curl_http10", curlHTTP10},
	{"ipv6_only_name", ipv6Only},
	{"magicdns_name", magicDNSName},
	{"host_literal_spellings_are_forbidden", forbiddenSpellings},
	{"error_classes_http", errorClassesHTTP},
	{"error_classes_socks5", errorClassesSOCKS5},
	{"half_close_connect", halfCloseConnect},
	{"half_close_socks5", halfCloseSOCKS5},
	{"half_close_plain_http", halfClosePlain},
	{"half_close_target_first", halfCloseTargetFirst},
	{"early_bytes", earlyBytes},
	{"reset_is_passed_on", resetPassedOn},
	{"hop_by_hop_and_via", hopByHop},
	{"keep_alive_and_origin_pool", keepAlive},
	{"stale_origin_connection", staleOrigin},
	{"chunked_and_trailers", trailers},
	{"early_response", earlyResponse},
	{"streams_as_it_comes", streams},
	{"truncated_response", truncatedResponse},
	{"websocket", webSocket},
	{"bad_requests", badRequests},
	{"broken_request_body", brokenBody},
	{"refused_connect", refusedConnect},
	{"huge_response_head", hugeResponseHead},
	{"connection_authentication_is_not_shared", connectionAuth},
	{"loop", loop},
	{"other_protocols", otherProtocols},
}

// ownGateway are the cases that need a gateway of their own.
var ownGateway = []testCase{
	{"one_line_per_flow", oneLinePerFlow},
	{"policy_rules", policyRules},
	{"policy_report", policyReport},
	{"policy_direct_and_own_listener", policyDirect},
	{"host_table", hostTable},
	{"authentication", authentication},
	{"drain", drain},
	{"drain_cuts_late_work", drainCuts},
	{"cloud_gone", cloudGone},
}

func curlConnect(t *testing.T, w *world) {
	out := w.curl(t, "-x", "http://"+w.addr, "https://"+testnet.APIName+"/v1")
	if !strings.Contains(out, `"tls":true`) || !strings.Contains(out, w.gw.Node().Addrs()[0].String()) {
		t.Errorf("the API said %s", out)
	}
	f := w.flows.find(t, testnet.APIName+":443")
	// curl may close with a session ticket unread, which resets the connection.
	if f["front"] != "connect" || f["class"] != "ok" && f["class"] != "canceled" || f["source"] != "zone "+testnet.Zone || f["path"] != "tailnet" || f["addr"] != testnet.APIAddr.String()+":443" {
		t.Errorf("flow line %v", f)
	}
}

func curlAbsoluteForm(t *testing.T, w *world) {
	out := w.curl(t, "-x", "http://"+w.addr, "http://"+testnet.APIName+"/v1?a=b%20c")
	if !strings.Contains(out, `"path":"/v1"`) || !strings.Contains(out, `"host":"`+testnet.APIName+`"`) {
		t.Errorf("the API said %s", out)
	}
}

func curlSOCKS5h(t *testing.T, w *world) {
	out := w.curl(t, "-x", "socks5h://"+w.addr, "https://"+testnet.APIName+"/socks")
	if !strings.Contains(out, `"path":"/socks"`) {
		t.Errorf("the API said %s", out)
	}
}

func curlSOCKS5Address(t *testing.T, w *world) {
	for _, a := range []string{testnet.APIAddr.String(), "[" + testnet.APIAddr6.String() + "]"} {
		out := w.curl(t, "-x", "socks5://"+w.addr, "http://"+a+"/addr")
		if !strings.Contains(out, `"path":"/addr"`) {
			t.Errorf("%s: the API said %s", a, out)
		}
	}
}

// bigFile is larger than all the buffers on its way.
func bigFile(t *testing.T, w *world) (path string, data []byte) {
	data = bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	path = filepath.Join(w.dir, "big")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func curlUpload(t *testing.T, w *world) {
	path, data := bigFile(t, w)
	for _, args := range [][]string{
		{"-x", "http://" + w.addr, "-T", path},
		{"-x", "http://" + w.addr, "-T", path, "-H", "Transfer-Encoding: chunked"},
		{"-x", "http://" + w.addr, "-p", "-T", path},
		{"-x", "socks5h://" + w.addr, "-T", path},
	} {
		out := w.curl(t, append(args, "http://"+originHost+"/echo")...)
		if out != string(data) {
			t.Errorf("curl %v: %d bytes came back, want %d", args, len(out), len(data))
		}
	}
}

func curlContinue(t *testing.T, w *world) {
	path, data := bigFile(t, w)
	out := w.curl(t, "-v", "-o", "/dev/null", "-x", "http://"+w.addr, "-H", "Expect: 100-continue", "--expect100-timeout", "15", "--data-binary", "@"+path, "http://"+originHost+"/echo")
	if !strings.Contains(out, "< HTTP/1.1 100 Continue") || !strings.Contains(out, "< HTTP/1.1 200") {
		t.Errorf("curl saw no 100 and 200 (%d bytes were to be sent):\n%s", len(data), out)
	}
	// And an origin that refuses is heard before the body is sent.
	start := time.Now()
	out = w.curl(t, "-v", "-o", "/dev/null", "-x", "http://"+w.addr, "-H", "Expect: 100-continue", "--expect100-timeout", "15", "--data-binary", "@"+path, "http://"+originHost+"/early")
	if !strings.Contains(out, "< HTTP/1.1 413") || time.Since(start) > 10*time.Second {
		t.Errorf("after %v:\n%s", time.Since(start), out)
	}
}

func curlBodiless(t *testing.T, w *world) {
	for path, want := range map[string]string{"/echo": "200", "/status/204": "204", "/status/304": "304"} {
		args := []string{"-i", "-x", "http://" + w.addr, "http://" + originHost + path}
		if path == "/echo" {
			args = append([]string{"-I"}, args...)
		}
		if out := w.curl(t, args...); !strings.Contains(out, "HTTP/1.1 "+want) {
			t.Errorf("%s:\n%s", path, out)
		}
	}
}

func curlHTTP10(t *testing.T, w *world) {
	out := w.curl(t, "-0", "-i", "-x", "http://"+w.addr, "http://"+originHost+"/stream")
	if !strings.HasSuffix(out, "tick 0\ntick 1\ntick 2\n") || strings.Contains(out, "Transfer-Encoding") {
		t.Errorf("an HTTP/1.0 client got:\n%s", out)
	}
	c := w.raw(t)
	for range 2 { // kept alive on request
		fmt.Fprintf(c, "GET http://%s/echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", originHost)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("Connection") != "keep-alive" {
			t.Fatalf("%v, %v", resp, err)
		}
	}
}

func ipv6Only(t *testing.T, w *world) {
	out := w.curl(t, "-x", "http://"+w.addr, "http://v6only."+testnet.Zone+"/six")
	if !strings.Contains(out, `"path":"/six"`) {
		t.Errorf("the API said %s", out)
	}
	if f := w.flows.find(t, "v6only."); f["addr"] != "["+testnet.APIAddr6.String()+"]:80" {
		t.Errorf("flow line %v", f)
	}
}

// magicDNSName reaches the cloud node itself, by its short and its whole name.
func magicDNSName(t *testing.T, w *world) {
	for _, name := range []string{"cloud." + testnet.MagicSuffix, "cloud"} {
		c := w.raw(t)
		fmt.Fprintf(c, "CONNECT %s:1 HTTP/1.1\r\nHost: x\r\n\r\n", name)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		// Nothing listens on port 1, so the answer is the node's own refusal.
		if resp.StatusCode != 502 || !strings.Contains(resp.Header.Get("Proxy-Status"), "connection_refused") {
			t.Errorf("%s: %s %s", name, resp.Status, resp.Header.Get("Proxy-Status"))
		}
		if f := w.flows.find(t, name+":1"); f["source"] != "magicdns" {
			t.Errorf("flow line %v", f)
		}
	}
}

func forbiddenSpellings(t *testing.T, w *world) {
	w.cloud.SetRecord("evil."+testnet.Zone, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254"))
	for _, host := range []string{
		"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "127.0.0.1.",
		"[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]",
		"169.254.169.254", "2852039166", "[::ffff:a9fe:a9fe]", "[fe80::1]", "[fd00:ec2::254]", "224.0.0.1", "[ff02::1]", "0.0.0.0", "[::]", "0",
		"255.255.255.255", "[fd7a:115c:a1e0:b1a:0:7:7f00:1]", "100.100.100.100", "evil." + testnet.Zone,
	} {
		c := w.raw(t)
		fmt.Fprintf(c, "CONNECT %s:80 HTTP/1.1\r\nHost: x\r\n\r\n", host)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 403 {
			b, _ := io.ReadAll(resp.Body)
			t.Errorf("CONNECT %s:80: %s\n%s", host, resp.Status, b)
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
			if resp.StatusCode != e.status || !strings.HasPrefix(ps, "pando-gateway; error="+e.proxyStatus+"; details=\""+e.class) || !strings.Contains(string(body), "("+e.class+")") {
				t.Errorf("%s: %s\nProxy-Status: %s\n%s", e.host, resp.Status, ps, body)
			}
		}
	}
}

func errorClassesSOCKS5(t *testing.T, w *world) {
	for _, e := range errorTargets {
		c := w.raw(t)
		c.Write([]byte{5, 1, 0})
		expect(t, c, []byte{5, 0})
		var port uint16
		fmt.Sscan(e.port, &port)
		req := append([]byte{5, 1, 0, 3, byte(len(e.host))}, e.host...)
		c.Write(append(req, byte(port>>8), byte(port)))
		expect(t, c, []byte{5, e.reply, 0, 1, 0, 0, 0, 0, 0, 0})
	}
	// What RFC 1928 knows and we do not do.
	for _, r := range []struct {
		req   []byte
		reply byte
	}{
		{[]byte{5, 2, 0, 1, 10, 12, 3, 4, 0, 80}, 7}, // BIND
		{[]byte{5, 3, 0, 1, 0, 0, 0, 0, 0, 0}, 7},    // UDP ASSOCIATE
		{[]byte{5, 1, 0, 9, 10, 12, 3, 4, 0, 80}, 8}, // address type 9
	} {
		c := w.raw(t)
		c.Write([]byte{5, 1, 0})
		expect(t, c, []byte{5, 0})
		c.Write(r.req)
		expect(t, c, []byte{5, r.reply})
	}
}

// countBytes serves connections that say how much they got at its end.
func countBytes(w *world, port uint16) string {
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, port), func(c net.Conn) {
		defer c.Close()
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "got %d", len(b))
	})
	return fmt.Sprintf("%s:%d", testnet.APIName, port)
}

const half = 300_000

func halfCloseConnect(t *testing.T, w *world) {
	c, br := w.connectTo(t, countBytes(w, 7101), "")
	c.Write(make([]byte, half))
	c.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || string(b) != fmt.Sprint("got ", half) {
		t.Errorf("%q, %v", b, err)
	}
	if f := w.flows.find(t, ":7101"); f["up"] != float64(half) || f["down"] != float64(len(fmt.Sprint("got ", half))) || f["class"] != "ok" {
		t.Errorf("flow line %v", f)
	}
}

func halfCloseSOCKS5(t *testing.T, w *world) {
	countBytes(w, 7102)
	c := w.socksTo(t, testnet.APIName, 7102, "")
	c.Write(make([]byte, half))
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != fmt.Sprint("got ", half) {
		t.Errorf("%q, %v", b, err)
	}
}

// halfClosePlain is what `nc -N` does: the client's end comes with its request.
func halfClosePlain(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/stream HTTP/1.1\r\nHost: x\r\n\r\n", originHost)
	c.CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(b), "tick 2") {
		t.Errorf("%q, %v", b, err)
	}
}

func halfCloseTargetFirst(t *testing.T, w *world) {
	got := make(chan int, 2)
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7103), func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "bye")
		c.(interface{ CloseWrite() error }).CloseWrite()
		b, _ := io.ReadAll(c)
		got <- len(b)
	})
	check := func(front string, c *net.TCPConn, r io.Reader) {
		if b, err := io.ReadAll(r); err != nil || string(b) != "bye" {
			t.Errorf("%s: %q, %v", front, b, err)
		}
		c.Write(make([]byte, half))
		c.CloseWrite()
		select {
		case n := <-got:
			if n != half {
				t.Errorf("%s: the target got %d bytes after its own end, want %d", front, n, half)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the target never saw the client's end", front)
		}
	}
	c, br := w.connectTo(t, testnet.APIName+":7103", "")
	check("connect", c, br)
	c = w.socksTo(t, testnet.APIName, 7103, "")
	check("socks5", c, c)
}

// earlyBytes come in one packet with the request, before the tunnel is open.
func earlyBytes(t *testing.T, w *world) {
	target := countBytes(w, 7104)
	c, br := w.connectTo(t, target, strings.Repeat("e", 9000))
	c.CloseWrite()
	if b, _ := io.ReadAll(br); string(b) != "got 9000" {
		t.Errorf("connect: %q", b)
	}
	c = w.socksTo(t, testnet.APIName, 7104, strings.Repeat("e", 9000))
	c.CloseWrite()
	if b, _ := io.ReadAll(c); string(b) != "got 9000" {
		t.Errorf("socks5: %q", b)
	}
}

// resetPassedOn: a broken stream must not look like a whole one.
func resetPassedOn(t *testing.T, w *world) {
	release := make(chan struct{})
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7105), func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "half of it")
		<-release
	})
	failed := make(chan error, 1)
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7106), func(c net.Conn) {
		defer c.Close()
		_, err := io.ReadAll(c)
		failed <- err
	})
	// The client resets: the target sees an error, not an end.
	c, _ := w.connectTo(t, testnet.APIName+":7106", "x")
	time.Sleep(50 * time.Millisecond)
	c.SetLinger(0)
	c.Close()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("the target took a reset for a clean end")
		}
	case <-time.After(10 * time.Second):
		t.Error("the target never heard of the client's reset")
	}
	if f := w.flows.find(t, ":7106"); f["class"] != "canceled" {
		t.Errorf("flow line %v", f)
	}
	close(release)
}

func hopByHop(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/headers HTTP/1.1\r\nHost: other.example\r\nConnection: close, X-Drop, keep-alive\r\nX-Drop: 1\r\nX-Keep: 2\r\n"+
		"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nKeep-Alive: 5\r\nTE: trailers, gzip\r\nUpgrade: foo\r\nVia: 1.0 before\r\n\r\n", originHost)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	got := string(b)
	for _, want := range []string{"Host: " + originHost + "\n", "X-Keep: 2\r\n", "Via: 1.0 before, 1.1 pando-gateway\r\n", "Te: trailers\r\n"} {
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
	if v := resp.Header.Get("Via"); v != "1.1 pando-gateway" {
		t.Errorf("the client saw Via %q", v)
	}
}

func keepAlive(t *testing.T, w *world) {
	c := w.raw(t)
	br := bufio.NewReader(c)
	before := w.origin.connections()
	for i := range 20 {
		body := strings.Repeat("b", i*1000)
		fmt.Fprintf(c, "POST http://%s/echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", originHost, len(body), body)
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
		fmt.Fprintf(c, "POST http://%s/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d", originHost, i)
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

// staleOrigin: an origin closes a pooled connection; the next request must not
// notice.
func staleOrigin(t *testing.T, w *world) {
	var served int
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7107), func(c net.Conn) {
		defer c.Close()
		served++
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // keeps alive, and then doesn't
		}
	})
	c := w.raw(t)
	br := bufio.NewReader(c)
	for i := range 3 {
		fmt.Fprintf(c, "POST http://%s:7107/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", testnet.APIName)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("request %d: %v, %v", i, resp, err)
		}
		io.ReadAll(resp.Body)
		time.Sleep(50 * time.Millisecond) // let the origin's end arrive
	}
}

func trailers(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "POST http://%s/trailers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Request-Sum\r\n\r\n"+
		"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Request-Sum: eleven\r\n\r\n", originHost)
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

// earlyResponse: the origin answers while the body is still coming.
func earlyResponse(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "POST http://%s/early HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nsome", originHost)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("%v, %v", resp, err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "no thanks\n" {
		t.Errorf("%q, %v", b, err)
	}
	if !resp.Close {
		t.Error("the connection is kept, with half a request on it")
	}
}

// streams: the origin goes on only when the client has its first line.
func streams(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/gated HTTP/1.1\r\nHost: x\r\n\r\n", originHost)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(resp.Body)
	if line, err := br.ReadString('\n'); err != nil || line != "first\n" {
		t.Fatalf("%q, %v: the stream was held back", line, err)
	}
	close(w.origin.gate)
	if line, err := br.ReadString('\n'); err != nil || line != "second\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func truncatedResponse(t *testing.T, w *world) {
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7108), func(c net.Conn) {
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
	})
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7109), func(c net.Conn) {
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n")
	})
	for _, port := range []int{7108, 7109} {
		c := w.raw(t)
		fmt.Fprintf(c, "GET http://%s:%d/ HTTP/1.1\r\nHost: x\r\n\r\n", testnet.APIName, port)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
		}
		if err == nil {
			t.Errorf("port %d: a truncated response came through as a whole one", port)
		}
		if f := w.flows.find(t, fmt.Sprint(":", port)); f["class"] != "reset" {
			t.Errorf("flow line %v", f)
		}
	}
}

// webSocket speaks RFC 6455's opening handshake through the plain front, and
// then bytes of its own.
func webSocket(t *testing.T, w *world) {
	const key, guid = "dGhlIHNhbXBsZSBub25jZQ==", "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7110), func(c net.Conn) {
		defer c.Close()
		br := bufio.NewReader(c)
		req, err := http.ReadRequest(br)
		if err != nil || req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Connection") != "Upgrade" {
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + guid))
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\nhello", base64.StdEncoding.EncodeToString(sum[:]))
		io.Copy(c, br)
	})
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s:7110/ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\nearly", testnet.APIName, key)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%v, %v", resp, err)
	}
	expect(t, br, []byte("helloearly"))
	io.WriteString(c, "frame")
	expect(t, br, []byte("frame"))
	c.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || len(b) != 0 {
		t.Errorf("after the end: %q, %v", b, err)
	}
	if f := w.flows.find(t, ":7110"); f["status"] != float64(101) || f["up"] != float64(10) || f["down"] != float64(15) {
		t.Errorf("flow line %v", f)
	}
}

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
		"header":         {"GET http://" + originHost + "/ HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n", "well-formed", 400},
		"two_lengths":    {"POST http://" + originHost + "/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "could not be understood", 400},
		"huge_header":    {"GET http://" + originHost + "/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100_000) + "\r\n\r\n", "larger than this gateway accepts", 431},
	} {
		conn := w.raw(t)
		io.WriteString(conn, c.request)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != c.status || !strings.Contains(string(b), c.want) {
			t.Errorf("%s: %s\n%s", name, resp.Status, b)
		}
	}
}

// A request body that breaks off is the client's mistake, and says so.
func brokenBody(t *testing.T, w *world) {
	for name, request := range map[string]string{
		"chunk":  "POST http://%s/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nxx",
		"length": "POST http://%s/trailers HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
	} {
		c := w.raw(t)
		fmt.Fprintf(c, request, originHost)
		c.CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 400 || !resp.Close {
			t.Errorf("%s: %v, %v; want 400 and a closed connection", name, resp, err)
		}
	}
}

// What follows a refused CONNECT was meant for the tunnel, and is no request.
func refusedConnect(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "CONNECT 169.254.169.254:443 HTTP/1.1\r\nHost: x\r\n\r\nGET http://%s/echo HTTP/1.1\r\nHost: x\r\n\r\n", originHost)
	b, err := io.ReadAll(c)
	if err != nil || strings.Count(string(b), "HTTP/1.1 ") != 1 || !strings.HasPrefix(string(b), "HTTP/1.1 403") {
		t.Errorf("%v\n%s", err, b)
	}
}

// A response head without end must not fill the memory.
func hugeResponseHead(t *testing.T, w *world) {
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7111), func(c net.Conn) {
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		line := []byte("X-Filler: " + strings.Repeat("f", 1000) + "\r\n")
		for {
			if _, err := c.Write(line); err != nil {
				return
			}
		}
	})
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s:7111/ HTTP/1.1\r\nHost: x\r\n\r\n", testnet.APIName)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 502 {
		t.Errorf("%v, %v; want 502", resp, err)
	}
}

// connectionAuth: an origin that authenticates connections (NTLM) must not see
// a second client on the first one's.
func connectionAuth(t *testing.T, w *world) {
	conns := make(chan net.Conn, 4)
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7112), func(c net.Conn) {
		conns <- c
		defer c.Close()
		br := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	for _, authorization := range []string{"Authorization: NTLM TlRMTVNTUAAB\r\n", ""} {
		c := w.raw(t)
		fmt.Fprintf(c, "GET http://%s:7112/ HTTP/1.1\r\nHost: x\r\n%s\r\n", testnet.APIName, authorization)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, %v", resp, err)
		}
		io.ReadAll(resp.Body)
	}
	if n := len(conns); n != 2 {
		t.Errorf("two clients shared %d connection to the origin", n)
	}
}

func loop(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\nVia: 1.1 a, 1.1 pando-gateway\r\n\r\n", originHost)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 502 || !strings.Contains(resp.Header.Get("Proxy-Status"), "proxy_loop_detected") {
		t.Errorf("%v, %v", resp, err)
	}
}

func otherProtocols(t *testing.T, w *world) {
	c := w.raw(t)
	c.Write([]byte{0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0})
	expect(t, c, []byte{21, 3, 1, 0, 2, 2}) // a TLS alert
	c = w.raw(t)
	c.Write([]byte{4, 1, 0, 80, 10, 12, 3, 4, 0})
	expect(t, c, []byte{0, 0x5b}) // SOCKS4: rejected
}

func oneLinePerFlow(t *testing.T, w *world) {
	r := w.start(t, nil)
	c := r.raw(t)
	br := bufio.NewReader(c)
	for range 3 {
		fmt.Fprintf(c, "GET http://%s/echo HTTP/1.1\r\nHost: x\r\n\r\n", originHost)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadAll(resp.Body)
	}
	c.Close()
	w.curl(t, "-x", "http://"+r.addr, "https://"+testnet.APIName+"/")
	w.curl(t, "-x", "socks5h://"+r.addr, "https://"+testnet.APIName+"/")
	eventually(t, "five lines", func() bool { return r.flows.count() >= 5 })
	time.Sleep(100 * time.Millisecond)
	if n := r.flows.count(); n != 5 {
		t.Errorf("3 requests and 2 tunnels made %d lines, want 5", n)
	}
}

func policyRules(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Policy.Rules = []config.Rule{
			{Name: "no-secrets", Names: []string{"*.secret." + testnet.Zone}, Action: "deny"},
			{Name: "api", Names: []string{testnet.APIName}, Ports: []string{"443"}, Action: "allow"},
			{Name: "rest", Action: "deny"},
		}
	})
	w.curl(t, "-x", "http://"+r.addr, "https://"+testnet.APIName+"/")
	if f := r.flows.find(t, testnet.APIName+":443"); f["rule"] != "api" {
		t.Errorf("flow line %v", f)
	}
	before := w.cloud.Queries("db.secret." + testnet.Zone)
	for target, rule := range map[string]string{
		"http://db.secret." + testnet.Zone + "/": "no-secrets", "http://" + testnet.APIName + "/": "rest", "http://" + testnet.APIAddr.String() + ":443/": "rest",
	} {
		out := w.curl(t, "-i", "-x", "http://"+r.addr, target)
		if !strings.Contains(out, "HTTP/1.1 403") || !strings.Contains(out, "rule "+rule+" of the gateway's policy denies it") {
			t.Errorf("%s:\n%s", target, out)
		}
	}
	if w.cloud.Queries("db.secret."+testnet.Zone) != before {
		t.Error("a denied name was looked up")
	}
}

func policyReport(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Policy.Mode = "report"
		c.Policy.Rules = []config.Rule{{Name: "nothing", Action: "deny"}}
	})
	w.curl(t, "-x", "http://"+r.addr, "https://"+testnet.APIName+"/")
	if f := r.flows.find(t, testnet.APIName+":443"); f["class"] != "ok" || f["would_deny"] != "rule nothing" {
		t.Errorf("flow line %v", f)
	}
	if out := w.curl(t, "-i", "-x", "http://"+r.addr, "http://127.0.0.1/"); !strings.Contains(out, "HTTP/1.1 403") {
		t.Errorf("report mode lets through what is never allowed:\n%s", out)
	}
}

// policyDirect reaches a listener of this host through the host's own network,
// and never the gateway itself.
func policyDirect(t *testing.T, w *world) {
	host := hostAddr(t, w)
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "direct")
			c.Close()
		}
	}()
	r := w.start(t, func(c *config.Config) {
		c.Policy.Direct = "any"
		c.Listen.Proxy = "0.0.0.0:0"
	})
	c, br := r.connectTo(t, ln.Addr().String(), "")
	if b, err := io.ReadAll(br); err != nil || string(b) != "direct" {
		t.Errorf("%q, %v", b, err)
	}
	c.Close()
	if f := r.flows.find(t, ln.Addr().String()); f["path"] != "direct" {
		t.Errorf("flow line %v", f)
	}
	_, port, _ := net.SplitHostPort(r.addr)
	for _, own := range []string{host, r.gw.Node().Addrs()[0].String(), "[" + r.gw.Node().Addrs()[1].String() + "]"} {
		c := r.raw(t)
		fmt.Fprintf(c, "CONNECT %s:%s HTTP/1.1\r\nHost: x\r\n\r\n", own, port)
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 403 {
			t.Errorf("CONNECT to the gateway itself at %s: %v, %v", own, resp, err)
		}
	}
	// A private address is not public.
	r.kill()
	r.wait()
	r = w.start(t, func(c *config.Config) { c.Policy.Direct = "public" })
	c = r.raw(t)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", ln.Addr())
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 502 {
		t.Errorf("direct: public let %s through: %v, %v", ln.Addr(), resp, err)
	}
}

func hostTable(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Resolve.Hosts = map[string][]string{"api.example.com": {testnet.APIAddr.String()}, "*.apps.example.com": {testnet.APIAddr.String()}}
	})
	for _, name := range []string{"api.example.com", "API.Example.COM.", "one.apps.example.com", "a.b.apps.example.com"} {
		if out := w.curl(t, "-x", "http://"+r.addr, "http://"+name+"/table"); !strings.Contains(out, `"path":"/table"`) {
			t.Errorf("%s: %s", name, out)
		}
	}
	if f := r.flows.find(t, "one.apps"); f["source"] != "hosts" {
		t.Errorf("flow line %v", f)
	}
}

func authentication(t *testing.T, w *world) {
	users := filepath.Join(w.dir, "users")
	if err := os.WriteFile(users, []byte("# people\nalice:correct:horse\nbob:s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := w.start(t, func(c *config.Config) { c.Auth.UsersFile = users })
	url := "http://" + testnet.APIName + "/"
	for _, proxy := range []string{"http://alice:correct%3Ahorse@", "socks5h://bob:s3cret@"} {
		if out := w.curl(t, "-x", proxy+r.addr, url); !strings.Contains(out, "private-api") {
			t.Errorf("%s: %s", proxy, out)
		}
	}
	out := w.curl(t, "-i", "-x", "http://"+r.addr, url)
	if !strings.Contains(out, "HTTP/1.1 407") || !strings.Contains(out, "Proxy-Authenticate: Basic realm=") {
		t.Errorf("without credentials:\n%s", out)
	}
	for _, proxy := range []string{"http://alice:wrong@", "http://nobody:s3cret@"} {
		if out := w.curl(t, "-i", "-x", proxy+r.addr, url); !strings.Contains(out, "HTTP/1.1 407") {
			t.Errorf("%s:\n%s", proxy, out)
		}
	}
	for _, proxy := range []string{"socks5h://", "socks5h://bob:wrong@"} {
		if out, err := w.tryCurl(t, "-x", proxy+r.addr, url); err == nil {
			t.Errorf("%s: %s", proxy, out)
		}
	}
	if f := r.flows.find(t, testnet.APIName); f["user"] != "alice" {
		t.Errorf("flow line %v", f)
	}
	r.flows.mu.Lock()
	defer r.flows.mu.Unlock()
	for _, secret := range []string{"correct:horse", "s3cret", testnet.AuthKey} {
		if strings.Contains(r.flows.all.String(), secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
}

func drain(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Drain.Settle = config.Duration(300 * time.Millisecond)
		c.Drain.Timeout = config.Duration(10 * time.Second)
	})
	countBytes(w, 7120)
	tunnel, br := r.connectTo(t, testnet.APIName+":7120", "")
	busy := r.raw(t)
	fmt.Fprintf(busy, "GET http://%s/hold HTTP/1.1\r\nHost: x\r\n\r\n", originHost)
	idle := r.raw(t)
	fmt.Fprintf(idle, "GET http://%s/echo HTTP/1.1\r\nHost: x\r\n\r\n", originHost)
	if resp, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil || resp.Close {
		t.Fatalf("%v, %v", resp, err)
	}
	silent := r.raw(t)
	time.Sleep(50 * time.Millisecond)

	r.drain()
	w.curl(t, "-x", "http://"+r.addr, "https://"+testnet.APIName+"/") // still served while it settles
	eventually(t, "the port to close", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	for what, c := range map[string]net.Conn{"idle": idle, "silent": silent} {
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("the %s connection: %q, %v; want it closed", what, b, err)
		}
	}
	select {
	case err := <-r.ended:
		t.Fatalf("the gateway left its work: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(w.origin.hold)
	resp, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil || resp.StatusCode != 200 || !resp.Close {
		t.Errorf("the busy request: %v, %v; want 200 and Connection: close", resp, err)
	}
	tunnel.Write(make([]byte, half))
	tunnel.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || string(b) != fmt.Sprint("got ", half) {
		t.Errorf("the tunnel: %q, %v", b, err)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func drainCuts(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) { c.Drain.Timeout = config.Duration(200 * time.Millisecond) })
	countBytes(w, 7121)
	_, br := r.connectTo(t, testnet.APIName+":7121", "x")
	r.drain()
	if _, err := io.ReadAll(br); err == nil {
		t.Error("a tunnel that was cut ended cleanly")
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	if f := r.flows.find(t, ":7121"); f["class"] != "cut" || !strings.Contains(f["err"].(string), "drain time is over") {
		t.Errorf("flow line %v", f)
	}
}

// cloudGone runs last: it takes the cloud away, and with it the name and the
// API, which exist nowhere else.
func cloudGone(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Dial.Timeout = config.Duration(2 * time.Second)
		c.Resolve.Timeout = config.Duration(2 * time.Second)
	})
	w.curl(t, "-x", "http://"+r.addr, "http://"+testnet.APIName+"/")
	w.cloud.Close()
	for target, class := range map[string]string{"http://fresh." + testnet.Zone + "/": "timeout", "http://" + testnet.APIAddr.String() + ":9999/": "timeout"} {
		out := w.curl(t, "-i", "-x", "http://"+r.addr, target)
		if !strings.Contains(out, "HTTP/1.1 504") || !strings.Contains(out, "("+class+")") {
			t.Errorf("%s:\n%s", target, out)
		}
	}
}
