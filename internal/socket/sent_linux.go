package socket

import "golang.org/x/sys/unix"

// sentAll reports whether the peer of the socket fd has ended its stream. Bytes may
// still wait to be read.
func sentAll(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}
