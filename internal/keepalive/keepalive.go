// Package keepalive has the kernel find out peers that are gone, and those that
// are back. Without it a connection whose other end vanished lives for ever when
// it is idle, and for 16 minutes when it is not (tcp_retries2, RFC 1122 section
// 4.2.3.5); and one that has lost a few segments in a row says nothing for as
// long again.
package keepalive

import (
	"net"
	"syscall"
	"time"
)

// probes are sent within the time that a silent peer has.
const probes = 3

// RTOMax is the longest time between two tries to send a segment. TCP doubles
// its RTO with each that is lost, up to 120 s, so after an outage of half a
// minute a connection that had something to send stays silent for another half,
// although its peer is back. RFC 6298 section 2.5 asks for 60 s at least, for the
// sake of paths that take long; through a tunnel that takes 5 s nobody works.
const RTOMax = 5 * time.Second

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
// 5482), and until then tries every RTOMax (TCP_RTO_MAX_MS, Linux 6.15), where
// the kernel can; those accepted from a listener inherit both. It counts a peer
// that leaves its receive window closed for d as gone too. Zero means no bounds
// of ours.
func Control(d time.Duration) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		if d <= 0 {
			return nil
		}
		var serr error
		err := c.Control(func(fd uintptr) { serr = setTimes(fd, d) })
		if err != nil {
			return err
		}
		return serr
	}
}
