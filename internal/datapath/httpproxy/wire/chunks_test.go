package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// streamed is a body in chunks: framing and data in turn, beginning with framing.
var streamed = []string{"5\r\n", "hello", "\r\n00a;ext=\"; x\"\r\n", ", \r\nworld!", "\r\n1 \r\n", "!", "\r\n0\r\n\r\n"}

// dataOf returns the data in the first n bytes of streamed.
func dataOf(n int) string {
	data := ""
	for i, s := range streamed {
		s = s[:min(n, len(s))]
		n -= len(s)
		if i%2 == 1 {
			data += s
		}
	}
	return data
}

// TestBodyPassesOnWhatHasCome checks for each place where a body in chunks can be cut,
// and for a body that comes byte by byte, that all data so far is written before the
// connection is read again.
func TestBodyPassesOnWhatHasCome(t *testing.T) {
	raw := strings.Join(streamed, "")
	for _, chunked := range []bool{false, true} {
		for cut := range len(raw) + 1 {
			size := []int{cut, len(raw) - cut}
			if cut == 0 { // byte by byte
				size = slices.Repeat([]int{1}, len(raw))
			}
			var sent bytes.Buffer
			w := bufio.NewWriter(&sent)
			read := 0
			source := &HeadReader{}
			source.R = readerFunc(func(b []byte) (int, error) {
				if got, want := unchunk(t, sent.String(), chunked), dataOf(read); got != want {
					t.Fatalf("cut at %d: %q is written when %d bytes have come, want %q", cut, got, read, want)
				}
				if len(size) == 0 {
					return 0, io.EOF
				}
				n := copy(b, raw[read:read+size[0]])
				size = size[1:]
				read += n
				return n, nil
			})
			br := bufio.NewReader(source)
			body := Body{
				Reader:  &Chunks{R: br},
				Source:  source,
				Chunked: chunked,
			}
			n, err := body.CopyTo(w)
			if want := dataOf(len(raw)); err != nil || int(n) != len(want) || unchunk(t, strings.TrimSuffix(sent.String(), "0\r\n\r\n"), chunked) != want {
				t.Fatalf("cut at %d: CopyTo = %d, %v with %q written; want the data %q", cut, n, err, sent.String(), want)
			}
		}
	}
}

// readerFunc is a reader that calls a function.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// unchunk returns the data of whole chunks, or written itself if it is not chunked.
func unchunk(t *testing.T, written string, chunked bool) string {
	t.Helper()
	if !chunked {
		return written
	}
	data, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(written + "0\r\n\r\n")))
	if err != nil {
		t.Fatalf("%q is written, which does not end with a chunk: %v", written, err)
	}
	return string(data)
}

