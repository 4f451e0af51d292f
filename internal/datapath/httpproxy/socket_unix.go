//go:build unix

package httpproxy

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// readable reports whether a read of c would not block.
func readable(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	would := false
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		_, _, perr := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		would = perr != unix.EAGAIN
	})
	return would || err != nil
}

// awaitHangUp returns nil when both directions of c have ended or c has
// failed, and an error when c's read deadline passes first.
func awaitHangUp(c *net.TCPConn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		return err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
}
