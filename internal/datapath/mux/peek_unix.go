//go:build unix

package mux

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peek returns the first byte that c's client sends and leaves it unread. The
// read deadline of c applies.
func peek(c *net.TCPConn) (byte, error) {
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
