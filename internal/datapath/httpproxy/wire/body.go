package wire

import (
	"bufio"
	"io"
	"net"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
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
	// Reader reads the body without its framing. In the end it reads Source, the
	// connection.
	Reader io.Reader
	Source *HeadReader
	// Chunked writes the body in chunks (RFC 9112 section 7.1). If Reader is a *Chunks,
	// its trailer fields follow.
	Chunked bool
	// BeforeRead is called before each read of the connection. Nil means nothing to
	// call.
	BeforeRead func()
	// BeforeEnd is called when the body has been read whole, before its last bytes
	// are written. Nil means nothing to call.
	BeforeEnd func()
	// Pace takes n bytes of the rate of one direction, up if Up is set, and returns how
	// long they must wait. Stop ends the copy while it waits. Nil means that no bytes wait.
	Pace func(up bool, n int) (wait time.Duration)
	Up   bool
	Stop <-chan struct{}

	// DroppedTrailers is the number of trailer fields that CopyTo did not pass on.
	DroppedTrailers int

	w       *bufio.Writer
	flushed error // of a flush before a read
}

// CopyTo writes the body to w, flushes w, and returns the number of bytes
// without framing. It also flushes w before each read of the connection that may wait:
// so what w holds, be it only the head of the message, is passed on as it comes. The
// error is a *ReadError or a *WriteError.
func (b *Body) CopyTo(w *bufio.Writer) (int64, error) {
	b.w = w
	b.Source.body = b
	defer func() { b.Source.body = nil }()
	n, err := b.copy()
	if err != nil {
		return n, err
	}
	if b.Chunked {
		w.WriteString("0\r\n") // w keeps an error until Flush
		if c, ok := b.Reader.(*Chunks); ok {
			b.DroppedTrailers = writeTrailer(w, c)
		}
		w.WriteString("\r\n")
	}
	return n, Flush(w)
}

// copy copies the body, without what ends it.
func (b *Body) copy() (int64, error) {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var total int64
	for {
		n, rerr := b.Reader.Read(buf[:])
		if rerr == io.EOF && b.BeforeEnd != nil {
			b.BeforeEnd()
		}
		if n > 0 {
			m, err := b.write(buf[:n])
			total += int64(m)
			if err != nil {
				return total, &WriteError{err}
			}
		}
		switch {
		case rerr == io.EOF:
			return total, nil
		case b.flushed != nil: // whatever the reader has made of it
			return total, &WriteError{b.flushed}
		case rerr != nil:
			if total > 0 {
				b.w.Flush() // what has come of the body is passed on
			}
			return total, &ReadError{rerr}
		}
	}
}

// beforeRead sends what waits to be written before the connection is read. If the read
// returns at once, what waits leaves together with what comes.
func (b *Body) beforeRead() error {
	if b.BeforeRead != nil {
		b.BeforeRead()
	}
	if b.w.Buffered() > 0 && (b.Source.Readable == nil || !b.Source.Readable()) {
		b.flushed = b.w.Flush()
	}
	return b.flushed
}

// write writes p when its bytes may move.
func (b *Body) write(p []byte) (int, error) {
	if err := b.pace(len(p)); err != nil {
		return 0, err
	}
	if b.Chunked {
		return writeChunk(b.w, p)
	}
	return b.w.Write(p)
}

// pace waits until n bytes may move. What was written before does not wait for them.
func (b *Body) pace(n int) error {
	if b.Pace == nil {
		return nil
	}
	wait := b.Pace(b.Up, n)
	if wait <= 0 {
		return nil
	}
	if err := b.w.Flush(); err != nil {
		return err
	}
	if !flow.Sleep(b.Stop, wait) {
		return net.ErrClosed
	}
	return nil
}

// ReadAhead returns a copy of what r has read ahead.
func ReadAhead(r *bufio.Reader) []byte {
	if r.Buffered() == 0 {
		return nil
	}
	b, _ := r.Peek(r.Buffered())
	return append([]byte(nil), b...)
}
