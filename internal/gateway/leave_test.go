package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestClientThatLeaves(t *testing.T) { userspace(t, sharedGateway, clientLeaves) }

// clientLeaves checks what happens when a client resets its connection before
// the origin has answered: the origin's connection ends, the request is not sent
// again, and the flow ends.
func clientLeaves(t *testing.T, w *world) {
	asked := make(chan string, 9)
	left := make(chan error, 9)
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		for br := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			asked <- req.URL.Path
			if strings.HasPrefix(req.URL.Path, "/think") {
				_, err := br.ReadByte()
				left <- err
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}))
	for _, request := range []string{
		"POST http://%s/think1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
		"GET http://%s/think2 HTTP/1.1\r\nHost: x\r\n\r\n",
		"DELETE http://%s/think3 HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c := w.raw(t)
		br := bufio.NewReader(c)
		// First one that is answered, so that the second finds a pooled connection.
		fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target)
		if resp, err := http.ReadResponse(br, nil); err != nil {
			t.Fatal(err)
		} else {
			io.ReadAll(resp.Body)
		}
		<-asked
		fmt.Fprintf(c, request, target)
		path := <-asked
		c.SetLinger(0)
		c.Close()
		select {
		case err := <-left:
			if err == nil {
				t.Errorf("%s: the origin got more bytes, want an end", path)
			}
		case <-time.After(readTime):
			t.Fatalf("%s: the origin's connection did not end", path)
		}
	}
	canceled := func() (n int) {
		for _, f := range w.flows.matching(target) {
			if f["class"] == "canceled" && f["status"] == nil {
				n++
			}
		}
		return n
	}
	testkit.Eventually(t, "three flows that were canceled", func() bool { return canceled() == 3 })
	if len(asked) > 0 {
		t.Errorf("the origin was asked once more: %s", <-asked)
	}
}

func TestClientThatLeavesAtOnce(t *testing.T) { eachMode(t, sharedTailnet, clientLeavesAtOnce) }

// clientLeavesAtOnce checks clients that reset before the replica watches them,
// in every state: each has a flow line of class canceled, and nothing is left of
// it.
func clientLeavesAtOnce(t *testing.T, w *world) {
	r := w.start(t, withAdmin)
	asked := make(chan bool)
	left := make(chan bool)
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		asked <- true
		<-left
		switch req.URL.Path {
		case "/upgrade":
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		case "/early":
			io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		default:
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
		io.Copy(io.Discard, c)
	}))
	requests := []string{
		"GET http://%s/upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
		"GET http://%s/early HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST http://%s/body HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
		"GET http://%s/ HTT",
		"GET http://%s/ HTTP/1.1\r\nHo",
	}
	for _, request := range requests {
		c := r.raw(t)
		fmt.Fprintf(c, request, target)
		whole := strings.Contains(request, "\r\n\r\n")
		if whole {
			<-asked
		} else {
			testkit.Eventually(t, "half a head to be read", func() bool { return value(t, r, "pando_connections") == 1 })
		}
		c.SetLinger(0)
		c.Close()
		if whole {
			left <- true
		}
		testkit.Eventually(t, "an end of it", func() bool {
			m := scrape(t, r)
			return m["pando_connections"] == 0 && m[`pando_flows_active{front="http"}`] == 0
		})
	}
	r.flows.mu.Lock()
	defer r.flows.mu.Unlock()
	if len(r.flows.lines) != len(requests) {
		t.Errorf("%d flow lines, want %d: one for each request", len(r.flows.lines), len(requests))
	}
	for _, f := range r.flows.lines {
		if f["class"] != "canceled" {
			t.Errorf("flow line %v, want class canceled", f)
		}
	}
}
