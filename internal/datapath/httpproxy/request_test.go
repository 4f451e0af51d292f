package httpproxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// TestSplitTarget checks how host and port are split.
func TestSplitTarget(t *testing.T) {
	for _, c := range []struct {
		name, authority, defaultPort string
		host                         string
		port                         uint16 // 0 means an error
	}{
		{"name_and_port", "api.corp.example:443", "", "api.corp.example", 443},
		{"ipv4_and_port", "192.0.2.1:443", "", "192.0.2.1", 443},
		{"ipv6_and_port", "[2001:db8::1]:443", "", "2001:db8::1", 443},
		{"last_port", "a:65535", "", "a", 65535},
		{"default_port", "api.corp.example", "80", "api.corp.example", 80},
		{"default_port_ipv6", "[2001:db8::1]", "80", "2001:db8::1", 80},
		{"default_port_not_taken", "a:8080", "80", "a", 8080},
		{"empty_port", "a:", "80", "a", 80},
		{"empty_port_ipv6", "[::1]:", "80", "::1", 80},
		{"port_required", "a", "", "", 0},
		{"port_required_ipv6", "[::1]", "", "", 0},
		{"port_required_empty", "a:", "", "", 0},
		{"port_0", "a:0", "80", "", 0},
		{"port_65536", "a:65536", "80", "", 0},
		{"port_signed", "a:+80", "80", "", 0},
		{"port_negative", "a:-1", "80", "", 0},
		{"port_by_name", "a:http", "80", "", 0},
		{"no_host", ":80", "80", "", 0},
		{"no_host_in_brackets", "[]", "80", "", 0},
		{"no_host_in_brackets_and_port", "[]:80", "", "", 0},
		{"nothing", "", "80", "", 0},
		{"ipv6_without_brackets", "2001:db8::1", "80", "", 0},
		{"two_ports", "a:80:81", "80", "", 0},
		{"path", "a:443/x", "", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, port, err := splitTarget(c.authority, c.defaultPort)
			if host != c.host || port != c.port || (err == nil) != (c.port != 0) {
				t.Errorf("splitTarget(%q, %q) = %q, %d, %v; want %q, %d", c.authority, c.defaultPort, host, port, err, c.host, c.port)
			}
		})
	}
}

// TestTarget checks AbsoluteForm.
func TestTarget(t *testing.T) {
	for _, c := range []struct {
		name, line, want string // empty means an error
	}{
		{"connect", "CONNECT api.corp.example:443", "api.corp.example:443"},
		{"connect_ipv6", "CONNECT [2001:db8::1]:443", "[2001:db8::1]:443"},
		{"connect_without_port", "CONNECT api.corp.example", ""},
		{"connect_url", "CONNECT http://api.corp.example:443/", ""},
		{"absolute", "GET http://api.corp.example/x", "api.corp.example:80"},
		{"absolute_upper_case", "GET HTTP://api.corp.example:8080/x", "api.corp.example:8080"},
		{"absolute_beats_host", "GET http://other.example/", "other.example:80"},
		{"origin_form", "GET /x", ""},
		{"asterisk", "OPTIONS *", ""},
		{"https", "GET https://api.corp.example/", ""},
		{"ftp", "GET ftp://api.corp.example/", ""},
		{"user_name", "GET http://api.corp.example@evil.example/", ""},
		{"no_host", "GET http:///x", ""},
		{"opaque", "GET http:x", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := read(t, c.line+" HTTP/1.1\r\nHost: api.corp.example\r\n\r\n")
			host, port, err := AbsoluteForm(req)
			if c.want == "" {
				if flow.ClassOf(err) != flow.BadRequest || flow.HintOf(err) == "" {
					t.Fatalf("target %q, %d, error %v; want class %v and a hint", host, port, err, flow.BadRequest)
				}
				return
			}
			if got := (flow.Request{Host: host, Port: port}).Target(); err != nil || got != c.want {
				t.Errorf("target %q, error %v; want %q", got, err, c.want)
			}
		})
	}
}

