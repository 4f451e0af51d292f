//go:build unix

package socket

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ListenConfig returns the settings of a listener. With reusePort several
// processes share its port (SO_REUSEPORT), if all of them ask for it. Clients
// that do not respond for peerTimeout are disconnected, see KeepAlive and
// UserTimeout; zero leaves that to the kernel.
func ListenConfig(reusePort bool, peerTimeout time.Duration) net.ListenConfig {
	userTimeout := UserTimeout(peerTimeout)
	lc := net.ListenConfig{
		KeepAliveConfig: KeepAlive(peerTimeout),
		Control: func(network, address string, c syscall.RawConn) error {
			var err error
			if reusePort {
				err = setReusePort(c)
			}
			if strings.HasPrefix(network, "udp") { // the options below are those of TCP
				return err
			}
			return errors.Join(err, userTimeout(network, address, c), BoundUnsent(c))
		},
	}
	// Connections do not inherit BoundUnsent from a listener of MPTCP, which is
	// package net's default, and no client here uses it.
	lc.SetMultipathTCP(false)
	return lc
}

func setReusePort(c syscall.RawConn) error {
	var serr error
	err := c.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(err, serr)
}
