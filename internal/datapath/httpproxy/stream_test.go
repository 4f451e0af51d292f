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

// pausingOrigin is an origin that answers each connection's request with parts. It writes
// the next part when next has got a value.
func pausingOrigin(parts []string, next <-chan struct{}) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		for i, p := range parts {
			if i > 0 {
				<-next
			}
			io.WriteString(c, p)
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
				parts := []string{c.head, c.rest}
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
	parts := []string{
		"HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 102 Processing\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
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

// piece is a part of a message. Its bytes are data if the reader of the body gets them.
type piece struct {
	text string
	data bool
}

// chunksByByte is a body in chunks whose data is helloworld.
var chunksByByte = []piece{
	{"5;a=b\r\n", false}, {"hello", true}, {"\r\n", false},
	{"4\r\n", false}, {"worl", true}, {"\r\n", false},
	{"1\r\n", false}, {"d", true}, {"\r\n", false},
	{"0\r\nX-Sum: 10\r\n\r\n", false},
}

// whole is a body without chunks, with the same data.
var whole = []piece{{"helloworld", true}}

// dribble writes pieces to c one byte at a time. A byte of data must have been read from
// body, which is at the other end, before the next one is written.
func dribble(t *testing.T, c io.Writer, pieces []piece, body io.Reader) {
	t.Helper()
	for _, p := range pieces {
		for i := range len(p.text) {
			io.WriteString(c, p.text[i:i+1])
			if !p.data {
				continue
			}
			got := make([]byte, 1) // net/http's reader would wait for more
			if _, err := body.Read(got); err != nil && err != io.EOF || got[0] != p.text[i] {
				t.Fatalf("the reader gets %q, error %v; want %q while nothing more is written", got, err, p.text[i:i+1])
			}
		}
	}
}

// TestResponseByteByByte checks that each byte of a response's body reaches the client
// while the origin sends no more.
func TestResponseByteByByte(t *testing.T) {
	for _, c := range []struct {
		name, head string
		body       []piece
	}{
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n", chunksByByte},
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", whole},
		{"ends_with_the_connection", "HTTP/1.0 200 OK\r\n\r\n", whole},
	} {
		for name, request := range map[string]string{
			"http_1_1": "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"http_1_0": "GET http://a/ HTTP/1.0\r\n\r\n",
		} {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				conns := make(chan *net.TCPConn, 1)
				p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
					http.ReadRequest(bufio.NewReader(conn))
					conns <- conn
				}), nil)
				client := p.client(t, victim)
				io.WriteString(client, request)
				conn := <-conns
				defer conn.Close()
				for i := range len(c.head) {
					io.WriteString(conn, c.head[i:i+1])
				}
				resp, err := http.ReadResponse(client.br, nil)
				if err != nil {
					t.Fatal(err)
				}
				dribble(t, conn, c.body, resp.Body)
				conn.Close()
				if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
					t.Errorf("behind the body: %q, error %v; want its end", rest, err)
				}
				if want := len(c.body) > 1 && name == "http_1_1"; (resp.Trailer.Get("X-Sum") == "10") != want {
					t.Errorf("trailer %q, want X-Sum: %v", resp.Trailer, want)
				}
			})
		}
	}
}

// TestRequestByteByByte checks that each byte of a request's body reaches the origin while
// the client sends no more.
func TestRequestByteByByte(t *testing.T) {
	for _, c := range []struct {
		name, head string
		body       []piece
	}{
		{"chunked", "POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n", chunksByByte},
		{"length", "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", whole},
	} {
		t.Run(c.name, func(t *testing.T) {
			requests := make(chan *http.Request)
			done := make(chan struct{})
			p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
				defer conn.Close()
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					t.Error(err)
				}
				requests <- req
				<-done
				io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			}), nil)
			client := p.client(t, victim)
			for i := range len(c.head) {
				io.WriteString(client, c.head[i:i+1])
			}
			req := <-requests // it comes before the body
			dribble(t, client, c.body, req.Body)
			if rest, err := io.ReadAll(req.Body); len(rest) > 0 || err != nil {
				t.Errorf("behind the body: %q, error %v; want its end", rest, err)
			}
			if want := len(c.body) > 1; (req.Trailer.Get("X-Sum") == "10") != want {
				t.Errorf("trailer %q, want X-Sum: %v", req.Trailer, want)
			}
			close(done)
			if resp, err := http.ReadResponse(client.br, nil); err != nil || resp.StatusCode != 204 {
				t.Errorf("%v, error %v; want 204", resp, err)
			}
		})
	}
}

// TestBothWaysByteByByte checks a conversation: each byte of the request is answered
// before the next one is sent.
func TestBothWaysByteByByte(t *testing.T) {
	p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
		defer conn.Close()
		req, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for b := make([]byte, 1); ; {
			if n, err := req.Body.Read(b); n == 0 && err != nil {
				break
			}
			io.WriteString(conn, "1\r\n"+string(b)+"\r\n")
		}
		io.WriteString(conn, "0\r\n\r\n")
	}), nil)
	client := p.client(t, victim)
	io.WriteString(client, "POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp, err := http.ReadResponse(client.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	dribble(t, client, chunksByByte, resp.Body)
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("behind the body: %q, error %v; want its end", rest, err)
	}
}
