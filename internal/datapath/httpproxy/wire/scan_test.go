package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// readHead reads one head as the front does. It returns what is left behind
// the head.
func readHead(r io.Reader, maxFields int) (*http.Request, string, error) {
	h := &HeadReader{R: r}
	br := bufio.NewReaderSize(h, 16)
	h.Begin(64 << 10)
	req, err := h.ReadRequest(br, maxFields)
	h.End()
	rest, _ := io.ReadAll(br)
	return req, string(rest), err
}

// TestReadRequest checks what ReadRequest rejects, with heads that come whole and
// byte by byte.
func TestReadRequest(t *testing.T) {
	for _, c := range []struct {
		name, head string
		want       string // part of the error; empty means none
	}{
		{"plain", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"lines_end_with_lf", "GET / HTTP/1.1\nHost: a\n\n", ""},
		{"empty_lines_before", "\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"no_host", "GET / HTTP/1.1\r\nX: host: a\r\n\r\n", "needs a Host"},
		{"no_host_in_1.0", "GET / HTTP/1.0\r\n\r\n", ""},
		{"no_host_in_connect", "CONNECT a:1 HTTP/1.1\r\n\r\n", ""},
		{"host_in_folded_line", "GET / HTTP/1.1\r\nX: y\r\n Host: a\r\n\r\n", "needs a Host"},
		{"space_before_colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", "without a space"},
		{"tab_before_colon", "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", "without a space"},
		{"space_before_colon_of_long_name", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("x", 40) + " : 5\r\n\r\n", "without a space"},
		{"space_in_value", "GET / HTTP/1.1\r\nHost: a\r\nX: b : c\r\n\r\n", ""},
		{"length_and_encoding", "POST / HTTP/1.1\r\nHOST: a\r\ncontent-length: 5\r\nTRANSFER-encoding: chunked\r\n\r\n", "not both"},
		{"encoding_in_1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0 has no"},
		{"longer_name", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encodings: x\r\n\r\n", ""},
		{"most_fields", "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nD: e\r\n\r\n", ""},
		{"too_many_fields", "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nD: e\r\nF: g\r\n\r\n", "more than 3"},
		{"too_many_folded_lines", "GET / HTTP/1.1\r\nHost: a\r\n b\r\n c\r\n d\r\n\r\n", "more than 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for how, r := range map[string]io.Reader{
				"whole":        strings.NewReader(c.head + "rest"),
				"byte_by_byte": iotest.OneByteReader(strings.NewReader(c.head + "rest")),
			} {
				_, rest, err := readHead(r, 3)
				switch {
				case c.want == "" && (err != nil || rest != "rest"):
					t.Errorf("%s: error %v with %q left, want none with %q left", how, err, rest, "rest")
				case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
					t.Errorf("%s: error %v, want one with %q", how, err, c.want)
				}
			}
		})
	}
}

// TestTooManyFieldsEndEarly checks that the bound on fields ends a head at once: the
// parser would hold more than 20 bytes for each byte of small fields.
func TestTooManyFieldsEndEarly(t *testing.T) {
	head := "GET / HTTP/1.1\r\n" + strings.Repeat("a:\n", 15000)
	r := strings.NewReader(head)
	_, _, err := readHead(io.MultiReader(r, iotest.ErrReader(errors.New("read to its end"))), 256)
	if _, ok := errors.AsType[TooManyFields](err); !ok {
		t.Errorf("ReadRequest = %v, want TooManyFields", err)
	}
}

// TestCharge checks that heads are charged in steps before they are read, and that a
// refusal ends them.
func TestCharge(t *testing.T) {
	full := errors.New("full")
	head := "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 3*chargeStep) + "\r\n\r\n"
	for _, c := range []struct{ allowed, charged int }{{0, 0}, {1, 1}, {2, 2}, {9, 3}} {
		n := 0
		h := &HeadReader{R: strings.NewReader(head)}
		h.Charge = func(int) error {
			if n == c.allowed {
				return full
			}
			n++
			return nil
		}
		h.Begin(64 << 10)
		_, err := h.ReadRequest(bufio.NewReader(h), 10)
		if n != c.charged || (err == full) != (c.allowed < 3) {
			t.Errorf("with %d steps allowed: charged %d, error %v; want %d steps", c.allowed, n, err, c.charged)
		}
	}
}

// FuzzReadRequest compares heads that come in pieces with heads that come whole,
// and the place where we see a head's end with the parser's.
func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\r\n\r\n"), uint8(3))
	f.Add([]byte("GET / HTTP/1.1\nHost : a\n \n\r\n"), uint8(1))
	f.Add([]byte("\r\nPOST / HTTP/1.1\r\nA: b\r\n\tc:d\r\nContent-Length: 1\r\n\r\r\n\n"), uint8(7))
	f.Fuzz(func(t *testing.T, head []byte, piece uint8) {
		_, rest, err := readHead(bytes.NewReader(head), 5)
		_, rest2, err2 := readHead(&pieces{head, int(piece)%16 + 1}, 5)
		if (err == nil) != (err2 == nil) || err == nil && rest != rest2 {
			t.Errorf("whole: %v with %q left; in pieces of %d: %v with %q left", err, rest, piece, err2, rest2)
		}
		s := newScan(1 << 20)
		consumed := 0
		trimmed := bytes.TrimLeft(head, "\r\n")
		for !s.over && s.fault == nil && consumed < len(trimmed) {
			s.scan(trimmed[consumed : consumed+1])
			consumed++
		}
		br := bufio.NewReader(bytes.NewReader(trimmed))
		if _, err := http.ReadRequest(br); err != nil || s.fault != nil {
			return
		}
		left, _ := io.ReadAll(br)
		if got := len(trimmed) - len(left); !s.over || got != consumed {
			t.Errorf("%q: the scan ends after %d bytes (over: %v), and the parser after %d", trimmed, consumed, s.over, got)
		}
	})
}

// pieces reads b in pieces of n bytes.
type pieces struct {
	b []byte
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b[:min(p.n, len(p.b))])
	p.b = p.b[n:]
	return n, nil
}

func BenchmarkReadRequest(b *testing.B) {
	for _, fields := range []int{4, 40} {
		head := "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-Field: with a value of some length\r\n", fields) + "\r\n"
		b.Run(fmt.Sprintf("fields=%d", fields), func(b *testing.B) {
			b.ReportAllocs()
			h := &HeadReader{}
			br := bufio.NewReader(h)
			for b.Loop() {
				h.R = strings.NewReader(head)
				h.Begin(64 << 10)
				if _, err := h.ReadRequest(br, 256); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
