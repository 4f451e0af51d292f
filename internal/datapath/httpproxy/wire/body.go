package wire

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// ReadError is the error of a copy that could not read.
type ReadError struct{ Err error }

// WriteError is the error of a copy that could not write.
type WriteError struct{ Err error }

func (e *ReadError) Error() string  { return e.Err.Error() }
func (e *ReadError) Unwrap() error  { return e.Err }
func (e *WriteError) Error() string { return e.Err.Error() }
func (e *WriteError) Unwrap() error { return e.Err }

// Flush sends what is buffered in w. Its error is a *WriteError.
func Flush(w *bufio.Writer) error {
	if err := w.Flush(); err != nil {
		return &WriteError{err}
	}
	return nil
}

// Body is the body of a message that is passed on.
type Body struct {
	// Reader reads the body without its framing, from Source.
	Reader io.Reader
	Source *bufio.Reader
	// Chunked writes the body in chunks, with the trailer fields behind it (RFC
	// 9112 section 7.1). net/http fills Trailer in when Reader ends; nil means
	// no trailer fields.
	Chunked bool
	Trailer *http.Header
	// BeforeRead is called before each read. Nil means nothing to call.
	BeforeRead func()
}

// CopyTo writes the body to w, flushes w, and returns the number of bytes
// without framing. It also flushes w whenever Source holds nothing more, so
// that a stream is passed on as it comes. The error is a *ReadError or a
// *WriteError.
func (b *Body) CopyTo(w *bufio.Writer) (int64, error) {
	if !b.Chunked {
		n, err := b.copy(w, w)
		if err != nil {
			return n, err
		}
		return n, Flush(w)
	}
	chunks := httputil.NewChunkedWriter(w)
	n, err := b.copy(chunks, w)
	if err != nil {
		return n, err
	}
	chunks.Close() // w keeps an error until Flush
	if b.Trailer != nil {
		writeTrailer(w, *b.Trailer)
	}
	w.WriteString("\r\n")
	return n, Flush(w)
}

// copy copies the body to dst, which writes to w.
func (b *Body) copy(dst io.Writer, w *bufio.Writer) (int64, error) {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var total int64
	for {
		if b.BeforeRead != nil {
			b.BeforeRead()
		}
		n, rerr := b.Reader.Read(buf[:])
		if n > 0 {
			m, werr := dst.Write(buf[:n])
			total += int64(m)
			if werr == nil && b.Source.Buffered() == 0 && rerr == nil {
				werr = w.Flush()
			}
			if werr != nil {
				return total, &WriteError{werr}
			}
		}
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, &ReadError{rerr}
		}
	}
}

// writeTrailerField writes the Trailer field, which announces trailer fields.
func writeTrailerField(w *bufio.Writer, trailer http.Header) {
	if len(trailer) == 0 {
		return
	}
	names := make([]string, 0, len(trailer))
	for name := range trailer {
		if mayTrail(name) {
			names = append(names, name)
		}
	}
	WriteField(w, "Trailer", strings.Join(names, ", "))
}

func writeTrailer(w *bufio.Writer, trailer http.Header) {
	for name, values := range trailer {
		if mayTrail(name) {
			WriteField(w, name, values...)
		}
	}
}

// mayTrail reports whether a trailer field is passed on. Fields for framing and
// routing are not (RFC 9110 section 6.5.1), nor are names that only net/http
// accepts.
func mayTrail(name string) bool { return !hopByHop[name] && httpguts.ValidHeaderFieldName(name) }
