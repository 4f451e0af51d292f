// Package keepalive has the kernel find out peers that are gone. Without it a
// connection whose other end vanished lives for ever when it is idle, and for
// 16 minutes when it is not (tcp_retries2, RFC 1122 section 4.2.3.5).
package keepalive

import (
	"net"
	"syscall"
	"time"
)

// probes are sent within the time that a silent peer has.
const probes = 3

// Config returns keep-alive settings that find an idle peer gone after about
// d; zero means the settings of package net.
func Config(d time.Duration) net.KeepAliveConfig {
	if d <= 0 {
		return net.KeepAliveConfig{Enable: true}
	}
	every := max(d/(probes+1), time.Second) // the kernel counts seconds
	return net.KeepAliveConfig{Enable: true, Idle: every, Interval: every, Count: probes}
}

// Control returns a function for net.Dialer and net.ListenConfig that ends
// connections whose peer has acknowledged nothing for d (TCP_USER_TIMEOUT, RFC
// 5482), where the kernel can; those accepted from a listener inherit it. It
// counts a peer that leaves its receive window closed for d as gone too. Zero
// means no bound of ours.
func Control(d time.Duration) func(network, address string, c syscall.RawConn) error {
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
