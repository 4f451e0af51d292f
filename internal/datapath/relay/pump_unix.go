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
// a direction that waits holds no buffer.
func pumpRaw(dst io.Writer, src syscall.RawConn, count *atomic.Int64) error {
	var buf *[bufferSize]byte
	defer func() {
		if buf != nil {
			buffers.Put(buf)
		}
	}()
	for {
		var n int
		var rerr error
		err := src.Read(func(fd uintptr) bool {
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
		})
		switch {
		case err != nil:
			return err
		case rerr != nil:
			return os.NewSyscallError("read", rerr)
		case n == 0:
			return nil
		}
		if err := forward(dst, buf[:n], count); err != nil {
			return err
		}
	}
}
