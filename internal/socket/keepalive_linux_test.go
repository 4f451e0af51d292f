package socket

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBothEnds checks that dialled and accepted connections have the times:
// accepted ones inherit them from their listener.
func TestBothEnds(t *testing.T) {
	const d = 8 * time.Second
	out, in := connect(t, ListenConfig(false, d), net.Dialer{
		Control:         UserTimeout(d),
		KeepAliveConfig: KeepAlive(d),
	})
	for end, c := range map[string]*net.TCPConn{"dialled": out, "accepted": in} {
		rc, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		rc.Control(func(fd uintptr) {
			for name, o := range map[string]struct{ level, opt, want int }{
				"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 8000},
				"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				"TCP_KEEPIDLE":     {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 2},
				"TCP_KEEPINTVL":    {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 2},
				"TCP_KEEPCNT":      {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
			} {
				if got, err := unix.GetsockoptInt(int(fd), o.level, o.opt); err != nil || got != o.want {
					t.Errorf("%s of the %s end = %d, %v; want %d", name, end, got, err, o.want)
				}
			}
		})
	}
}
