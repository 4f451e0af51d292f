package httpproxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/testkit"
)

// lines returns a message whose lines are given: they end with CRLF.
func lines(line ...string) string { return strings.Join(line, "\r\n") + "\r\n" }

// readUntil reads from br until what it has read ends with end.
func readUntil(t *testing.T, br *bufio.Reader, end string) string {
	t.Helper()
	var got strings.Builder
	for !strings.HasSuffix(got.String(), end) {
		b, err := br.ReadByte()
		if err != nil {
			t.Errorf("got %q and then %v, want it to end with %q", got.String(), err, end)
			break
		}
		got.WriteByte(b)
	}
	return got.String()
}

// TestRequestFields checks that the fields of a request reach the origin in the order and
// the spelling in which they came. Fields of the client's connection do not, and what the
// proxy writes itself has the place and the spelling of what it replaces.
func TestRequestFields(t *testing.T) {
	for _, c := range []struct{ name, sent, want string }{
		{
			"spelling_and_order",
			lines("GET http://a/ HTTP/1.1", "User-Agent: x", "host: other", "sec-WebSocket-KEY: k", "X_Under: 1", "x-two: 1", "accept: */*", "X-TWO: 2", "ETag: \"a\"", "x-two: 3", ""),
			lines("GET / HTTP/1.1", "User-Agent: x", "host: a", "sec-WebSocket-KEY: k", "X_Under: 1", "x-two: 1", "accept: */*", "X-TWO: 2", "ETag: \"a\"", "x-two: 3", "Via: 1.1 pando", ""),
		},
		{
			"fields_of_the_connection",
			lines("GET http://a/ HTTP/1.1", "HOST: a", "connection: X-Gone, keep-alive", "X-A: 1", "x-GONE: 1", "keep-alive: 3", "proxy-connection: keep-alive", "Proxy-Authorization: Basic YTpi", "x-b: 2", ""),
			lines("GET / HTTP/1.1", "HOST: a", "X-A: 1", "x-b: 2", "Via: 1.1 pando", ""),
		},
		{
			"upgrade",
			lines("GET http://a/ HTTP/1.1", "Host: a", "upgrade: WebSocket", "X-A: 1", "CONNECTION: keep-alive, Upgrade", "Sec-WebSocket-Key: k", ""),
			lines("GET / HTTP/1.1", "Host: a", "upgrade: WebSocket", "X-A: 1", "CONNECTION: Upgrade", "Sec-WebSocket-Key: k", "Via: 1.1 pando", ""),
		},
		{
			"length",
			lines("POST http://a/ HTTP/1.1", "Host: a", "content-LENGTH: 02", "X-A: 1", "") + "ok",
			lines("POST / HTTP/1.1", "Host: a", "content-LENGTH: 2", "X-A: 1", "Via: 1.1 pando", "") + "ok",
		},
		{
			"chunks_and_trailers",
			lines("POST http://a/ HTTP/1.1", "Host: a", "TRAILER: x-Sum, Host, X-other", "transfer-ENCODING: Chunked", "te: trailers", "X-A: 1", "", "2", "ok", "0", "X-other: 1", "x-SUM: 2", "host: b", "x-Sum: 3", ""),
			lines("POST / HTTP/1.1", "Host: a", "TRAILER: x-Sum, X-other", "transfer-ENCODING: chunked", "te: trailers", "X-A: 1", "Via: 1.1 pando", "Connection: TE", "", "2", "ok", "0", "X-other: 1", "x-SUM: 2", "x-Sum: 3", ""),
		},
		{
			"other_proxies_before",
			lines("GET http://a/ HTTP/1.1", "VIA: 1.0 fred", "Host: a", "X-A: 1", "Via: 1.1 joe", ""),
			lines("GET / HTTP/1.1", "VIA: 1.0 fred, 1.1 joe, 1.1 pando", "Host: a", "X-A: 1", ""),
		},
		{
			"http_1_0_without_host",
			lines("GET http://a/ HTTP/1.0", "x-a: 1", "B: 2", ""),
			lines("GET / HTTP/1.1", "Host: a", "x-a: 1", "B: 2", "Via: 1.0 pando", ""),
		},
		{
			"nothing_is_added",
			lines("GET http://a/ HTTP/1.1", "Host: a", "pragma: no-cache", ""),
			lines("GET / HTTP/1.1", "Host: a", "pragma: no-cache", "Via: 1.1 pando", ""),
		},
		{
			"expectation_without_body",
			lines("GET http://a/ HTTP/1.1", "Host: a", "expect: 100-continue", "X-A: 1", ""),
			lines("GET / HTTP/1.1", "Host: a", "X-A: 1", "Via: 1.1 pando", ""),
		},
		{
			"values_stay",
			lines("GET http://a/ HTTP/1.1", "Host: a", "x-empty:", "x-tab:\t a\tb \t", "x-latin: \xe4", "x-folded: 1", "\t2", " 3", "x-colon: a:b", ""),
			lines("GET / HTTP/1.1", "Host: a", "x-empty: ", "x-tab: a\tb", "x-latin: \xe4", "x-folded: 1 2 3", "x-colon: a:b", "Via: 1.1 pando", ""),
		},
		{
			"forwards_are_counted",
			lines("OPTIONS http://a/ HTTP/1.1", "Host: a", "max-FORWARDS: 5", "X-A: 1", ""),
			lines("OPTIONS / HTTP/1.1", "Host: a", "max-FORWARDS: 4", "X-A: 1", "Via: 1.1 pando", ""),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make(chan string, 1)
			p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
				defer conn.Close()
				b := make([]byte, len(c.want))
				n, _ := io.ReadFull(conn, b)
				got <- string(b[:n])
				io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
				io.Copy(io.Discard, conn)
			}), nil)
			client := p.client(t, victim)
			io.WriteString(client, c.sent)
			if got := <-got; got != c.want {
				t.Errorf("the origin got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestResponseFields checks the same for responses, interim ones included, twice over one
// connection.
func TestResponseFields(t *testing.T) {
	const request = "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct{ name, request, sent, want string }{
		{
			"spelling_and_order", request,
			lines("HTTP/1.1 200 Fine", "x-POWERED-by: x", "content-length: 2", "set-cookie: a", "ETag: b", "Set-Cookie: c", "WWW-authenticate: d", "") + "ok",
			lines("HTTP/1.1 200 Fine", "x-POWERED-by: x", "content-length: 2", "set-cookie: a", "ETag: b", "Set-Cookie: c", "WWW-authenticate: d", "Via: 1.1 pando", "") + "ok",
		},
		{
			"fields_of_the_connection", request,
			lines("HTTP/1.1 200 OK", "connection: X-Gone", "x-gone: 1", "Content-Length: 2", "keep-ALIVE: timeout=60", "x-a: 1", "proxy-authenticate: Basic", "") + "ok",
			lines("HTTP/1.1 200 OK", "Content-Length: 2", "x-a: 1", "Via: 1.1 pando", "") + "ok",
		},
		{
			"interim_responses", request,
			lines("HTTP/1.1 103 Early Hints", "link: </a>", "x-b: 1", "LINK: </c>", "", "HTTP/1.1 102 Processing", "", "HTTP/1.1 200 OK", "b: 1", "A: 2", "Content-Length: 2", "") + "ok",
			lines("HTTP/1.1 103 Early Hints", "link: </a>", "x-b: 1", "LINK: </c>", "Via: 1.1 pando", "", "HTTP/1.1 102 Processing", "Via: 1.1 pando", "", "HTTP/1.1 200 OK", "b: 1", "A: 2", "Content-Length: 2", "Via: 1.1 pando", "") + "ok",
		},
		{
			"chunks_and_trailers", request,
			lines("HTTP/1.1 200 OK", "trailer: grpc-status, Set-Cookie, Grpc-Message", "transfer-encoding: chunked", "x-a: 1", "", "2", "ok", "0", "grpc-message: ", "Grpc-STATUS: 0", "set-cookie: a", ""),
			lines("HTTP/1.1 200 OK", "trailer: grpc-status, Grpc-Message", "transfer-encoding: chunked", "x-a: 1", "Via: 1.1 pando", "", "2", "ok", "0", "grpc-message: ", "Grpc-STATUS: 0", ""),
		},
		{
			"head", "HEAD http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
			lines("HTTP/1.1 200 OK", "content-length: 5", "x-a: 1", ""),
			lines("HTTP/1.1 200 OK", "content-length: 5", "x-a: 1", "Via: 1.1 pando", ""),
		},
		{
			"not_modified", request,
			lines("HTTP/1.1 304 Not Modified", "ETAG: a", "content-length: 5", ""),
			lines("HTTP/1.1 304 Not Modified", "ETAG: a", "content-length: 5", "Via: 1.1 pando", ""),
		},
		{
			"another_proxy_before", request,
			lines("HTTP/1.1 200 OK", "via: 1.1 fred", "content-length: 2", "") + "ok",
			lines("HTTP/1.1 200 OK", "via: 1.1 fred, 1.1 pando", "content-length: 2", "") + "ok",
		},
		{
			"upgrade_required", request,
			lines("HTTP/1.1 426 Upgrade Required", "upgrade: websocket", "connection: upgrade", "content-length: 2", "") + "ok",
			lines("HTTP/1.1 426 Upgrade Required", "upgrade: websocket", "connection: Upgrade", "content-length: 2", "Via: 1.1 pando", "") + "ok",
		},
		{
			"upgrade_that_is_not_required", request,
			lines("HTTP/1.1 200 OK", "upgrade: h2c", "connection: upgrade", "content-length: 2", "") + "ok",
			lines("HTTP/1.1 200 OK", "content-length: 2", "Via: 1.1 pando", "") + "ok",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
				answerAll(conn, func(*http.Request, *bufio.Reader) string { return c.sent })
			}), nil)
			client := p.client(t, victim)
			for range 2 {
				io.WriteString(client, c.request)
				if got := readUntil(t, client.br, c.want[len(c.want)-min(len(c.want), 80):]); got != c.want {
					t.Fatalf("the client got\n%s\nwant\n%s", got, c.want)
				}
			}
		})
	}
}

