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
	"github.com/pandoproxy/pando/internal/testkit"
)

const (
	attacker = "127.0.0.2"
	victim   = "127.0.0.3"
)

// ignoresBodies is an origin that takes the body of a request for the next
// request (CL.0). Each response holds the path of its request. It answers /evil as
// late as it can: when the next request has begun, so that no check of an idle
// connection can notice the answer.
func ignoresBodies(c *net.TCPConn) {
	answerAll(c, func(req *http.Request, more *bufio.Reader) string {
		if req.URL.Path == "/evil" {
			more.Peek(1)
		}
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(req.URL.Path), req.URL.Path)
	})
}

// TestIgnoredBodyReachesNobody checks that an origin which ignores bodies cannot
// answer a client with the response that another one has chosen.
func TestIgnoredBodyReachesNobody(t *testing.T) {
	const evil = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, reuse := range []origin.Reuse{"", origin.ReuseClient, origin.ReuseShared, origin.ReuseNone} {
		for _, c := range []struct{ name, head string }{
			{"get", "GET http://a/first HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"},
			{"head", "HEAD http://a/first HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"},
			{"post", "POST http://a/first HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"},
			{"expect", "POST http://a/first HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s"},
		} {
			t.Run(string(reuse)+"_"+c.name, func(t *testing.T) {
				p := startProxy(t, testkit.ServeConns(t, ignoresBodies), func(p *Proxy) { p.Reuse = reuse })
				for range 3 {
					bad := p.client(t, attacker)
					fmt.Fprintf(bad, c.head, len(evil), evil)
					resp, err := http.ReadResponse(bad.br, &http.Request{Method: strings.ToUpper(c.name)})
					if err != nil {
						t.Fatal(err)
					}
					io.Copy(io.Discard, resp.Body)
					if status, body := p.client(t, victim).ask(t, "GET http://a/mine HTTP/1.1\r\nHost: a\r\n\r\n"); status != 200 || body != "/mine" {
						t.Fatalf("the next client gets status %d, %q; want 200, /mine", status, body)
					}
				}
			})
		}
	}
}

// TestReuse checks after which requests a connection to an origin is used again,
// and by whom.
func TestReuse(t *testing.T) {
	const (
		get  = "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"
		post = "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
	)
	odd := func(method string) string {
		return method + " http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
	}
	for _, c := range []struct {
		name    string
		reuse   origin.Reuse
		request string // of the attacker, over the first connection
		same    bool   // the same client sends the next request
		want    origin.Outcome
		conns   int32 // of the origin, after a GET that follows
	}{
		{"default_same_client", "", get, true, origin.Kept, 1},
		{"default_other_client", "", get, false, origin.Kept, 2},
		{"client_post", origin.ReuseClient, post, true, origin.Kept, 1},
		{"shared_other_client", origin.ReuseShared, get, false, origin.Kept, 1},
		{"shared_post_other_client", origin.ReuseShared, post, false, origin.Kept, 2},
		{"shared_post_same_client", origin.ReuseShared, post, true, origin.Kept, 1},
		{"none", origin.ReuseNone, get, true, origin.NoReuse, 2},
		{"get_with_body", "", odd("GET"), true, origin.OddBody, 2},
		{"delete_with_body", "", odd("DELETE"), true, origin.OddBody, 2},
		{"options_with_body", "", odd("OPTIONS"), true, origin.OddBody, 2},
		{"trace_with_body", "", odd("TRACE"), true, origin.OddBody, 2},
		{"get_with_empty_chunks", "", "GET http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true, origin.OddBody, 2},
		{"get_of_length_0", "", "GET http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", true, origin.Kept, 1},
		{"expect", "", strings.Replace(post, "\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1), true, origin.Expect, 2},
		{"expect_without_body", "", strings.Replace(get, "\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1), true, origin.Expect, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var conns atomic.Int32
			outcomes := make(chan origin.Outcome, 2)
			p := startProxy(t, testkit.ServeConns(t, func(conn *net.TCPConn) {
				conns.Add(1)
				readsBodies(conn)
			}), func(p *Proxy) {
				p.Reuse = c.reuse
				p.Released = func(o origin.Outcome) { outcomes <- o }
			})
			first := p.client(t, attacker)
			first.ask(t, c.request)
			if got := <-outcomes; got != c.want {
				t.Errorf("outcome %q, want %q", got, c.want)
			}
			next := first
			if !c.same {
				next = p.client(t, victim)
			}
			if status, _ := next.ask(t, get); status != 200 {
				t.Errorf("the next request: status %d, want 200", status)
			}
			<-outcomes
			if n := conns.Load(); n != c.conns {
				t.Errorf("the origin has %d connections, want %d", n, c.conns)
			}
			if rec := p.road.AwaitFinished(t, 2); rec.Reused != (c.conns == 1) {
				t.Errorf("the record says reused=%v, want %v", rec.Reused, c.conns == 1)
			}
		})
	}
}

// readsBodies is an origin that reads requests whole.
func readsBodies(c *net.TCPConn) {
	answerAll(c, func(req *http.Request, _ *bufio.Reader) string {
		io.Copy(io.Discard, req.Body)
		return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	})
}

// TestEarlyResponseIsNotKept checks that a connection whose origin answers before
// the request has ended is closed, also if the rest of the request arrives then.
func TestEarlyResponseIsNotKept(t *testing.T) {
	outcomes := make(chan origin.Outcome, 1)
	p := startProxy(t, testkit.ServeConns(t, func(c *net.TCPConn) {
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			io.Copy(io.Discard, c)
		}
	}), func(p *Proxy) { p.Released = func(o origin.Outcome) { outcomes <- o } })
	c := p.client(t, attacker)
	c.ask(t, "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe") // the answer comes without the rest
	io.WriteString(c, "llo")
	if got := <-outcomes; got != origin.Early {
		t.Errorf("outcome %q, want %q", got, origin.Early)
	}
}
