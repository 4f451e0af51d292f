//go:build unix

package socket

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Readable reports whether a read of c returns at once: with bytes, with an
// end of stream or with an error. It reads nothing. It reports false for a
// connection that is neither a kernel socket nor of the userspace stack.
func Readable(c net.Conn) bool {
	if r, ok := c.(interface{ Readable() bool }); ok { // the userspace network stack
		return r.Readable()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	readable := false
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		_, _, perr := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		readable = perr != unix.EAGAIN
	})
	return readable || err != nil
}

// AwaitHangUp waits until c's peer has reset the connection, or until both
// directions have ended, and then returns nil. Unread bytes and an end of
// stream alone do not end the wait. The read deadline of c applies; when it
// passes, the error is os.ErrDeadlineExceeded. Nothing may read c meanwhile.
func AwaitHangUp(c *net.TCPConn) error {
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
