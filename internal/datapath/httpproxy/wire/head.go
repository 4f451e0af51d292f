package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// tapeSize is the largest buffer that a HeadReader keeps between requests.
const tapeSize = 4 << 10

// HeadReader reads R and bounds the size of heads. Bodies are not bounded. The
// zero value with R set is ready.
type HeadReader struct {
	R io.Reader
	// Err is the error of the last read. net/http's line parser takes what it
	// has for a line when a read fails, and does not report the error.
	Err error

	bounded bool
	max     int // since Begin
	left    int // bytes that may still be read while bounded
	record  bool
	tape    []byte // what was read while record was set
}

// Begin starts a head, or several heads that share one bound of max bytes.
func (h *HeadReader) Begin(max int) {
	h.bounded = true
	h.max = max
	h.left = max
}

// End ends the bound: a body follows.
func (h *HeadReader) End() { h.bounded = false }

// Started reports whether a byte has come since Begin.
func (h *HeadReader) Started() bool { return h.left < h.max }

// Exceeded reports whether the bound is used up.
func (h *HeadReader) Exceeded() bool { return h.bounded && h.left <= 0 }

// Read reads from R. It returns io.EOF when the bound is used up.
func (h *HeadReader) Read(b []byte) (int, error) {
	if h.bounded {
		if h.left <= 0 {
			return 0, io.EOF
		}
		b = b[:min(len(b), h.left)]
	}
	n, err := h.R.Read(b)
	h.Err = err
	if h.bounded {
		h.left -= n
	}
	if h.record {
		h.tape = append(h.tape, b[:n]...)
	}
	return n, err
}

// ReadRequest reads a request head from br, which reads h. It also rejects what
// net/http's parser silently repairs: the next server may read that
// differently. The error is a TooManyFields, a FramingError, or that of the
// parser or the connection.
func (h *HeadReader) ReadRequest(br *bufio.Reader, maxFields int) (*http.Request, error) {
	for range 4 { // empty lines before the request line, RFC 9112 section 2.2
		b, err := br.Peek(1)
		if err != nil {
			return nil, err
		}
		if b[0] != '\r' && b[0] != '\n' {
			break
		}
		br.Discard(1)
	}
	ahead, _ := br.Peek(br.Buffered())
	h.tape = append(h.tape[:0], ahead...)
	h.record = true
	req, err := http.ReadRequest(br)
	h.record = false
	if err == nil {
		err = checkHead(req, h.tape[:len(h.tape)-br.Buffered()], maxFields)
	}
	if cap(h.tape) > tapeSize {
		h.tape = nil
	}
	return req, err
}

// TooManyFields is the error for a request with that number of fields.
type TooManyFields int

func (n TooManyFields) Error() string { return strconv.Itoa(int(n)) + " header fields" }

// FramingError is the error for a request whose end or whose target is not
// clear. Its text is for the client.
type FramingError string

func (e FramingError) Error() string { return string(e) }

// checkHead checks a request's head as it came, for what the next server may
// read differently: RFC 9112 sections 3.2, 5.1 and 6.1.
func checkHead(req *http.Request, head []byte, maxFields int) error {
	n := bytes.Count(head, []byte("\n")) - 2 // without the request line and the empty line
	if n > maxFields {
		return TooManyFields(n)
	}
	var host, length, encoding bool
	for line := range bytes.Lines(head) {
		name, _, ok := bytes.Cut(line, []byte(":"))
		if ok && len(name) > 0 && (name[len(name)-1] == ' ' || name[len(name)-1] == '\t') {
			return FramingError("write the colon right after the field's name, without a space (RFC 9112 section 5.1)")
		}
		switch strings.ToLower(string(bytes.TrimSpace(name))) {
		case "host":
			host = true
		case "content-length":
			length = true
		case "transfer-encoding":
			encoding = true
		}
	}
	switch {
	case !host && req.ProtoAtLeast(1, 1) && req.Method != http.MethodConnect: // simple clients leave it out of CONNECT
		return FramingError("an HTTP/1.1 request needs a Host field")
	case encoding && length:
		return FramingError("a request has Content-Length or Transfer-Encoding, not both")
	case encoding && !req.ProtoAtLeast(1, 1):
		return FramingError("HTTP/1.0 has no Transfer-Encoding; send Content-Length, or use HTTP/1.1")
	}
	return nil
}

// ValidHead checks what net/http's own server demands of a request and its
// parser does not.
func ValidHead(req *http.Request) error {
	if req.ProtoMajor != 1 {
		return fmt.Errorf("version %s", req.Proto)
	}
	if !httpguts.ValidHostHeader(req.Host) {
		return errors.New("malformed Host")
	}
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("malformed field name %q", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("malformed value of field %q", name)
			}
		}
	}
	return nil
}
