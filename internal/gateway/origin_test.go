package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testnet"
)

// origin is an HTTP server whose answers show what it was sent.
type origin struct {
	host  string // name and port
	mu    sync.Mutex
	conns int
	hold  chan struct{} // /hold answers when it is closed
	held  chan struct{} // gets one for each request of /hold
	gate  chan struct{}
}

// chunksOf reads r to its end, however slowly its chunks are taken. An origin that stops
// reading while it writes can stall in netstack for a minute: docs/design/0011.
func chunksOf(r io.Reader) <-chan []byte {
	chunks := make(chan []byte, 1<<14)
	go func() {
		defer close(chunks)
		for {
			b := make([]byte, 8<<10)
			n, err := r.Read(b)
			if n > 0 {
				chunks <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	return chunks
}

// newOrigin serves an origin at a new address of the private site, until the
// test ends.
func newOrigin(t *testing.T, cloud *testnet.Cloud) *origin {
	addr := cloud.NewAddr()
	o := &origin{
		host: testnet.NamePort(addr),
		hold: make(chan struct{}),
		held: make(chan struct{}, 9),
		gate: make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex() // without it, net/http drops the rest of a request that is answered early
		io.Copy(w, r.Body)
	})
	mux.HandleFunc("/duplex", func(w http.ResponseWriter, r *http.Request) { // as echo, and never stops reading
		http.NewResponseController(w).EnableFullDuplex()
		for b := range chunksOf(r.Body) {
			w.Write(b)
		}
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Host: %s\nURI: %s\n", r.Host, r.RequestURI)
		r.Header.Write(w)
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		n, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", fmt.Sprintf("%d %s", n, r.Trailer.Get("X-Request-Sum")))
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) { // without reading the body
		http.Error(w, "no thanks", http.StatusRequestEntityTooLarge)
	})
	mux.HandleFunc("/status/204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	mux.HandleFunc("/status/304", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(304)
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "tick %d\n", i)
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/gated", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "first")
		w.(http.Flusher).Flush()
		select {
		case <-o.gate:
		case <-time.After(15 * time.Second):
		}
		fmt.Fprintln(w, "second")
	})
	mux.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		o.held <- struct{}{}
		<-o.hold
		io.WriteString(w, "held")
	})
	s := &http.Server{Handler: mux, ConnState: func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			o.mu.Lock()
			o.conns++
			o.mu.Unlock()
		}
	}}
	go s.Serve(cloud.Listen(addr)) // ends with Close
	t.Cleanup(func() { s.Close() })
	return o
}

func (o *origin) connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.conns
}

func TestStaleOriginConnection(t *testing.T) { userspace(t, sharedGateway, staleOrigin) }

// staleOrigin checks that an origin which closes a pooled connection does not
// fail the next request.
func staleOrigin(t *testing.T, w *world) {
	var served int
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		served++
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // keeps alive, and then doesn't
		}
	}))
	c := w.raw(t)
	br := bufio.NewReader(c)
	for i := range 3 {
		fmt.Fprintf(c, "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", target)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("request %d: %v, %v", i, resp, err)
		}
		io.ReadAll(resp.Body)
		time.Sleep(200 * time.Millisecond) // for the origin's FIN to arrive; nothing shows it before the connection is used
	}
}

func TestEarlyResponse(t *testing.T) { userspace(t, sharedGateway, earlyResponse) }

// earlyResponse checks an origin that answers while the body is still coming.
func earlyResponse(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "POST http://%s/early HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nsome", w.origin.host)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("got %v, %v; want 413", resp, err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "no thanks\n" {
		t.Errorf("the body is %q, %v; want no thanks", b, err)
	}
	if !resp.Close {
		t.Error("the connection is kept open, with half a request on it")
	}
}

func TestStreamsAsItComes(t *testing.T) { userspace(t, sharedGateway, streams) }

// streams checks that a response is passed on as it comes: the origin writes its
// second line when the client has the first one.
func streams(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/gated HTTP/1.1\r\nHost: x\r\n\r\n", w.origin.host)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(resp.Body)
	if line, err := br.ReadString('\n'); err != nil || line != "first\n" {
		t.Fatalf("the first line is %q, %v; want first, before the origin has ended", line, err)
	}
	close(w.origin.gate)
	if line, err := br.ReadString('\n'); err != nil || line != "second\n" {
		t.Errorf("the second line is %q, %v; want second", line, err)
	}
}

