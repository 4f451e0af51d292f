package socket

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// tcpClose is TCP_CLOSE of linux/tcp_states.h.
const tcpClose = 7

// Lost reports whether c's stream has ended because the connection is lost, although
// a Read has said that it ended well. The kernel gives the error of a lost connection
// to the first call that asks, and tells the others that the stream has ended. Lost is
// also true once both ends have closed their streams. It returns false where that is
// not known, and for the userspace network stack, which says it to each Read.
func Lost(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	lost := false
	rc.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		lost = err == nil && info.State == tcpClose
	})
	return lost
}
