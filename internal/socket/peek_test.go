package socket

import (
	"bytes"
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
		b := make([]byte, 1)
		if n, err := Peek(server, b, nil); n != 1 || err != nil || b[0] != 'G' {
			t.Fatalf("Peek = %d, %v with %q; want 1 byte, \"G\"", n, err, b)
		}
	}
	b := make([]byte, 3)
	if _, err := io.ReadFull(server, b); err != nil || string(b) != "GET" {
		t.Errorf("read %q, %v after Peek; want %q", b, err, "GET")
	}
}

// TestPeekEnough checks that Peek waits until enough is there, in however many packets
// it comes, and until no more can come.
func TestPeekEnough(t *testing.T) {
	line := func(b []byte) bool { return bytes.IndexByte(b, '\n') >= 0 }
	for _, c := range []struct {
		name string
		send []string // in packets
		end  bool     // the client then ends its stream
		want string
		err  error
	}{
		{"at_once", []string{"ab\ncd"}, false, "ab\ncd", nil},
		{"in_packets", []string{"a", "b", "\n"}, false, "ab\n", nil},
		{"full", []string{"abcd", "efghij"}, false, "abcdefgh", nil},
		{"ends_before", []string{"ab"}, true, "ab", io.EOF},
		{"ends_behind", []string{"ab\n"}, true, "ab\n", nil},
		{"ends_at_once", nil, true, "", io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := testkit.TCPPair(t)
			client.SetNoDelay(true)
			looked := make(chan int, 100) // how many bytes were there at each look
			b := make([]byte, 8)
			got := make(chan error, 1)
			n := 0
			go func() {
				var err error
				n, err = Peek(server, b, func(b []byte) bool { looked <- len(b); return line(b) })
				got <- err
			}()
			sent := 0
			for _, s := range c.send {
				io.WriteString(client, s)
				sent += len(s)
				for sent < len(b) && <-looked < sent { // it has seen this packet
				}
			}
			if c.end {
				client.CloseWrite()
			}
			if err := <-got; err != c.err || string(b[:n]) != c.want {
				t.Errorf("Peek = %q, %v; want %q, %v", b[:n], err, c.want, c.err)
			}
			rest := make([]byte, n)
			if _, err := io.ReadFull(server, rest); err != nil || !bytes.Equal(rest, b[:n]) {
				t.Errorf("read %q, %v after Peek; want %q", rest, err, b[:n])
			}
		})
	}
}

func TestPeekEnds(t *testing.T) {
	never := func([]byte) bool { return false }
	for _, c := range []struct {
		name string
		send string
	}{{"nothing_sent", ""}, {"some_sent", "ab"}} {
		t.Run("end_of_stream_"+c.name, func(t *testing.T) {
			client, server := testkit.TCPPair(t)
			io.WriteString(client, c.send)
			client.CloseWrite()
			if n, err := Peek(server, make([]byte, 8), never); err != io.EOF || n != len(c.send) {
				t.Errorf("Peek = %d, %v, want %d, %v", n, err, len(c.send), io.EOF)
			}
		})
		t.Run("deadline_"+c.name, func(t *testing.T) {
			client, server := testkit.TCPPair(t)
			io.WriteString(client, c.send)
			passes := func([]byte) bool { // a deadline that is over at the start hides what is there
				server.SetReadDeadline(shortly())
				return false
			}
			if c.send == "" {
				server.SetReadDeadline(shortly())
			}
			if n, err := Peek(server, make([]byte, 8), passes); !errors.Is(err, os.ErrDeadlineExceeded) || n != len(c.send) {
				t.Errorf("Peek = %d, %v, want %d, %v", n, err, len(c.send), os.ErrDeadlineExceeded)
			}
		})
	}
	t.Run("reset", func(t *testing.T) {
		client, server := testkit.TCPPair(t)
		Abort(client)
		if _, err := Peek(server, make([]byte, 1), nil); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Peek = %v, want %v", err, syscall.ECONNRESET)
		}
	})
}