func TestHeadBeforeSilence(t *testing.T) { eachMode(t, sharedGateway, headBeforeSilence) }

// headBeforeSilence checks that a response's head arrives while the origin is silent, and
// each byte of its body before the next one is sent.
func headBeforeSilence(t *testing.T, w *world) {
	next := make(chan struct{})
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		<-next
		io.WriteString(c, "3\r\n")
		for _, b := range "abc" {
			io.WriteString(c, string(b))
			<-next
		}
		io.WriteString(c, "\r\n0\r\n\r\n")
	}))
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range "abc" {
		next <- struct{}{}
		expect(t, resp.Body, []byte(string(want)))
	}
	next <- struct{}{}
	if b, err := io.ReadAll(resp.Body); len(b) > 0 || err != nil {
		t.Errorf("behind the body: %q, %v; want its end", b, err)
	}
}

func TestTruncatedResponse(t *testing.T) { userspace(t, sharedGateway, truncatedResponse) }

func truncatedResponse(t *testing.T, w *world) {
	for framing, response := range map[string]string{
		"length": "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this",
		"chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
	} {
		target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
			defer c.Close()
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, response)
		}))
		c := w.raw(t)
		fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
		}
		if err == nil {
			t.Errorf("%s: a truncated response came through as a whole one", framing)
		}
		if f := w.flows.find(t, target); f["class"] != "reset" {
			t.Errorf("%s: flow line %v, want class reset", framing, f)
		}
	}
}

func TestReplayAfterALostRace(t *testing.T) { userspace(t, sharedGateway, replay) }

// replay checks an origin that closes a pooled connection just as the next
// request arrives. That request is sent again, once, if its method allows that.
// Otherwise it has a connection of its own.
func replay(t *testing.T, w *world) {
	for _, request := range []string{
		"GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
	} {
		var conns atomic.Int32
		target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
			defer c.Close()
			br := bufio.NewReader(c)
			first := conns.Add(1) == 1
			for i := 0; ; i++ {
				req, err := http.ReadRequest(br)
				if err != nil || first && i == 1 {
					return
				}
				io.Copy(io.Discard, req.Body)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}))
		conn := w.raw(t)
		br := bufio.NewReader(conn)
		for i := range 2 {
			fmt.Fprintf(conn, request, target)
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%.4s request %d: %v, %v; want 200", request, i, resp, err)
			}
			io.ReadAll(resp.Body)
		}
	}
}

func TestBadResponses(t *testing.T) { userspace(t, sharedGateway, badResponses) }

// badResponses checks that an answer which is not HTTP has class bad_response,
// and a connection that ends too early has class reset.
func badResponses(t *testing.T, w *world) {
	answer := make(chan string, 1)
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, <-answer)
	}))
	for text, class := range map[string]string{
		"HELLO\r\n\r\n": "bad_response",
		"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n": "bad_response",
		"":             "reset",
		"HTTP/1.1 200": "reset",
	} {
		c := w.raw(t)
		answer <- text
		fmt.Fprintf(c, "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", target)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 502 || !strings.Contains(resp.Header.Get("Proxy-Status"), class) {
			t.Errorf("%q: %v, %v; want 502 and %s", text, resp, err, class)
		}
	}
}

func TestHugeResponseHead(t *testing.T) { userspace(t, sharedGateway, hugeResponseHead) }

// hugeResponseHead checks that a response head without an end does not fill the
// memory.
func hugeResponseHead(t *testing.T, w *world) {
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		line := []byte("X-Filler: " + strings.Repeat("f", 1000) + "\r\n")
		for {
			if _, err := c.Write(line); err != nil {
				return
			}
		}
	}))
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 502 {
		t.Errorf("%v, %v; want 502", resp, err)
	}
}

// connectionAuth checks that an origin which authenticates connections (NTLM)
// sees each client on a connection of its own.
func connectionAuth(t *testing.T, w *world) {
	conns := make(chan net.Conn, 4)
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		conns <- c
		defer c.Close()
		br := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}))
	for _, authorization := range []string{"Authorization: NTLM TlRMTVNTUAAB\r\n", ""} {
		c := w.raw(t)
		fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n%s\r\n", target, authorization)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("got %v, %v; want 200", resp, err)
		}
		io.ReadAll(resp.Body)
	}
	if n := len(conns); n != 2 {
		t.Errorf("two clients had %d connections to the origin, want 2", n)
	}
}
