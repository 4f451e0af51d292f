package httpproxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/target"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// part is what one end writes at a time, and what the other end must have read of the
// body before the next part is written.
type part struct{ sent, read string }

// pausingOrigin is an origin that answers each connection's request with parts. It writes
// the next part when next has got a value.
func pausingOrigin(parts []part, next <-chan struct{}) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		for i, p := range parts {
			if i > 0 {
				<-next
			}
			io.WriteString(c, p.sent)
		}
		c.CloseWrite()
		io.Copy(io.Discard, c) // bytes that are not read would make a reset of the end
	}
}

// TestHeadComesAtOnce checks that a client gets the head of a response while its origin
// sends nothing more, whatever the framing of the body. The origin sends the rest when
// the client has the head.
func TestHeadComesAtOnce(t *testing.T) {
	const (
		ok      = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
		chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"
	)
	for _, c := range []struct{ name, head, rest, body string }{
		{"chunked", chunked, "5\r\nhello\r\n0\r\n\r\n", "hello"},
		{"chunked_and_part_of_a_size", chunked + "0", "5\r\nhello\r\n0\r\n\r\n", "hello"},
		{"chunked_and_a_size", chunked + "5\r\n", "hello\r\n0\r\n\r\n", "hello"},
		{"chunked_and_an_extension", chunked + "5;a=", "b\r\nhello\r\n0\r\n\r\n", "hello"},
		{"chunked_and_the_last_size", chunked + "0\r\n", "\r\n", ""},
		{"chunked_and_part_of_a_trailer", chunked + "0\r\nX-A: ", "1\r\n\r\n", ""},
		{"length", ok + "Content-Length: 5\r\n\r\n", "hello", "hello"},
		{"ends_with_the_connection", ok + "Connection: close\r\n\r\n", "hello", "hello"},
		{"http_1_0", "HTTP/1.0 200 OK\r\n\r\n", "hello", "hello"},
		{"http_1_0_with_length", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", "hello", "hello"},
		{"after_an_interim_response", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + chunked, "5\r\nhello\r\n0\r\n\r\n", "hello"},
		{"bad_status", "HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\n", "hello", "hello"},
	} {
		for _, front := range []struct {
			name, request string
			edit          func(*Proxy)
		}{
			{"proxy", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", nil},
			{"http_1_0_client", "GET http://a/ HTTP/1.0\r\n\r\n", nil},
			{"request_with_body", "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", nil},
			{"request_in_progress", "POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", nil},
			{"web", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", func(p *Proxy) {
				p.Front = flow.Web
				p.Target = target.ByHost(80)
			}},
		} {
			t.Run(c.name+"/"+front.name, func(t *testing.T) {
				next := make(chan struct{})
				parts := []part{{c.head, ""}, {c.rest, ""}}
				p := startProxy(t, testkit.ServeConns(t, pausingOrigin(parts, next)), front.edit)
				client := p.client(t, victim)
				io.WriteString(client, front.request)
				resp, err := finalHead(client.br)
				close(next)
				if err != nil {
					t.Fatalf("no head while the origin is silent: %v", err)
				}
				if body, err := io.ReadAll(resp.Body); err != nil || string(body) != c.body {
					t.Errorf("body %q, error %v; want %q", body, err, c.body)
				}
			})
		}
	}
}

// finalHead reads the head of the final response.
func finalHead(br *bufio.Reader) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode >= 200 {
			return resp, err
		}
	}
}

// TestInterimComesAtOnce checks that an interim response reaches the client before the
// origin sends more, one after the other.
func TestInterimComesAtOnce(t *testing.T) {
	next := make(chan struct{})
	parts := []part{
		{sent: "HTTP/1.1 100 Continue\r\n\r\n"},
		{sent: "HTTP/1.1 102 Processing\r\n\r\n"},
		{sent: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"},
		{sent: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
	}
	p := startProxy(t, testkit.ServeConns(t, pausingOrigin(parts, next)), nil)
	client := p.client(t, victim)
	io.WriteString(client, "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n")
	for i, want := range []int{100, 102, 103, 200} {
		if i > 0 {
			next <- struct{}{}
		}
		resp, err := http.ReadResponse(client.br, nil)
		if err != nil || resp.StatusCode != want {
			t.Fatalf("response %d: %v, error %v; want status %d", i, resp, err, want)
		}
	}
}

// TestHeadOfPacedBody checks that a head does not wait for the rate of its body.
func TestHeadOfPacedBody(t *testing.T) {
	paced := make(chan struct{}, 1)
	p := startProxy(t, testkit.ServeConns(t, readsBodies), func(p *Proxy) {
		p.Pace = func(netip.Addr) func(bool, int) time.Duration {
			return func(bool, int) time.Duration {
				paced <- struct{}{}
				return time.Hour // until the test ends
			}
		}
	})
	client := p.client(t, victim)
	io.WriteString(client, getA)
	if resp, err := http.ReadResponse(client.br, nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("%v, error %v; want the head while the body waits", resp, err)
	}
	<-paced
}

// TestSmallResponseLeavesAtOnce checks that a client reads the head and the body of a
// response together if both have come from the origin: neither waits, and there is one
// segment.
func TestSmallResponseLeavesAtOnce(t *testing.T) {
	for name, answer := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, testkit.ServeConns(t, func(c *net.TCPConn) {
				answerAll(c, func(*http.Request, *bufio.Reader) string { return answer })
			}), nil)
			client := p.client(t, victim)
			for i := range 10 {
				io.WriteString(client, getA)
				b := make([]byte, 4096)
				n, err := client.Read(b)
				if got := string(b[:n]); err != nil || !strings.Contains(got, "hello") {
					t.Errorf("response %d: the first read returns %q, error %v; want the head and the body", i, got, err)
				}
			}
		})
	}
}