// TestLastResponseFields checks responses after which the connection ends: the field that
// says so has the place of the origin's.
func TestLastResponseFields(t *testing.T) {
	for _, c := range []struct{ name, request, sent, want string }{
		{
			"switch", lines("GET http://a/ HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket", ""),
			lines("HTTP/1.1 101 Switching", "sec-websocket-ACCEPT: a", "UPGRADE: websocket", "x-a: 1", "connection: upgrade", ""),
			lines("HTTP/1.1 101 Switching", "sec-websocket-ACCEPT: a", "UPGRADE: websocket", "x-a: 1", "connection: Upgrade", "Via: 1.1 pando", ""),
		},
		{
			"client_closes", lines("GET http://a/ HTTP/1.1", "Host: a", "Connection: close", ""),
			lines("HTTP/1.1 200 OK", "CONNECTION: keep-alive", "x-a: 1", "Content-Length: 2", "") + "ok",
			lines("HTTP/1.1 200 OK", "CONNECTION: close", "x-a: 1", "Content-Length: 2", "Via: 1.1 pando", "") + "ok",
		},
		{
			"http_1_0_client", lines("GET http://a/ HTTP/1.0", ""),
			lines("HTTP/1.1 200 OK", "transfer-encoding: chunked", "trailer: x-b", "x-a: 1", "", "2", "ok", "0", "x-b: 1", ""),
			lines("HTTP/1.1 200 OK", "x-a: 1", "Connection: close", "Via: 1.1 pando", "") + "ok",
		},
		{
			"http_1_0_origin", lines("GET http://a/ HTTP/1.1", "Host: a", "Connection: close", ""),
			lines("HTTP/1.0 200 OK", "SERVER: old", "x-a: 1", "") + "ok",
			lines("HTTP/1.1 200 OK", "SERVER: old", "x-a: 1", "Transfer-Encoding: chunked", "Connection: close", "Via: 1.0 pando", "", "2", "ok", "0", ""),
		},
		{
			"upgrade_required", lines("GET http://a/ HTTP/1.0", ""),
			lines("HTTP/1.1 426 Upgrade Required", "upgrade: websocket", "connection: upgrade", "content-length: 0", ""),
			lines("HTTP/1.1 426 Upgrade Required", "upgrade: websocket", "connection: Upgrade, close", "content-length: 0", "Via: 1.1 pando", ""),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					io.WriteString(conn, c.sent)
				}
			}), nil)
			client := p.client(t, victim)
			io.WriteString(client, c.request)
			if got, err := io.ReadAll(client.br); err != nil || string(got) != c.want {
				t.Errorf("the client got\n%s\nand %v; want\n%s", got, err, c.want)
			}
		})
	}
}
