//go:build unix

package relay

import (
	"io"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// pumpRaw copies from a kernel socket. The runtime's poller waits for data, so
// that a direction that waits holds no buffer. The loop allocates nothing: the
// closure and what it sets are made once.
func pumpRaw(dst io.Writer, src syscall.RawConn, count *atomic.Int64) error {
	var buf *[bufferSize]byte // nil while the direction waits
	defer func() {
		if buf != nil {
			buffers.Put(buf)
		}
	}()
	var n int
	var rerr error
	read := func(fd uintptr) (done bool) {
		if buf == nil {
			buf = buffers.Get().(*[bufferSize]byte)
		}
		for {
			n, rerr = unix.Read(int(fd), buf[:])
			if rerr != unix.EINTR {
				break
			}
		}
		if rerr == unix.EAGAIN {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	}
	for {
		err := src.Read(read)
		switch {
		case err != nil:
			return err
		case rerr != nil:
			return os.NewSyscallError("read", rerr)
		case n == 0: // the end of the stream
			return nil
		}
		if err := writeCounted(dst, buf[:n], count); err != nil {
			return err
		}
	}
}
