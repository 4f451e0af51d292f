package relay

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// bufferSize is the size of the buffer of a direction in which data moves. A
// direction that waits for data holds no buffer.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// readWaiter is a connection that can wait for data without a buffer.
type readWaiter interface{ AwaitReadable() }

// pump copies src to dst until src ends. It returns nil after a clean end.
func pump(dst io.Writer, src net.Conn, count *atomic.Int64) error {
	switch s := src.(type) {
	case syscall.Conn: // a kernel socket
		if rc, err := s.SyscallConn(); err == nil {
			return pumpRaw(dst, rc, count)
		}
	case readWaiter: // a connection of the userspace network stack
		return pumpWait(dst, src, s, count)
	}
	return pumpPlain(dst, src, count)
}

// pumpWait copies from the userspace network stack. It takes a buffer when data
// is there, and gives it back before it waits for more.
func pumpWait(dst io.Writer, src io.Reader, w readWaiter, count *atomic.Int64) error {
	for {
		w.AwaitReadable()
		buf := buffers.Get().(*[bufferSize]byte)
		err := copyOnce(dst, src, buf[:], count)
		buffers.Put(buf)
		if err != nil {
			return unlessEnd(err)
		}
	}
}

// pumpPlain copies from a connection of any other kind.
func pumpPlain(dst io.Writer, src io.Reader, count *atomic.Int64) error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		if err := copyOnce(dst, src, buf[:], count); err != nil {
			return unlessEnd(err)
		}
	}
}

// copyOnce reads src once and writes what it got to dst.
func copyOnce(dst io.Writer, src io.Reader, buf []byte, count *atomic.Int64) error {
	n, err := src.Read(buf)
	if n == 0 {
		return err
	}
	werr := writeCounted(dst, buf[:n], count)
	if err != nil {
		return err
	}
	return werr
}

// writeCounted writes b to dst and counts it. It counts before it writes, so
// that whoever has received the bytes finds them counted.
func writeCounted(dst io.Writer, b []byte, count *atomic.Int64) error {
	count.Add(int64(len(b)))
	n, err := dst.Write(b)
	count.Add(int64(n - len(b)))
	return asWriteError(err)
}

// unlessEnd returns nil if err is the clean end of a stream, and err otherwise.
func unlessEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// writeError is an error of the connection that is written to.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

func asWriteError(err error) error {
	if err == nil {
		return nil
	}
	return &writeError{err}
}