// read parses a request head.
func read(t *testing.T, head string) *http.Request {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestTargetByHost checks ByHost, and the request-target that the origin gets.
func TestTargetByHost(t *testing.T) {
	for _, c := range []struct{ name, line, host, want, form string }{
		{"host", "GET /a?u=http://x/y", "api.corp.example", "api.corp.example:80", "/a?u=http://x/y"},
		{"port", "GET /", "api.corp.example:8080", "api.corp.example:8080", "/"},
		{"ipv6", "GET /", "[fd00::1]:8080", "[fd00::1]:8080", "/"},
		{"asterisk", "OPTIONS *", "api.corp.example", "api.corp.example:80", "*"},
		{"absolute_form", "GET http://api.corp.example/x", "api.corp.example", "api.corp.example:80", "/x"},
		{"no_host", "GET /", "", "", ""},
		{"connect", "CONNECT api.corp.example:443", "api.corp.example:443", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := read(t, c.line+" HTTP/1.1\r\nHost: "+c.host+"\r\n\r\n")
			host, port, err := ByHost(80)(req)
			if c.want == "" {
				if flow.ClassOf(err) != flow.BadRequest || flow.HintOf(err) == "" {
					t.Fatalf("target %q, %d, error %v; want class %v and a hint", host, port, err, flow.BadRequest)
				}
				return
			}
			if got := (flow.Request{Host: host, Port: port}).Target(); err != nil || got != c.want || wire.OriginForm(req) != c.form {
				t.Errorf("target %q, request-target %q, error %v; want %q, %q", got, wire.OriginForm(req), err, c.want, c.form)
			}
		})
	}
}

// FuzzRequest sends whatever a client may send to an origin, and reads it as the
// origin would. It must be the same request, with the same framing, and nothing
// after it.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET http://api.corp.example/ HTTP/1.1\r\nHost: api.corp.example\r\n\r\n",
		"GET http://a:8080?q#f HTTP/1.0\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\nX-B: 2\r\n\r\n",
		"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\nProxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n",
		"OPTIONS http://a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nVia: 1.1 pando\r\n\r\n",
		"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n",
		"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nTE: trailers\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
		"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nX y: 1\r\n\r\n",
		"GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, Via, Content-Length\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
		"GET http://[fe80::1%25eth0]/ HTTP/1.1\r\n\r\n",
		"GET http://a/ HTTP/1.1\r\nHost: b\r\nX: a\r\n folded\r\nTransfer-Encoding : chunked\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		head := &wire.HeadReader{R: bytes.NewReader(b)}
		head.Begin(1 << 20)
		br := bufio.NewReader(head)
		req, err := head.ReadRequest(br, DefaultMaxHeaders)
		if err != nil {
			return
		}
		wire.BasicAuth(req.Header.Get("Proxy-Authorization"))
		wire.HasVia(req.Header["Via"], "pando")
		if wire.ValidHead(req) != nil {
			return
		}
		host, port, err := AbsoluteForm(req)
		switch {
		case err != nil && (flow.ClassOf(err) != flow.BadRequest || flow.HintOf(err) == ""):
			t.Fatalf("%q: error %v, want class %v and a hint", b, err, flow.BadRequest)
		case err != nil:
			return
		case host == "" || port == 0:
			t.Fatalf("%q: target %q, port %d without an error; want both", b, host, port)
		case req.Method == http.MethodConnect:
			return
		}
		uri := wire.OriginForm(req)
		if uri != "*" && uri[0] != '/' || strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			t.Fatalf("%q: request-target %q, want a path without spaces and control bytes", b, uri)
		}
		want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(b, "\r\n"))))
		if err != nil {
			t.Fatal(err)
		}
		wantBody, wantErr := io.ReadAll(want.Body)
		sent, sendErr := sendTo(req, br)
		left := bufio.NewReader(bytes.NewReader(sent))
		got, err := http.ReadRequest(left)
		if err != nil {
			t.Fatalf("%q: the origin cannot read %q: %v", b, sent, err)
		}
		body, err := io.ReadAll(got.Body)
		if wantErr != nil || sendErr != nil {
			if wantErr == nil || sendErr == nil || err == nil {
				t.Fatalf("%q: the body ends with %v for the client, %v for the proxy, %v for the origin; want an error for all or none", b, wantErr, sendErr, err)
			}
			return
		}
		if err != nil || !bytes.Equal(body, wantBody) {
			t.Fatalf("%q: the origin reads the body %q, error %v, of %q; want %q", b, body, err, sent, wantBody)
		}
		if rest, _ := io.ReadAll(left); len(rest) > 0 {
			t.Fatalf("%q: the origin reads %q after the request in %q, want nothing", b, rest, sent)
		}
		gotHost, gotPort, err := splitTarget(got.Host, "80")
		if got.Method != req.Method || got.Host != want.Host || got.RequestURI != uri || err != nil || gotHost != host || gotPort != port {
			t.Fatalf("%q: the origin reads %s %s with Host %q (%q, %d, %v); want %s %s of %q, %d", b, got.Method, got.RequestURI, got.Host, gotHost, gotPort, err, req.Method, uri, host, port)
		}
		sameFields(t, b, got.Header, want.Header)
		sameTrailers(t, b, got.Trailer, want.Trailer)
	})
}

