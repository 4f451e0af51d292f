package wire

import (
	"bytes"
	"net/http"
	"strconv"
)

// TooManyFields is the error for a request with more header fields than that
// number, which is the bound.
type TooManyFields int

func (n TooManyFields) Error() string { return "more than " + strconv.Itoa(int(n)) + " header fields" }

// FramingError is the error for a request whose end or whose target is not
// clear. Its text is for the client.
type FramingError string

func (e FramingError) Error() string { return string(e) }

// headScan looks at the bytes of one request head as they pass, in any pieces,
// for what net/http's parser does not report. It holds no bytes of the head, so
// that an unfinished head is in memory once. Lines end as that parser ends them:
// with LF, and a CR before it does not count. What follows the empty line is
// not the head's, and is ignored.
type headScan struct {
	maxFields int
	fields    int   // field lines so far, folded ones included
	fault     error // what is wrong with the head; nil so far
	over      bool  // the empty line has come

	host     bool
	length   bool
	encoding bool

	// The line in progress.
	requestLine bool
	size        int                    // its bytes so far, without LF
	passed      bool                   // its name is known, or it has none
	last        byte                   // the last byte that came before the colon
	name        [len(longestName)]byte // its name so far, as far as it fits
	named       int                    // bytes of the name so far; more than fit if it is a longer one
}

const longestName = "transfer-encoding" // of those that headScan looks for

// begin starts a head that may have maxFields fields.
func (s *headScan) begin(maxFields int) {
	*s = headScan{maxFields: maxFields, requestLine: true, passed: true}
}

// scan looks at the next bytes. It looks at no more bytes once there is a fault.
func (s *headScan) scan(b []byte) {
	for len(b) > 0 && !s.over && s.fault == nil {
		line, rest, ended := bytes.Cut(b, []byte("\n"))
		s.part(line)
		if ended {
			s.endLine()
		}
		b = rest
	}
}

// part looks at a part of a line.
func (s *headScan) part(p []byte) {
	if len(p) == 0 {
		return
	}
	if s.size == 0 && (p[0] == ' ' || p[0] == '\t') { // the line before continues
		s.passed = true
	}
	s.size += len(p)
	if s.passed {
		return
	}
	name, _, colon := bytes.Cut(p, []byte(":"))
	if len(name) > 0 {
		s.last = name[len(name)-1]
		copy(s.name[min(s.named, len(s.name)):], name)
		s.named += len(name)
	}
	if colon {
		s.passed = true
		s.field()
	}
}

// field looks at the name of a field.
func (s *headScan) field() {
	if s.named > 0 && (s.last == ' ' || s.last == '\t') {
		s.fault = FramingError("write the colon right after the field's name, without a space (RFC 9112 section 5.1)")
		return
	}
	if s.named > len(s.name) {
		return
	}
	name := s.name[:s.named]
	s.host = s.host || bytes.EqualFold(name, []byte("host"))
	s.length = s.length || bytes.EqualFold(name, []byte("content-length"))
	s.encoding = s.encoding || bytes.EqualFold(name, []byte(longestName))
}

// endLine ends a line.
func (s *headScan) endLine() {
	empty := s.size == 0 || s.size == 1 && !s.passed && s.last == '\r'
	switch {
	case s.requestLine:
		s.requestLine = false
	case empty:
		s.over = true
	default:
		s.fields++
		if s.fields > s.maxFields {
			s.fault = TooManyFields(s.maxFields)
		}
	}
	s.size = 0
	s.passed = false
	s.last = 0
	s.named = 0
}

// check returns what is wrong with a head that net/http has read whole as req:
// what the next server may read differently (RFC 9112 sections 3.2, 5.1 and
// 6.1).
func (s *headScan) check(req *http.Request) error {
	switch {
	case s.fault != nil:
		return s.fault
	case !s.over:
		return FramingError("it is not clear where the request's head ends")
	case !s.host && req.ProtoAtLeast(1, 1) && req.Method != http.MethodConnect: // simple clients leave it out of CONNECT
		return FramingError("an HTTP/1.1 request needs a Host field")
	case s.encoding && s.length:
		return FramingError("a request has Content-Length or Transfer-Encoding, not both")
	case s.encoding && !req.ProtoAtLeast(1, 1):
		return FramingError("HTTP/1.0 has no Transfer-Encoding; send Content-Length, or use HTTP/1.1")
	}
	return nil
}
