package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// TestReadable checks that whatever ends a read at once makes a connection
// readable, and that Readable leaves the bytes in place.
func TestReadable(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(client *net.TCPConn)
		want bool
	}{
		{"nothing", func(*net.TCPConn) {}, false},
		{"bytes", func(client *net.TCPConn) { io.WriteString(client, "x") }, true},
		{"half_closed", func(client *net.TCPConn) { client.CloseWrite() }, true},
		{"closed", func(client *net.TCPConn) { client.Close() }, true},
		{"reset", func(client *net.TCPConn) { Abort(client) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := testkit.TCPPair(t)
			c.do(client)
			for range 2 {
				if c.want {
					awaitReadable(t, server)
				}
				if got := Readable(server); got != c.want {
					t.Errorf("Readable = %v, want %v", got, c.want)
				}
			}
		})
	}
	t.Run("own_end_closed", func(t *testing.T) {
		_, server := testkit.TCPPair(t)
		server.Close()
		if !Readable(server) {
			t.Error("Readable = false of a closed connection, want true")
		}
	})
	t.Run("not_a_socket", func(t *testing.T) {
		pipe, _ := net.Pipe()
		if Readable(pipe) {
			t.Error("Readable = true of a net.Pipe, want false")
		}
	})
}

// awaitReadable waits until what the peer did has arrived at c.
func awaitReadable(t *testing.T, c *net.TCPConn) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if err := rc.Read(func(uintptr) bool { return Readable(c) }); err != nil {
		t.Fatal(err)
	}
}

// shortly returns a deadline for a wait that must not end before it. A wait that
// ends wrongly does so at once, and one that ends rightly has nothing to do before
// the deadline, so a busy machine does not matter.
func shortly() time.Time { return time.Now().Add(50 * time.Millisecond) }

// TestAwaitHangUp checks that a half-close does not end the wait, and that a
// reset does.
func TestAwaitHangUp(t *testing.T) {
	client, server := testkit.TCPPair(t)
	client.CloseWrite()
	if _, err := server.Read(make([]byte, 1)); err != io.EOF { // the half-close has arrived
		t.Fatalf("read: error %v, want %v", err, io.EOF)
	}
	server.SetReadDeadline(shortly())
	if err := AwaitHangUp(server); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("AwaitHangUp after a half-close = %v, want %v", err, os.ErrDeadlineExceeded)
	}
	server.SetReadDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() { ended <- AwaitHangUp(server) }()
	Abort(client)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("AwaitHangUp after a reset = %v, want nil", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("AwaitHangUp did not return within 10 s of a reset")
	}
}

// TestAwaitHangUpWithBytes checks that bytes that arrive meanwhile, such as a
// next request, neither end the wait nor get lost.
func TestAwaitHangUpWithBytes(t *testing.T) {
	client, server := testkit.TCPPair(t)
	io.WriteString(client, "GET")
	server.SetReadDeadline(shortly())
	if err := AwaitHangUp(server); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("AwaitHangUp with bytes = %v, want %v", err, os.ErrDeadlineExceeded)
	}
	server.SetReadDeadline(time.Time{})
	b := make([]byte, 3)
	if _, err := io.ReadFull(server, b); err != nil || string(b) != "GET" {
		t.Errorf("read %q, %v after AwaitHangUp; want %q", b, err, "GET")
	}
}
