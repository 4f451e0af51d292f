package socket

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/pandoproxy/pando/internal/testkit"
)

// TestPeek checks that the first byte is returned and stays unread.
func TestPeek(t *testing.T) {
	client, server := testkit.TCPPair(t)
	io.WriteString(client, "GET")
	for range 2 {
		if b, err := Peek(server); err != nil || b != 'G' {
			t.Fatalf("Peek = %q, %v; want 'G'", b, err)
		}
	}
	b := make([]byte, 3)
	if _, err := io.ReadFull(server, b); err != nil || string(b) != "GET" {
		t.Errorf("read %q, %v after Peek; want %q", b, err, "GET")
	}
}

func TestPeekEnds(t *testing.T) {
	t.Run("end_of_stream", func(t *testing.T) {
		client, server := testkit.TCPPair(t)
		client.CloseWrite()
		if _, err := Peek(server); err != io.EOF {
			t.Errorf("Peek = %v, want %v", err, io.EOF)
		}
	})
	t.Run("reset", func(t *testing.T) {
		client, server := testkit.TCPPair(t)
		Abort(client)
		if _, err := Peek(server); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Peek = %v, want %v", err, syscall.ECONNRESET)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		_, server := testkit.TCPPair(t)
		server.SetReadDeadline(shortly())
		if _, err := Peek(server); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Peek = %v, want %v", err, os.ErrDeadlineExceeded)
		}
	})
}
