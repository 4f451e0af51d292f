//go:build unix

package socket

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Peek waits for what c's peer sends, and copies it to b without reading it: the
// next read returns it again. enough gets what is there, at least one byte, and
// reports whether Peek may return; nil means that one byte is enough. A full b is
// always enough. n counts the bytes in b. When the peer ends its stream first, or the
// read deadline of c passes, the error is io.EOF or os.ErrDeadlineExceeded, and n is
// what is there. Only Linux notices an end of stream behind the first byte.
func Peek(c *net.TCPConn, b []byte, enough func([]byte) bool) (n int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var perr error
	ended := false
	err = rc.Read(func(fd uintptr) bool {
		for {
			n, _, perr = unix.Recvfrom(int(fd), b, unix.MSG_PEEK)
			switch {
			case perr == unix.EINTR:
				continue
			case perr == unix.EAGAIN:
				return false
			case perr != nil, n == 0, n == len(b), enough == nil, enough(b[:n]), ended:
				return true
			}
			ended = sentAll(int(fd))
			if !ended {
				return false
			}
			// Once more: bytes may have come before the end.
		}
	})
	n = max(n, 0)
	switch {
	case err != nil:
		return n, err
	case perr != nil:
		return 0, os.NewSyscallError("recvfrom", perr)
	case n == 0, ended && n < len(b) && enough != nil && !enough(b[:n]):
		return n, io.EOF
	}
	return n, nil
}
