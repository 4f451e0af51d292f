package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"

	"golang.org/x/net/http/httpguts"
)

// chargeStep is in which steps a HeadReader charges the bytes of a head.
const chargeStep = 4 << 10

// HeadReader reads R and bounds the size of heads. Bodies are not bounded. The
// zero value with R set is ready.
type HeadReader struct {
	R io.Reader
	// Err is the error of the last read. net/http's line parser takes what it
	// has for a line when a read fails, and does not report the error.
	Err error
	// Readable reports that a read of R would return at once. Nil means that this is
	// not known.
	Readable func() bool
	// Charge is called before the reader holds n bytes more of a head. The first
	// chargeStep bytes are free. An error ends the head. Nil means that heads cost
	// nothing.
	Charge func(n int) error
	// Refused is the error of Charge that ended the head; nil without one.
	Refused error
	// Order has the fields of the last request that ReadRequest has read.
	Order Order

	bounded bool
	max     int   // since Begin
	left    int   // bytes that may still be read while bounded
	charged int   // bytes since Begin that are paid for
	body    *Body // the copy that reads R; nil without one
	scans   bool
	scan    headScan // looks at what is read while scans is set
}

// Begin starts a head, or several heads that share one bound of max bytes.
func (h *HeadReader) Begin(max int) {
	h.bounded = true
	h.max = max
	h.left = max
	h.charged = chargeStep
	h.Refused = nil
}

// End ends the bound: a body follows.
func (h *HeadReader) End() { h.bounded = false }

// Started reports whether a byte has come since Begin.
func (h *HeadReader) Started() bool { return h.left < h.max }

// Exceeded reports whether the bound is used up.
func (h *HeadReader) Exceeded() bool { return h.bounded && h.left <= 0 }

// Read reads from R. It returns io.EOF when the bound is used up.
func (h *HeadReader) Read(b []byte) (int, error) {
	if h.body != nil {
		if err := h.body.beforeRead(); err != nil {
			return 0, err
		}
	}
	if h.bounded {
		if h.left <= 0 {
			return 0, io.EOF
		}
		if err := h.pay(); err != nil {
			return 0, err
		}
		b = b[:min(len(b), h.left)]
	}
	n, err := h.R.Read(b)
	h.Err = err
	if h.bounded {
		h.left -= n
	}
	if h.scans {
		h.scan.scan(b[:n])
		if h.scan.fault != nil {
			err = h.scan.fault // the rest of the head is not worth reading
		}
	}
	return n, err
}

// pay charges the next step of a head when the ones before are used up.
func (h *HeadReader) pay() error {
	if h.Charge == nil || h.max-h.left < h.charged {
		return nil
	}
	if err := h.Charge(chargeStep); err != nil {
		h.Refused = err
		return err
	}
	h.charged += chargeStep
	return nil
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
	h.beginScan(br, newScan(maxFields))
	if h.scan.fault != nil {
		return nil, h.scan.fault
	}
	req, err := http.ReadRequest(br)
	h.scans = false
	h.Order = h.scan.order()
	switch {
	case h.Refused != nil:
		return nil, h.Refused
	case h.scan.fault != nil: // the parser may have made another error of it
		return nil, h.scan.fault
	case err != nil:
		return nil, err
	}
	return req, h.scan.check(req)
}

// ReadResponse reads the head of a response to req from br, which reads h. It does not
// check it. The error is that of the parser or the connection.
func (h *HeadReader) ReadResponse(br *bufio.Reader, req *http.Request) (*Response, error) {
	scan := newScan(math.MaxInt)
	scan.lenient = true
	h.beginScan(br, scan)
	resp, err := http.ReadResponse(br, req)
	h.scans = false
	if err != nil {
		return nil, err
	}
	return &Response{
		Response:  resp,
		Order:     h.scan.order(),
		Ambiguous: h.scan.encoding && (h.scan.length || resp.ProtoMinor == 0),
	}, nil
}

// beginScan scans what br holds, and has what h reads from now on scanned.
func (h *HeadReader) beginScan(br *bufio.Reader, scan headScan) {
	ahead, _ := br.Peek(br.Buffered())
	h.scan = scan
	h.scan.scan(ahead)
	h.scans = h.scan.fault == nil
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
