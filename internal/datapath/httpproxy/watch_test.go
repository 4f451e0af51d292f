package httpproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// A client that half-closes is still there; one that resets is not.
func TestAwaitHangUp(t *testing.T) {
	o, server := newOrigin(t, flow.Target{})
	client := o.Conn.(*net.TCPConn)
	ended := make(chan error, 1)
	client.CloseWrite()
	if _, err := server.Read(make([]byte, 1)); err != io.EOF { // its end has arrived
		t.Fatal(err)
	}
	go func() { ended <- awaitHangUp(server) }()
	server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a half-close: %v, want that the wait timed out", err)
	}
	server.SetReadDeadline(time.Time{})
	go func() { ended <- awaitHangUp(server) }()
	client.SetLinger(0)
	client.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("after a reset: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a reset was not noticed")
	}
}

// Bytes that arrive meanwhile are a next request, and nobody's leaving.
func TestAwaitHangUpWithBytes(t *testing.T) {
	o, server := newOrigin(t, flow.Target{})
	client := o.Conn.(*net.TCPConn)
	io.WriteString(client, "GET")
	ended := make(chan error, 1)
	go func() { ended <- awaitHangUp(server) }()
	server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, want that the wait timed out", err)
	}
	server.SetReadDeadline(time.Time{})
	b := make([]byte, 3)
	if _, err := io.ReadFull(server, b); err != nil || string(b) != "GET" {
		t.Errorf("the bytes are gone: %q, %v", b, err)
	}
}
