//go:build !linux

package socket

import (
	"net"
	"syscall"
)

// BoundUnsent does nothing: the bound needs Linux.
func BoundUnsent(syscall.RawConn) error { return nil }

// Shrink shrinks connections of the userspace network stack alone.
func Shrink(c net.Conn, n int) {
	if s, ok := c.(interface{ Shrink(int) }); ok {
		s.Shrink(n)
	}
}

// Progress knows nothing.
func Progress(*net.TCPConn) uint64 { return 0 }

// Held knows connections of the userspace network stack alone.
func Held(c net.Conn) int {
	if h, ok := c.(interface{ Held() int }); ok {
		return h.Held()
	}
	return 0
}
