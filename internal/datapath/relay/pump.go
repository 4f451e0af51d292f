package relay

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// bufferSize is what a moving direction holds. An idle one holds none.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// readWaiter is a connection that can wait for data without a buffer.
type readWaiter interface{ AwaitReadable() }

// pump copies src to dst until src's end; nil means a clean one.
func pump(dst, src net.Conn, count *atomic.Int64) error {
	switch s := src.(type) {
	case syscall.Conn:
		if rc, err := s.SyscallConn(); err == nil {
			return pumpRaw(dst, rc, count)
		}
	case readWaiter:
		return pumpWait(dst, src, s, count)
	}
	return pumpPlain(dst, src, count)
}

// pumpWait copies from the userspace stack. A buffer is taken when data is
// there, and given back before the next wait.
func pumpWait(dst io.Writer, src io.Reader, w readWaiter, count *atomic.Int64) error {
	for {
		w.AwaitReadable()
		buf := buffers.Get().(*[bufferSize]byte)
		n, err := src.Read(buf[:])
		if n > 0 {
			werr := forward(dst, buf[:n], count)
			if err == nil {
				err = werr
			}
		}
		buffers.Put(buf)
		if err != nil {
			if isEnd(err) {
				return nil
			}
			return err
		}
	}
}

// pumpPlain copies from a connection of unknown kind.
func pumpPlain(dst io.Writer, src io.Reader, count *atomic.Int64) error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			werr := forward(dst, buf[:n], count)
			if err == nil {
				err = werr
			}
		}
		if err != nil {
			if isEnd(err) {
				return nil
			}
			return err
		}
	}
}

// forward writes b to dst and counts it, before the write: whoever has seen
// the bytes finds them counted.
func forward(dst io.Writer, b []byte, count *atomic.Int64) error {
	count.Add(int64(len(b)))
	n, err := dst.Write(b)
	count.Add(int64(n - len(b)))
	return asWriteError(err)
}
