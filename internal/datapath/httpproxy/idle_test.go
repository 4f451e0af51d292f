package httpproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/testkit"
)

// repeats are requests, and whether they may be sent twice: whether their method is
// idempotent, and they have no body that would have to be kept.
var repeats = []struct {
	name, request string
	may           bool
}{
	{"get", getA, true},
	{"head", "HEAD http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"delete", "DELETE http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{"put_without_body", "PUT http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", true},
	{"put", "PUT http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", false},
	{"post", "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", false},
	{"post_in_chunks", "POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false},
	{"post_without_body", "POST http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"patch", "PATCH http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", false},
	{"unknown_method", "CHARGE http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", false},
}

// TestFreshConnections checks which requests get a connection that has served another one.
func TestFreshConnections(t *testing.T) {
	for _, c := range repeats {
		t.Run(c.name, func(t *testing.T) {
			var conns atomic.Int32
			p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
				conns.Add(1)
				readsBodies(conn)
			}), nil)
			client := p.client(t, victim)
			client.ask(t, getA)
			io.WriteString(client, c.request)
			method, _, _ := strings.Cut(c.request, " ")
			resp, err := http.ReadResponse(client.br, &http.Request{Method: method})
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%v, error %v; want 200", resp, err)
			}
			want := int32(2)
			if c.may {
				want = 1
			}
			if got := conns.Load(); got != want {
				t.Errorf("the origin has got %d connections, want %d", got, want)
			}
			if rec := p.road.AwaitFinished(t, 2); rec.Reused != c.may {
				t.Errorf("the record says reused=%v, want %v", rec.Reused, c.may)
			}
		})
	}
}

// TestOriginClosesIdleConnection checks that a client never learns that its origin has
// closed an idle connection, at whatever moment: there is no 502, and the origin gets a
// request that must not be repeated once.
func TestOriginClosesIdleConnection(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok"
	for _, how := range []struct {
		name string
		// close ends the first connection, which has served a request.
		close func(c *net.TCPConn, br *bufio.Reader, served func(*http.Request))
	}{
		{"at_once", func(*net.TCPConn, *bufio.Reader, func(*http.Request)) {}},
		{"when_the_next_request_begins", func(c *net.TCPConn, br *bufio.Reader, _ func(*http.Request)) { br.Peek(1) }},
		{"with_a_reset_then", func(c *net.TCPConn, br *bufio.Reader, _ func(*http.Request)) {
			br.Peek(1)
			socket.Abort(c)
		}},
		{"when_it_has_served_the_next_request", func(c *net.TCPConn, br *bufio.Reader, served func(*http.Request)) {
			if req, err := http.ReadRequest(br); err == nil {
				served(req)
			}
		}},
		{"with_status_408_then", func(c *net.TCPConn, br *bufio.Reader, _ func(*http.Request)) {
			br.Peek(1)
			io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}},
	} {
		for _, c := range repeats {
			t.Run(how.name+"/"+c.name, func(t *testing.T) {
				var conns, counted atomic.Int32
				served := func(req *http.Request) {
					io.Copy(io.Discard, req.Body)
					counted.Add(1)
				}
				p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
					defer conn.Close()
					br := bufio.NewReader(conn)
					first := conns.Add(1) == 1
					for {
						req, err := http.ReadRequest(br)
						if err != nil {
							return
						}
						served(req)
						if req.Method == http.MethodHead {
							io.WriteString(conn, strings.TrimSuffix(answer, "ok"))
						} else {
							io.WriteString(conn, answer)
						}
						if first {
							how.close(conn, br, served)
							return
						}
					}
				}), nil)
				client := p.client(t, victim)
				client.ask(t, getA)
				io.WriteString(client, c.request)
				method, _, _ := strings.Cut(c.request, " ")
				resp, err := http.ReadResponse(client.br, &http.Request{Method: method})
				if err != nil || resp.StatusCode != 200 {
					t.Fatalf("%v, error %v; want 200", resp, err)
				}
				if n := counted.Load(); !c.may && n != 2 {
					t.Errorf("the origin has served %d requests, want 2", n)
				}
			})
		}
	}
}

// TestPostsLeaveOneConnection checks that requests with connections of their own do not
// fill the pool.
func TestPostsLeaveOneConnection(t *testing.T) {
	var open, all atomic.Int32
	p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
		all.Add(1)
		open.Add(1)
		defer open.Add(-1)
		readsBodies(conn)
	}), nil)
	client := p.client(t, victim)
	for range 20 {
		client.ask(t, "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
	}
	testkit.Eventually(t, "one open connection", func() bool { return open.Load() == 1 })
	client.ask(t, getA)
	if n := all.Load(); n != 20 {
		t.Errorf("the origin has got %d connections, want 20: one for each POST, and none for the GET", n)
	}
}

// TestKeepAliveHints checks what becomes of a connection whose origin says how long, and for
// how many requests, it keeps it.
func TestKeepAliveHints(t *testing.T) {
	for _, c := range []struct {
		name, hint string // %d is the number of the response on its connection
		requests   int
		conns      int32
	}{
		{"none", "", 6, 1},
		{"time_enough", "Keep-Alive: timeout=60\r\n", 6, 1},
		{"no_time", "Keep-Alive: timeout=0\r\n", 6, 6},
		{"counted_down", "keep-alive: timeout=60, max=%d\r\n", 6, 2},
		{"no_more", "Connection: Keep-Alive\r\nKeep-Alive: max=0\r\n", 6, 6},
		{"one_more", "Keep-Alive: max=1\r\n", 6, 3},
		{"not_a_hint", "Keep-Alive: soon\r\n", 6, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var conns atomic.Int32
			outcomes := make(chan origin.Outcome, 20)
			p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
				conns.Add(1)
				more := 3
				answerAll(conn, func(*http.Request, *bufio.Reader) string {
					more--
					hint := c.hint
					if strings.Contains(hint, "%d") {
						hint = fmt.Sprintf(hint, more)
					}
					return "HTTP/1.1 200 OK\r\n" + hint + "Content-Length: 2\r\n\r\nok"
				})
			}), func(p *Proxy) { p.Released = func(o origin.Outcome) { outcomes <- o } })
			client := p.client(t, victim)
			closed := int32(0)
			for range c.requests {
				client.ask(t, getA)
				if <-outcomes == origin.OriginCloses {
					closed++
				}
			}
			if n := conns.Load(); n != c.conns {
				t.Errorf("%d requests took %d connections, want %d", c.requests, n, c.conns)
			}
			if n := conns.Load(); closed != n && closed != n-1 {
				t.Errorf("%d connections of %d were closed for the origin's sake", closed, n)
			}
		})
	}
	t.Run("time_is_over", func(t *testing.T) {
		ended := make(chan error, 1)
		p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
			defer conn.Close()
			br := bufio.NewReader(conn)
			http.ReadRequest(br)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok")
			_, err := br.ReadByte() // until the proxy closes, which would take 90 s without the hint
			ended <- err
		}), nil)
		p.client(t, victim).ask(t, getA)
		if err := <-ended; err != io.EOF {
			t.Errorf("the origin reads %v, want that the proxy closes the idle connection", err)
		}
	})
}
