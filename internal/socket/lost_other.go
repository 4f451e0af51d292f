//go:build !linux

package socket

import "net"

// Lost returns false: it is known on Linux only.
func Lost(net.Conn) bool { return false }
