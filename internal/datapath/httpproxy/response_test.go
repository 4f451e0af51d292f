package httpproxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// TestBadResponseHeads checks that a response head which another parser may read
// differently becomes 502, and that the client gets nothing of it.
func TestBadResponseHeads(t *testing.T) {
	for _, c := range []struct{ name, origin, want string }{ // want is in the error
		{"space_before_colon", "HTTP/1.1 204 No Content\r\nX-A : 1\r\n\r\n", "malformed field name"},
		{"tab_before_colon", "HTTP/1.1 204 No Content\r\nX-A\t: 1\r\n\r\n", "malformed"},
		{"framing_with_space_before_colon", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding : chunked\r\n\r\n", "malformed field name"},
		{"space_in_name", "HTTP/1.1 204 No Content\r\nX A: 1\r\n\r\n", "malformed field name"},
		{"space_in_name_of_interim", "HTTP/1.1 103 Early Hints\r\nX A: 1\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "malformed field name"},
		{"empty_name", "HTTP/1.1 204 No Content\r\n: 1\r\n\r\n", "malformed"},
		{"no_colon", "HTTP/1.1 204 No Content\r\nX-A\r\n\r\n", "malformed"},
		{"folded_first_line", "HTTP/1.1 204 No Content\r\n X-A: 1\r\n\r\n", "malformed"},
		{"bare_cr_in_reason", "HTTP/1.1 204 No\rContent\r\n\r\n", "control character"},
		{"nul_in_reason", "HTTP/1.1 204 No\x00Content\r\n\r\n", "control character"},
		{"bare_cr_in_value", "HTTP/1.1 204 No Content\r\nX-A: 1\rX-B: 2\r\n\r\n", "malformed"},
		{"nul_in_value", "HTTP/1.1 204 No Content\r\nX-A: 1\x002\r\n\r\n", "malformed"},
		{"bare_cr_in_name", "HTTP/1.1 204 No Content\r\nX\rA: 1\r\n\r\n", "malformed"},
		{"nul_in_name", "HTTP/1.1 204 No Content\r\nX\x00A: 1\r\n\r\n", "malformed"},
		{"status_099", "HTTP/1.1 099 Odd\r\n\r\n", "status code 099"},
		{"status_000", "HTTP/1.1 000 Odd\r\n\r\n", "status code 000"},
		{"version_2", "HTTP/2.0 204 No Content\r\n\r\n", "version HTTP/2.0"},
		{"two_lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "Content-Length"},
		{"unknown_coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "transfer encoding"},
		{"switch_unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "did not ask"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
				defer conn.Close()
				http.ReadRequest(bufio.NewReader(conn))
				io.WriteString(conn, c.origin)
				io.Copy(io.Discard, conn) // keeps the connection: its end is not what is wrong
			}), nil)
			status, body := p.client(t, victim).ask(t, "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n")
			if status != http.StatusBadGateway || !strings.Contains(body, "bad_response") {
				t.Errorf("status %d, %q; want 502 and bad_response", status, body)
			}
			if rec := p.road.AwaitFinished(t, 1); !strings.Contains(fmt.Sprint(rec.Err), c.want) {
				t.Errorf("the record's error is %v, want %q", rec.Err, c.want)
			}
		})
	}
}

// TestOddResponseHeads checks what is passed on of a response head that is unusual
// and clear.
func TestOddResponseHeads(t *testing.T) {
	for _, c := range []struct{ name, origin, want string }{
		{"no_reason", "HTTP/1.1 204\r\n\r\n", "HTTP/1.1 204 "},
		{"folded_value", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n  2\r\n\r\n", "X-A: 1 2"},
		{"bare_lf", "HTTP/1.1 204 No Content\nX-A: 1\n\n", "X-A: 1"},
		{"status_999", "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 999 Odd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wire, _, err := answer([]byte(c.origin), http.MethodGet, 1)
			if err != nil {
				t.Fatal(err)
			}
			lines := cleanHead(t, wire)
			if !strings.Contains("\n"+strings.Join(lines, "\n")+"\n", "\n"+c.want+"\n") {
				t.Errorf("the client reads the head %q, want the line %q", lines, c.want)
			}
		})
	}
}

