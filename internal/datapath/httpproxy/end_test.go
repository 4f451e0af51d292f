package httpproxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// endless is memory without a bound.
type endless struct{}

func (endless) Take(netip.Addr, int64) error { return nil }
func (endless) Add(netip.Addr, int64)        {}

const getA = "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"

// only returns the session of a proxy that has one.
func (p testProxy) only(t *testing.T) *session {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sessions) != 1 {
		t.Fatalf("the proxy has %d sessions, want 1", len(p.sessions))
	}
	for s := range p.sessions {
		return s
	}
	return nil
}

// TestEndOfEarlierRequest checks that what ends a request does nothing to its
// connection once the request is over: while the connection waits, and during the
// next request.
func TestEndOfEarlierRequest(t *testing.T) {
	during := make(chan func(), 1)
	p := startProxy(t, testkit.ServeConns(t, func(c *net.TCPConn) {
		answerAll(c, func(*http.Request, *bufio.Reader) string {
			select {
			case end := <-during:
				end()
			default:
			}
			return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		})
	}), func(p *Proxy) { p.Memory = endless{} })
	c := p.client(t, victim)
	ask := func(when string) {
		t.Helper()
		if status, body := c.ask(t, getA); status != 200 || body != "ok" {
			t.Errorf("%s: status %d, body %q; want 200, ok", when, status, body)
		}
	}
	ask("at first")
	s := p.only(t)
	testkit.Eventually(t, "the connection to wait", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.sessions[s]
	})
	why := &flow.Error{Class: flow.Denied}
	s.evict()
	p.road.Ends()[0](why)
	ask("after the end of the first request")
	during <- func() { p.road.Ends()[0](why) }
	ask("while the first request is ended")
	for i, rec := range p.road.Finished() {
		if rec.Err != nil {
			t.Errorf("request %d ended with %v, want no error", i, rec.Err)
		}
	}
}

// TestEvictLeavesTunnels checks that the end of a request does nothing to a
// connection that has become a tunnel since.
func TestEvictLeavesTunnels(t *testing.T) {
	client, server := testkit.TCPPair(t)
	s := newSession(&Proxy{Memory: endless{}}, server) // it is none of the proxy's sessions any more
	s.evict()
	io.WriteString(client, "x")
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Errorf("a read from the client: error %v, want none", err)
	}
}

// TestEvict checks that a request whose memory is needed ends: with an answer while
// its head is not whole, and with a reset later.
func TestEvict(t *testing.T) {
	asked := make(chan struct{}, 1)
	p := startProxy(t, testkit.ServeConns(t, func(c *net.TCPConn) {
		answerAll(c, func(_ *http.Request, more *bufio.Reader) string {
			asked <- struct{}{}
			more.Peek(1) // until the proxy closes the connection
			return ""
		})
	}), func(p *Proxy) { p.Memory = endless{} })
	t.Run("in_the_head", func(t *testing.T) {
		c := p.client(t, victim)
		io.WriteString(c, strings.TrimSuffix(getA, "\r\n")+"X: "+strings.Repeat("x", 8<<10))
		var stalled []flow.Holder
		testkit.Eventually(t, "the head to hold memory", func() bool {
			stalled = p.Measure(time.Now())
			return len(stalled) == 1
		})
		stalled[0].End()
		if status, body := c.ask(t, ""); status != http.StatusServiceUnavailable || !strings.Contains(body, "overloaded") {
			t.Errorf("status %d, body %q; want 503, overloaded", status, body)
		}
		if rec := p.road.AwaitFinished(t, 1); flow.ClassOf(rec.Err) != flow.Overloaded {
			t.Errorf("the request ended with %v, want class overloaded", rec.Err)
		}
	})
	t.Run("in_the_exchange", func(t *testing.T) {
		testkit.Eventually(t, "the first client to be gone", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.sessions) == 0
		})
		c := p.client(t, victim)
		io.WriteString(c, getA)
		<-asked
		p.only(t).evict()
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the client reads %v, want a reset", err)
		}
		if rec := p.road.AwaitFinished(t, 2); flow.ClassOf(rec.Err) != flow.Overloaded {
			t.Errorf("the request ended with %v, want class overloaded", rec.Err)
		}
	})
}
