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

// listen binds the proxy's addresses: for this process alone, unless the
// configuration says that replicas share them.
func listen(ctx context.Context, c config.Listen) ([]*net.TCPListener, error) {
	var list []*net.TCPListener
	for i, addr := range append([]string{c.Proxy}, c.Also...) {
		key := "listen.proxy"
		if i > 0 {
			key = fmt.Sprintf("listen.also[%d]", i-1)
		}
		ln, err := listenAt(ctx, key, addr, c.ReusePort)
		if err != nil {
			closeAll(list)
			return nil, err
		}
		list = append(list, ln)
	}
	return list, nil
}

// listenAt binds addr, which stands at key in the configuration.
func listenAt(ctx context.Context, key, addr string, reusePort bool) (*net.TCPListener, error) {
	var lc net.ListenConfig
	if reusePort {
		lc.Control = func(_, _ string, rc syscall.RawConn) error {
			var serr error
			err := rc.Control(func(fd uintptr) {
				serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			})
			return errors.Join(err, serr)
		}
	}
	ln, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use; stop what uses it (ss -ltnp shows it), or choose another port", key, addr)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return ln.(*net.TCPListener), nil
}

func closeAll(list []*net.TCPListener) {
	for _, ln := range list {
		ln.Close()
	}
}