// TestChunks checks bodies that are rejected, and what is left behind those that are not.
func TestChunks(t *testing.T) {
	long := strings.Repeat("x", 4096)
	for _, c := range []struct {
		name, raw string
		data      string
		rest      string // what is not read
		bad       bool
	}{
		{"empty", "0\r\n\r\nrest", "", "rest", false},
		{"one_chunk", "2\r\nok\r\n0\r\n\r\nrest", "ok", "rest", false},
		{"trailer", "2\r\nok\r\n0\r\nX-A: 1\r\n\r\nrest", "ok", "rest", false},
		{"largest_size", "0000000000000002\r\nok\r\n0\r\n\r\n", "ok", "", false},
		{"size_too_long", "00000000000000002\r\nok\r\n0\r\n\r\n", "", "", true},
		{"size_not_hexadecimal", "2g\r\nok\r\n0\r\n\r\n", "", "", true},
		{"size_with_sign", "+2\r\nok\r\n0\r\n\r\n", "", "", true},
		{"size_with_prefix", "0x2\r\nok\r\n0\r\n\r\n", "", "", true},
		{"size_with_underscore", "0_2\r\nok\r\n0\r\n\r\n", "", "", true},
		{"no_size", "\r\nok\r\n0\r\n\r\n", "", "", true},
		{"space_before_size", " 2\r\nok\r\n0\r\n\r\n", "", "", true},
		{"space_before_extension", "2 ;a\r\nok\r\n0\r\n\r\n", "", "", true},
		{"bare_lf_after_size", "2\nok\r\n0\r\n\r\n", "", "", true},
		{"cr_in_extension", "2;a\rb\r\nok\r\n0\r\n\r\n", "", "", true},
		{"bare_lf_after_chunk", "2\r\nok\n0\r\n\r\n", "ok", "", true},
		{"chunk_too_long", "2\r\nokk\r\n0\r\n\r\n", "ok", "", true},
		{"no_end", "2\r\nok\r\n", "ok", "", true},
		{"no_end_of_trailer", "2\r\nok\r\n0\r\nX-A: 1\r\n", "ok", "", true},
		{"cut_in_a_chunk", "3\r\nok", "ok", "", true},
		{"cut_behind_a_chunk", "2\r\nok\r", "ok", "", true},
		{"long_extension", "2;" + long + "\r\nok\r\n0\r\n\r\n", "", "", true},
		{"many_extensions", strings.Repeat("1;"+long[:2048]+"\r\nx\r\n", 10) + "0\r\n\r\n", long[:8], "", true},
		{"one_byte_a_chunk", strings.Repeat("1\r\nx\r\n", 4096) + "0\r\n\r\n", long, "", false},
		{"long_trailer", "0\r\nX-A: " + long + "\r\n\r\n", "", "", true},
		{"space_in_name_of_trailer", "0\r\nX A: 1\r\n\r\n", "", "", false},
		{"no_colon_in_trailer", "0\r\nX-A\r\n\r\n", "", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for how, r := range map[string]io.Reader{
				"whole":        strings.NewReader(c.raw),
				"byte_by_byte": iotest.OneByteReader(strings.NewReader(c.raw)),
			} {
				br := bufio.NewReader(r)
				data, err := io.ReadAll(&Chunks{R: br})
				if string(data) != c.data || (err != nil) != c.bad {
					t.Errorf("%s: %d bytes %.20q, error %v; want %d bytes %.20q and an error: %v", how, len(data), data, err, len(c.data), c.data, c.bad)
				}
				if rest, _ := io.ReadAll(br); err == nil && string(rest) != c.rest {
					t.Errorf("%s: %q is left, want %q", how, rest, c.rest)
				}
			}
		})
	}
}

// TestChunksKeepErrors checks that an error of the connection is the error of the body,
// and stays.
func TestChunksKeepErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, raw := range []string{"", "2", "2\r\n", "2\r\no", "2\r\nok\r", "0\r\n", "0\r\nX-A: 1\r\n"} {
		c := &Chunks{R: bufio.NewReader(io.MultiReader(strings.NewReader(raw), iotest.ErrReader(broken)))}
		for range 2 {
			if _, err := io.ReadAll(c); err != broken {
				t.Errorf("%q: error %v, want %v", raw, err, broken)
			}
		}
	}
}

// FuzzChunks compares Chunks with net/http, for bodies that come whole and in pieces.
func FuzzChunks(f *testing.F) {
	f.Add([]byte(strings.Join(streamed, "")), uint8(1))
	f.Add([]byte("2\r\nok\r\n0\r\nX-A: 1\r\nx-a: 2\r\n b\r\n\r\nGET / HTTP/1.1\r\n\r\n"), uint8(3))
	f.Add([]byte("0\r\nX-A: 1\n\n\r\n\r\n"), uint8(200))
	f.Add([]byte("FFFFFFFFFFFFFFFF\r\nok"), uint8(5))
	f.Add([]byte("1;"+strings.Repeat("x", 300)+"\r\nx\r\n0\r\n\r\n"), uint8(255))
	f.Fuzz(func(t *testing.T, raw []byte, piece uint8) {
		const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
		theirs := bufio.NewReader(io.MultiReader(strings.NewReader(head), bytes.NewReader(raw)))
		resp, err := http.ReadResponse(theirs, nil)
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := io.ReadAll(resp.Body)
		ours := bufio.NewReader(&pieces{raw, int(piece) + 1})
		c := &Chunks{R: ours}
		got, err := io.ReadAll(c)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: error %v, want %v", raw, err, wantErr)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(got, want) || !maps.EqualFunc(c.Trailer, resp.Trailer, slices.Equal) {
			t.Errorf("%q: body %q with trailer %q, want %q with %q", raw, got, c.Trailer, want, resp.Trailer)
		}
		rest, _ := io.ReadAll(ours)
		if wantRest, _ := io.ReadAll(theirs); !bytes.Equal(rest, wantRest) {
			t.Errorf("%q: %q is left, want %q", raw, rest, wantRest)
		}
	})
}
