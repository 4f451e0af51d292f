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

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/target"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

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
		host, port, err := target.AbsoluteForm(req)
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
		sent, sendErr := sendTo(req, head.Order, br)
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
		gotHost, gotPort, err := target.Split(got.Host, "80")
		if got.Method != req.Method || got.Host != want.Host || got.RequestURI != uri || err != nil || gotHost != host || gotPort != port {
			t.Fatalf("%q: the origin reads %s %s with Host %q (%q, %d, %v); want %s %s of %q, %d", b, got.Method, got.RequestURI, got.Host, gotHost, gotPort, err, req.Method, uri, host, port)
		}
		sameFields(t, b, got.Header, want.Header)
		sameTrailers(t, b, got.Trailer, want.Trailer)
	})
}

// sendTo returns what an origin gets for req, whose body is read from br.
func sendTo(req *http.Request, order wire.Order, br *bufio.Reader) ([]byte, error) {
	var sent bytes.Buffer
	c, far := net.Pipe() // carries nothing; the exchange closes it
	defer far.Close()
	defer c.Close()
	s := &session{
		p: &Proxy{},
		c: &net.TCPConn{},
		r: br,
	}
	s.head.Order = order
	o := origin.New(c, flow.Target{}, "", 0)
	o.W = bufio.NewWriter(&sent)
	x := newExchange(s, o, req, &flow.Record{})
	err := x.send()
	if err == nil && x.upload.ended != nil {
		<-x.upload.ended
		_, err = x.upload.done(0)
	}
	x.watch.Stop()
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
		if wire.MayTrail(k) && len(got[k]) != len(vs) {
			t.Errorf("%q: trailer field %q = %q, want %q", b, k, got[k], vs)
		}
	}
	for k, vs := range got {
		if want[k] == nil && vs != nil || !wire.MayTrail(k) || strings.ContainsAny(fmt.Sprint(vs), "\r\n\x00") {
			t.Errorf("%q: trailer field %q = %q, want that it is removed", b, k, vs)
		}
	}
}
