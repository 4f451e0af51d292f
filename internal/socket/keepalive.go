package socket

import (
	"net"
	"syscall"
	"time"
)

// keepAliveProbes is how many probes KeepAlive sends within the time that a
// silent peer has.
const keepAliveProbes = 3

// KeepAlive returns settings with which the kernel detects an idle peer that
// has vanished, after about d; without them such a connection stays open for
// ever. The kernel counts in seconds, so it rounds d up to a multiple of four
// seconds. Zero means the settings of package net.
func KeepAlive(d time.Duration) net.KeepAliveConfig {
	if d <= 0 {
		return net.KeepAliveConfig{Enable: true}
	}
	every := max(d/(keepAliveProbes+1), time.Second)
	return net.KeepAliveConfig{
		Enable:   true,
		Idle:     every,
		Interval: every,
		Count:    keepAliveProbes,
	}
}

// UserTimeout returns a Control function for net.Dialer and net.ListenConfig.
// It has the kernel end a connection whose peer has acknowledged nothing for d
// (TCP_USER_TIMEOUT, RFC 5482), or has left its receive window closed for d.
// Without it that takes about 16 minutes (tcp_retries2, RFC 1122 section
// 4.2.3.5). Accepted connections inherit the timeout from their listener. It
// has an effect on Linux only. Zero sets no timeout.
func UserTimeout(d time.Duration) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		if d <= 0 {
			return nil
		}
		var serr error
		err := c.Control(func(fd uintptr) { serr = setUserTimeout(fd, d) })
		if err != nil {
			return err
		}
		return serr
	}
}
