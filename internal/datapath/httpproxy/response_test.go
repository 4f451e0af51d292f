package httpproxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/flow"
)

// TestResponseHeadIsCleaned checks that what net/http accepts in a response head
// does not reach the client.
func TestResponseHeadIsCleaned(t *testing.T) {
	for _, c := range []struct{ name, origin, want string }{
		{"space_before_colon", "HTTP/1.1 204 No Content\r\nX-A : 1\r\n\r\n", "X-A: 1"},
		{"framing_with_space_before_colon", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding : chunked\r\n\r\n", ""},
		{"space_in_name", "HTTP/1.1 204 No Content\r\nX A: 1\r\n\r\n", ""},
		{"bare_cr_in_reason", "HTTP/1.1 204 No\rContent\r\n\r\n", "HTTP/1.1 204 "},
		{"nul_in_reason", "HTTP/1.1 204 No\x00Content\r\n\r\n", "HTTP/1.1 204 "},
		{"no_reason", "HTTP/1.1 204\r\n\r\n", "HTTP/1.1 204 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			wire, _, err := answer([]byte(c.origin), http.MethodGet, 1)
			if err != nil {
				t.Fatal(err)
			}
			lines := cleanHead(t, wire)
			if c.want == "" {
				if len(lines) > 3 { // status line, Via, Content-Length
					t.Errorf("the client reads the head %q, want the field removed", lines)
				}
			} else if !strings.Contains("\n"+strings.Join(lines, "\n")+"\n", "\n"+c.want+"\n") {
				t.Errorf("the client reads the head %q, want the line %q", lines, c.want)
			}
		})
	}
}

// FuzzResponse sends whatever an origin may send to a client, and reads it as
// the client would.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: ab\r\nX y: 1\r\nContent-Length : 9\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nto the end",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: X-A\r\nX-A: 1\r\n\r\n",
		"HTTP/1.1 204\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding : chunked\r\nX: ab\r\n\r\n",
	} {
		f.Add([]byte(s), false, false)
		f.Add([]byte(s), true, false)
		f.Add([]byte(s), false, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, head, http10 bool) {
		method := http.MethodGet
		minor := 1
		if head {
			method = http.MethodHead
		}
		if http10 {
			minor = 0
		}
		req := &http.Request{Method: method}
		want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), req)
		if err != nil || want.StatusCode < 200 {
			return
		}
		wantBody, wantErr := io.ReadAll(want.Body)
		wire, fate, err := answer(b, method, minor)
		cleanHead(t, wire)
		left := bufio.NewReader(bytes.NewReader(wire))
		got, rerr := http.ReadResponse(left, req)
		if rerr != nil {
			t.Fatalf("%q: the client cannot read %q: %v", b, wire, rerr)
		}
		body, rerr := io.ReadAll(got.Body)
		if (err == nil) != (wantErr == nil) || err != nil && (fate != closeNow || rerr == nil && got.ContentLength >= 0) {
			t.Fatalf("%q: the body ends with %v for the origin, %v for the proxy (fate %d), %v for the client; want an error for all or none", b, wantErr, err, fate, rerr)
		}
		if err != nil {
			return
		}
		if got.StatusCode != want.StatusCode || rerr != nil || !bytes.Equal(body, wantBody) {
			t.Fatalf("%q: the client reads status %d, body %q, error %v; want %d, %q", b, got.StatusCode, body, rerr, want.StatusCode, wantBody)
		}
		if rest, _ := io.ReadAll(left); len(rest) > 0 {
			t.Fatalf("%q: the client reads %q after the response in %q, want nothing", b, rest, wire)
		}
		if fate == keep && got.Close {
			t.Fatalf("%q: the connection stays open, but the client reads Connection: close in %q", b, wire)
		}
		if !http10 { // HTTP/1.0 has no trailer fields
			sameTrailers(t, b, got.Trailer, want.Trailer)
		}
	})
}

// answer returns what a client reads when the origin sends b, and what becomes
// of its connection.
func answer(b []byte, method string, minor int) ([]byte, fate, error) {
	var wire bytes.Buffer
	var p Proxy
	defer p.Close()
	c, far := net.Pipe() // carries nothing; the exchange closes it
	defer far.Close()
	s := &session{
		p: &p,
		c: &net.TCPConn{},
		w: bufio.NewWriter(&wire),
	}
	o := &origin.Conn{
		Conn: c,
		R:    bufio.NewReader(bytes.NewReader(b)),
	}
	req := &http.Request{
		Method:     method,
		ProtoMajor: 1,
		ProtoMinor: minor,
		Header:     http.Header{"Connection": {"keep-alive"}},
	}
	x := newExchange(s, o, req, &flow.Record{})
	resp, err := http.ReadResponse(o.R, req)
	if err != nil {
		return nil, closeNow, err
	}
	f := x.respond(resp)
	s.w.Flush()
	return wire.Bytes(), f, x.rec.Err
}

// cleanHead returns the lines of the head of wire. It fails the test if one
// holds a byte that RFC 9110 section 5.5 calls dangerous.
func cleanHead(t *testing.T, wire []byte) []string {
	t.Helper()
	head, _, ok := strings.Cut(string(wire), "\r\n\r\n")
	if !ok {
		t.Fatalf("%q has no end of the head", wire)
	}
	lines := strings.Split(head, "\r\n")
	for i, line := range lines {
		name, _, ok := strings.Cut(line, ":")
		if strings.ContainsAny(line, "\r\n\x00") || i > 0 && (!ok || !httpguts.ValidHeaderFieldName(name)) {
			t.Errorf("%q: line %q is not a valid field line", wire, line)
		}
	}
	return lines
}
