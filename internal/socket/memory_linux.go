package socket

import (
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxUnsent is how many bytes a socket accepts ahead of what its connection can
// carry at the time. What is on its way to the peer does not count, so it does
// not slow a transfer down. A peer that stops reading costs no more than this,
// instead of the whole send buffer, which the kernel lets grow to 4 MiB.
const maxUnsent = 128 << 10

// BoundUnsent bounds the bytes that wait in c to be sent (TCP_NOTSENT_LOWAT).
// Accepted connections inherit the bound from their listener. It has an effect
// on Linux only.
func BoundUnsent(c syscall.RawConn) error {
	var serr error
	err := c.Control(func(fd uintptr) {
		serr = os.NewSyscallError("setsockopt TCP_NOTSENT_LOWAT", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent))
	})
	if err != nil {
		return err
	}
	return serr
}

// Shrink bounds what c receives ahead to about n bytes. What c has received
// already stays. It does nothing for a connection that has no such bound.
func Shrink(c net.Conn, n int) {
	switch c := c.(type) {
	case interface{ Shrink(int) }: // the userspace network stack
		c.Shrink(n)
	case syscall.Conn:
		rc, err := c.SyscallConn()
		if err != nil {
			return
		}
		rc.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, n/2) }) // the kernel doubles it
	}
}

// Progress returns a number that changes when c's peer acknowledges or sends
// bytes. It returns zero when that is not known.
func Progress(c *net.TCPConn) uint64 {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	var moved uint64
	rc.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			moved = info.Bytes_acked + info.Bytes_received
		}
	})
	return moved
}

// Fields of SO_MEMINFO, in linux/sock_diag.h.
const (
	memReceived = 0 // SK_MEMINFO_RMEM_ALLOC
	memReserved = 4 // SK_MEMINFO_FWD_ALLOC
	memQueued   = 5 // SK_MEMINFO_WMEM_QUEUED
	memFields   = 9
)

// Held returns the bytes of memory that c's network stack holds in c's buffers.
// It returns zero when that is not known.
func Held(c net.Conn) int {
	switch c := c.(type) {
	case interface{ Held() int }: // the userspace network stack
		return c.Held()
	case syscall.Conn:
		rc, err := c.SyscallConn()
		if err != nil {
			return 0
		}
		var info [memFields]uint32
		size := uint32(unsafe.Sizeof(info))
		var errno syscall.Errno
		err = rc.Control(func(fd uintptr) {
			_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
				uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		})
		if err != nil || errno != 0 {
			return 0
		}
		return int(info[memReceived] + info[memReserved] + info[memQueued])
	}
	return 0
}