// TestAmbiguousResponses checks that Transfer-Encoding overrides Content-Length, and
// that the connection is not kept.
func TestAmbiguousResponses(t *testing.T) {
	const chunks = "\r\n\r\n2\r\nok\r\n0\r\n\r\n"
	for _, c := range []struct {
		name, origin string
		want         origin.Outcome
	}{
		{"encoding_and_length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7" + chunks, origin.Ambiguous},
		{"length_and_encoding", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked" + chunks, origin.Ambiguous},
		{"after_an_interim_response", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked" + chunks, origin.Ambiguous},
		{"encoding_in_http_1_0", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok", origin.Ambiguous},
		{"encoding_alone", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked" + chunks, origin.Kept},
		{"length_alone", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", origin.Kept},
		{"both_in_the_body", "HTTP/1.1 200 OK\r\nContent-Length: 53\r\n\r\n\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\nok", origin.Kept},
	} {
		t.Run(c.name, func(t *testing.T) {
			outcomes := make(chan origin.Outcome, 1)
			p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
				defer conn.Close()
				http.ReadRequest(bufio.NewReader(conn))
				io.WriteString(conn, c.origin)
				io.Copy(io.Discard, conn)
			}), func(p *Proxy) { p.Released = func(o origin.Outcome) { outcomes <- o } })
			if status, body := p.client(t, victim).ask(t, "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"); status != 200 || !strings.HasSuffix(body, "ok") {
				t.Errorf("status %d, body %q; want 200, ok", status, body)
			}
			if got := <-outcomes; got != c.want {
				t.Errorf("outcome %q, want %q", got, c.want)
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
		if err != nil || want.StatusCode < 200 || wire.CheckResponse(want) != nil {
			return
		}
		wantBody, wantErr := io.ReadAll(want.Body)
		sent, fate, err := answer(b, method, minor)
		cleanHead(t, sent)
		left := bufio.NewReader(bytes.NewReader(sent))
		got, rerr := http.ReadResponse(left, req)
		if rerr != nil {
			t.Fatalf("%q: the client cannot read %q: %v", b, sent, rerr)
		}
		body, rerr := io.ReadAll(got.Body)
		if (err == nil) != (wantErr == nil) || err != nil && (fate != closeNow || rerr == nil && got.ContentLength >= 0) {
			t.Fatalf("%q: the body ends with %v for the origin, %v for the proxy (fate %d), %v for the client; want an error for all or none", b, wantErr, err, fate, rerr)
		}
		if err != nil {
			return
		}
		sameFields(t, b, got.Header, want.Header)
		if got.StatusCode != want.StatusCode || rerr != nil || !bytes.Equal(body, wantBody) {
			t.Fatalf("%q: the client reads status %d, body %q, error %v; want %d, %q", b, got.StatusCode, body, rerr, want.StatusCode, wantBody)
		}
		if rest, _ := io.ReadAll(left); len(rest) > 0 {
			t.Fatalf("%q: the client reads %q after the response in %q, want nothing", b, rest, sent)
		}
		if fate == keep && got.Close {
			t.Fatalf("%q: the connection stays open, but the client reads Connection: close in %q", b, sent)
		}
		if !http10 { // HTTP/1.0 has no trailer fields
			sameTrailers(t, b, got.Trailer, want.Trailer)
		}
	})
}

// answer returns what a client reads when the origin sends b, and what becomes
// of its connection.
func answer(b []byte, method string, minor int) ([]byte, fate, error) {
	var sent bytes.Buffer
	var p Proxy
	defer p.Close()
	c, far := net.Pipe() // carries nothing; the exchange closes it
	defer far.Close()
	s := &session{
		p: &p,
		c: &net.TCPConn{},
		w: bufio.NewWriter(&sent),
	}
	o := origin.New(c, flow.Target{}, "", 0)
	o.Head.R = bytes.NewReader(b)
	req := &http.Request{
		Method:     method,
		ProtoMajor: 1,
		ProtoMinor: minor,
		Header:     http.Header{"Connection": {"keep-alive"}},
	}
	x := newExchange(s, o, req, &flow.Record{})
	resp, err := o.Head.ReadResponse(o.R, req)
	if err != nil {
		return nil, closeNow, err
	}
	f := x.respond(resp)
	s.w.Flush()
	return sent.Bytes(), f, x.rec.Err
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
