package httpproxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/net/http/httpguts"
)

// writeField writes a line for each value, without the white space around it,
// which is none of it (RFC 9110 section 5.5); an empty continuation line leaves
// some behind.
func writeField(w *bufio.Writer, key string, values []string) {
	for _, v := range values {
		w.WriteString(key)
		w.WriteString(": ")
		w.WriteString(textproto.TrimString(v))
		w.WriteString("\r\n")
	}
}

// writeTrailerField announces trailers.
func writeTrailerField(w *bufio.Writer, trailer http.Header) {
	if len(trailer) == 0 {
		return
	}
	names := make([]string, 0, len(trailer))
	for k := range trailer {
		if mayTrail(k) {
			names = append(names, k)
		}
	}
	writeField(w, "Trailer", []string{strings.Join(names, ", ")})
}

func writeTrailers(w *bufio.Writer, trailer http.Header) {
	for k, vs := range trailer {
		if mayTrail(k) {
			writeField(w, k, vs)
		}
	}
}

// mayTrail reports whether a trailer field is passed on: no framing, no
// routing (RFC 9110 section 6.5.1), and no names that net/http alone takes.
func mayTrail(name string) bool { return !hopByHop[name] && httpguts.ValidHeaderFieldName(name) }

// via adds us to the proxies that a message has passed (RFC 9110 section
// 7.6.3).
func via(before []string, major, minor int, name string) string {
	v := strconv.Itoa(major) + "." + strconv.Itoa(minor) + " " + name
	if len(before) > 0 {
		v = strings.Join(before, ", ") + ", " + v
	}
	return v
}

func headerHasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// readError and writeError tell the two ends of a copy apart.
type readError struct{ error }
type writeError struct{ error }

func (e *readError) Unwrap() error  { return e.error }
func (e *writeError) Unwrap() error { return e.error }

// gone reports an error that says of the client's connection that it is no more.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, net.ErrClosed)
}

// flush sends the client what is written for it.
func (s *session) flush() error {
	if err := s.bw.Flush(); err != nil {
		return &writeError{err}
	}
	return nil
}

var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copyFlushing copies src to dst, which writes through w, and flushes w
// whenever source has nothing more at hand: a stream is passed on as it comes.
// It calls before, if there is one, before each read.
func copyFlushing(dst io.Writer, w *bufio.Writer, src io.Reader, source *bufio.Reader, before func()) (int64, error) {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	var total int64
	for {
		if before != nil {
			before()
		}
		n, rerr := src.Read(buf[:])
		if n > 0 {
			m, werr := dst.Write(buf[:n])
			total += int64(m)
			if werr == nil && source.Buffered() == 0 && rerr == nil {
				werr = w.Flush()
			}
			if werr != nil {
				return total, &writeError{werr}
			}
		}
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, &readError{rerr}
		}
	}
}
