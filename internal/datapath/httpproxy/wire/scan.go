package wire

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
)

// TooManyFields is the error for a request with more header fields than that
// number, which is the bound.
type TooManyFields int

func (n TooManyFields) Error() string { return "more than " + strconv.Itoa(int(n)) + " header fields" }

// FramingError is the error for a request whose end or whose target is not
// clear. Its text is for the client.
type FramingError string

func (e FramingError) Error() string { return string(e) }

// headScan looks at the bytes of one head as they pass, in any pieces, for what
// net/http's parser does not report. It holds the names of the fields, and nothing
// else of the head, so that an unfinished head is not in memory twice. Lines end as
// that parser ends them: with LF, and a CR before it does not count. What follows the
// empty line is not the head's, and is ignored.
type headScan struct {
	maxFields int
	lenient   bool  // there are no faults: the head is one of a response
	fields    int   // field lines so far, folded ones included
	fault     error // what is wrong with the head; nil so far
	over      bool  // the empty line has come

	host     bool
	length   bool
	encoding bool

	names strings.Builder // of the fields so far, as in Order

	// The line in progress.
	begin     int  // where its name begins in names
	firstLine bool // it is the request line or the status line
	size      int  // its bytes so far, without LF
	passed    bool // its name is known, or it has none
	keeps     bool // its value is kept, too
	last      byte // the last byte that came before the colon
}

// usualNames is more than the names of a usual head need, in bytes.
const usualNames = 256

// newScan returns a scan of a head that may have maxFields fields.
func newScan(maxFields int) headScan {
	return headScan{
		maxFields: maxFields,
		firstLine: true,
		passed:    true,
	}
}

// order returns the names of the fields of a head that is over.
func (s *headScan) order() Order { return Order(s.names.String()[:s.begin]) }

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
	if !s.passed {
		name, value, colon := bytes.Cut(p, []byte(":"))
		if len(name) > 0 {
			s.last = name[len(name)-1]
			if s.names.Cap() == 0 {
				s.names.Grow(usualNames)
			}
			s.names.Write(name)
		}
		if !colon {
			return
		}
		s.passed = true
		s.field()
		p = value
	}
	if s.keeps {
		s.names.Write(p)
	}
}

// field looks at the name of a field.
func (s *headScan) field() {
	name := s.names.String()[s.begin:]
	if name != "" && (s.last == ' ' || s.last == '\t') && !s.lenient {
		s.fault = FramingError("write the colon right after the field's name, without a space (RFC 9112 section 5.1)")
		return
	}
	switch len(name) {
	case len("host"):
		s.host = s.host || strings.EqualFold(name, "host")
	case len("trailer"):
		s.keeps = strings.EqualFold(name, "trailer")
	case len("content-length"):
		s.length = s.length || strings.EqualFold(name, "content-length")
	case len("transfer-encoding"):
		s.encoding = s.encoding || strings.EqualFold(name, "transfer-encoding")
	}
	if s.keeps {
		s.names.WriteByte(':')
	}
}

// endLine ends a line.
func (s *headScan) endLine() {
	empty := s.size == 0 || s.size == 1 && !s.passed && s.last == '\r'
	switch {
	case s.firstLine:
		s.firstLine = false
	case empty:
		s.over = true
	default:
		s.endField()
	}
	s.size = 0
	s.passed = false
	s.keeps = false
	s.last = 0
}

// endField ends a line of a field.
func (s *headScan) endField() {
	s.fields++
	if s.fields > s.maxFields {
		s.fault = TooManyFields(s.maxFields)
	}
	if s.names.Len() > s.begin { // it has a name, and does not continue the line before
		s.names.WriteByte('\n')
		s.begin = s.names.Len()
	}
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
