package admin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are pipes, so that their deadlines run on
// the test's clock. The clients are local.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return localPipe{c}, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

type localPipe struct{ net.Conn }

func (localPipe) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4000} }
func (c localPipe) CloseWrite() error  { return c.Conn.Close() }

// TestTimes checks how long each kind of connection may last.
func TestTimes(t *testing.T) { synctest.Test(t, testTimes) }

func testTimes(t *testing.T) {
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Minute) // of synctest's clock
		io.WriteString(w, "slow")
	})
	s := newServer()
	s.Metrics = slow
	s.Explain = slow
	// The deadlines to read and to write end at the same moment here. Whichever is first
	// decides whether the client still gets its 405.
	const halfBody = "half a body"
	ln := make(pipes)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	for _, tc := range []struct {
		name, send string
		answer     bool
		ends       time.Duration
	}{
		{"nothing", "", false, headTime},
		{"half a head", "GET /livez HTTP/1.1\r\nHos", true, headTime}, // 400
		{"idle", "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", true, idleTime},
		{halfBody, "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", false, readTime},
		{"slow for everybody", "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false, time.Minute},
		{"slow for local clients", "POST /explain HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", true, time.Minute},
	} {
		client, server := net.Pipe()
		ln <- server
		begin := time.Now()
		go fmt.Fprint(client, tc.send)
		r := bufio.NewReader(client)
		resp, err := http.ReadResponse(r, nil)
		if (err == nil) != tc.answer && tc.name != halfBody {
			t.Errorf("%s: %v, %v; want an answer: %v", tc.name, resp, err, tc.answer)
		}
		if err == nil {
			io.Copy(io.Discard, resp.Body)
		}
		io.Copy(io.Discard, r)
		if took := time.Since(begin); took < tc.ends || took > tc.ends+time.Second {
			t.Errorf("%s: ended after %v, want %v", tc.name, took, tc.ends)
		}
		client.Close()
	}
	close(ln)
	<-done
}

// TestLongProfile checks that a profile may take longer than other answers.
func TestLongProfile(t *testing.T) {
	t.Parallel()
	addr := serve(t, newServer())
	path := fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(writeTime/time.Second)+1)
	if code, body := ask(t, from(t, "127.0.0.1", addr), "GET", path); code != 200 || body == "" {
		t.Errorf("GET %s: %d with %d bytes, want 200 and a profile", path, code, len(body))
	}
}
