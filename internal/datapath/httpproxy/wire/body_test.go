package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPace checks that a body waits for its rate, and that Stop ends the wait.
func TestPace(t *testing.T) {
	for name, stopped := range map[string]bool{"moves": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stop := make(chan struct{})
				body := Body{
					Reader: strings.NewReader("hello"),
					Source: &HeadReader{},
					Pace: func(up bool, n int) time.Duration {
						if !up || n != 5 {
							t.Errorf("Pace(%v, %d), want (true, 5)", up, n)
						}
						return time.Hour
					},
					Up:   true,
					Stop: stop,
				}
				if stopped {
					time.AfterFunc(time.Minute, func() { close(stop) })
				}
				var sent bytes.Buffer
				begin := time.Now()
				_, err := body.CopyTo(bufio.NewWriter(&sent))
				took := time.Since(begin)
				switch {
				case stopped && (!errors.Is(err, net.ErrClosed) || sent.Len() > 0 || took != time.Minute):
					t.Errorf("CopyTo = %v after %v, %q sent; want %v after 1m and nothing", err, took, sent.String(), net.ErrClosed)
				case !stopped && (err != nil || sent.String() != "hello" || took != time.Hour):
					t.Errorf("CopyTo = %v after %v, %q sent; want nil after 1h and the body", err, took, sent.String())
				}
			})
		})
	}
}

// writes counts the calls of Write.
type writes struct {
	bytes.Buffer
	n int
}

func (w *writes) Write(b []byte) (int, error) {
	w.n++
	return w.Buffer.Write(b)
}

// TestBodyFlushes checks when a head and what follows it are written: together if both
// have come, and otherwise before the connection is read again.
func TestBodyFlushes(t *testing.T) {
	for _, c := range []struct {
		name     string
		pieces   []string // reads of the connection; the first one is read ahead, with the head
		readable func() bool
		want     int // writes
	}{
		{"all_has_come", []string{"hello"}, nil, 1},
		{"the_body_comes_later", []string{"", "hello"}, nil, 2},
		{"the_body_comes_in_parts", []string{"he", "l", "lo"}, nil, 3},
		{"the_body_has_come_to_the_socket", []string{"", "hello"}, func() bool { return true }, 1},
		{"the_socket_is_empty", []string{"", "hello"}, func() bool { return false }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := &HeadReader{
				R:        &script{pieces: append([]string{"head"}, c.pieces...)},
				Readable: c.readable,
			}
			br := bufio.NewReaderSize(source, 4096)
			ahead := len("head" + c.pieces[0])
			if _, err := br.Peek(ahead); err != nil {
				t.Fatal(err)
			}
			br.Discard(len("head"))
			sent := &writes{}
			w := bufio.NewWriter(sent)
			w.WriteString("head")
			body := Body{
				Reader: &exactly{br, len("hello")},
				Source: source,
			}
			if n, err := body.CopyTo(w); n != 5 || err != nil || sent.String() != "headhello" {
				t.Errorf("CopyTo = %d, %v with %q written; want 5, nil, %q", n, err, sent.String(), "headhello")
			}
			if sent.n != c.want {
				t.Errorf("%d writes, want %d", sent.n, c.want)
			}
		})
	}
}

// script returns one piece for each Read, and then fails.
type script struct{ pieces []string }

func (s *script) Read(b []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, errors.New("read too often")
	}
	n := copy(b, s.pieces[0])
	s.pieces = s.pieces[1:]
	return n, nil
}

// exactly reads n bytes, and returns io.EOF with the last one, as net/http's bodies do.
type exactly struct {
	r io.Reader
	n int
}

func (e *exactly) Read(b []byte) (int, error) {
	n, err := e.r.Read(b[:min(len(b), e.n)])
	e.n -= n
	if err == nil && e.n == 0 {
		err = io.EOF
	}
	return n, err
}

// TestBodyStopsWhenItCannotWrite checks that a writer that fails ends the copy with a
// WriteError, also while nothing comes to be copied.
func TestBodyStopsWhenItCannotWrite(t *testing.T) {
	broken := errors.New("broken")
	source := &HeadReader{R: &script{}}
	w := bufio.NewWriter(failing{broken})
	w.WriteString("head")
	body := Body{
		Reader: bufio.NewReader(source),
		Source: source,
	}
	_, err := body.CopyTo(w)
	if we, ok := errors.AsType[*WriteError](err); !ok || we.Err != broken {
		t.Errorf("CopyTo = %v, want a WriteError of %v", err, broken)
	}
	if source.body != nil {
		t.Error("the source still flushes the writer")
	}
}

// failing is a writer that always fails.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
