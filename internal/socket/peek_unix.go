//go:build unix

package socket

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Peek waits for the first byte that c's peer sends, and returns it without
// reading it: the next read returns it again. The error is io.EOF when the peer
// ends its stream first. The read deadline of c applies.
func Peek(c *net.TCPConn) (byte, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var b [1]byte
	var n int
	var perr error
	err = rc.Read(func(fd uintptr) bool {
		for {
			n, _, perr = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK)
			if perr != unix.EINTR {
				return perr != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case perr != nil:
		return 0, os.NewSyscallError("recvfrom", perr)
	case n == 0:
		return 0, io.EOF
	}
	return b[0], nil
}