// sendTo returns what an origin gets for req, whose body is read from br.
func sendTo(req *http.Request, br *bufio.Reader) ([]byte, error) {
	var sent bytes.Buffer
	c, far := net.Pipe() // carries nothing; the exchange closes it
	defer far.Close()
	defer c.Close()
	s := &session{
		p: &Proxy{},
		c: &net.TCPConn{},
		r: br,
	}
	o := &origin.Conn{
		Conn: c,
		W:    bufio.NewWriter(&sent),
	}
	x := newExchange(s, o, req, &flow.Record{})
	err := x.send()
	if err == nil && x.upload.ended != nil {
		<-x.upload.ended
		_, err = x.upload.done(0)
	}
	x.watch.stop()
	o.W.Flush()
	return sent.Bytes(), err
}

// sameFields checks that end-to-end fields are passed on, and that hop-by-hop
// fields are not.
func sameFields(t *testing.T, b []byte, got, want http.Header) {
	t.Helper()
	options := wire.ConnectionOptions(want)
	written := map[string]bool{"Content-Length": true, "Connection": true, "Upgrade": true, "Te": true, "Via": true, "Expect": true}
	for k, v := range want {
		v = slices.Clone(v)
		for i := range v {
			v[i] = strings.Trim(v[i], " \t") // surrounding white space is not part of a value
		}
		if options.EndToEnd(k) && !written[k] && !reflect.DeepEqual(got[k], v) {
			t.Errorf("%q: field %q = %q, want %q", b, k, got[k], v)
		}
	}
	for k := range got {
		if (!options.EndToEnd(k) || want[k] == nil) && !written[k] {
			t.Errorf("%q: field %q = %q, want that it is removed", b, k, got[k])
		}
	}
	if len(got["Via"]) != 1 || !wire.HasVia(got["Via"], "pando") {
		t.Errorf("%q: Via = %q, want one value that names pando", b, got["Via"])
	}
}

// sameTrailers checks that trailer fields are passed on if they may be.
func sameTrailers(t *testing.T, b []byte, got, want http.Header) {
	t.Helper()
	for k, vs := range want {
		if wire.Options(nil).EndToEnd(k) && httpguts.ValidHeaderFieldName(k) && len(got[k]) != len(vs) {
			t.Errorf("%q: trailer field %q = %q, want %q", b, k, got[k], vs)
		}
	}
	for k, vs := range got {
		if want[k] == nil && vs != nil || !wire.Options(nil).EndToEnd(k) || !httpguts.ValidHeaderFieldName(k) || strings.ContainsAny(fmt.Sprint(vs), "\r\n\x00") {
			t.Errorf("%q: trailer field %q = %q, want that it is removed", b, k, vs)
		}
	}
}
