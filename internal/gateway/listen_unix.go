//go:build unix

package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pandoproxy/pando/internal/config"
)

// listen binds the proxy port: for this process alone, unless the
// configuration says that replicas share it.
func listen(ctx context.Context, c config.Listen) (*net.TCPListener, error) {
	var lc net.ListenConfig
	if c.ReusePort {
		lc.Control = func(_, _ string, rc syscall.RawConn) error {
			var serr error
			err := rc.Control(func(fd uintptr) {
				serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			})
			return errors.Join(err, serr)
		}
	}
	ln, err := lc.Listen(ctx, "tcp", c.Proxy)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen.proxy: %s is in use; stop what uses it (ss -ltnp shows it), or choose another port", c.Proxy)
	case err != nil:
		return nil, fmt.Errorf("listen.proxy: %w", err)
	}
	return ln.(*net.TCPListener), nil
}
