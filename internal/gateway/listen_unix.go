//go:build unix

package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/socket"
)

// listen binds the proxy's addresses: for this process alone, unless the
// configuration says that replicas share them.
func listen(ctx context.Context, c config.Listen, peerTimeout time.Duration) ([]*net.TCPListener, error) {
	var list []*net.TCPListener
	for i, addr := range append([]string{c.Proxy}, c.Also...) {
		key := "listen.proxy"
		if i > 0 {
			key = fmt.Sprintf("listen.also[%d]", i-1)
		}
		ln, err := listenAt(ctx, key, addr, c.ReusePort, peerTimeout)
		if err != nil {
			closeAll(list)
			return nil, err
		}
		list = append(list, ln)
	}
	return list, nil
}

// listenAt binds addr, which stands at key in the configuration. Clients that
// answer nothing for peerTimeout are gone; zero leaves that to the kernel.
func listenAt(ctx context.Context, key, addr string, reusePort bool, peerTimeout time.Duration) (*net.TCPListener, error) {
	lc := socket.ListenConfig(reusePort, peerTimeout)
	ln, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use; stop what uses it (ss -ltnp shows it), or choose another port", key, addr)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return ln.(*net.TCPListener), nil
}

// listenAdmin binds the addresses of the admin port, if there is one.
func listenAdmin(ctx context.Context, c config.Listen) ([]*net.TCPListener, error) {
	if c.Admin == "" {
		return nil, nil
	}
	var list []*net.TCPListener
	for i, addr := range append([]string{c.Admin}, c.AdminAlso...) {
		key := "listen.admin"
		if i > 0 {
			key = fmt.Sprintf("listen.adminAlso[%d]", i-1)
		}
		ln, err := listenAt(ctx, key, addr, false, 0)
		if err != nil {
			closeAll(list)
			return nil, err
		}
		list = append(list, ln)
	}
	return list, nil
}

func closeAll(list []*net.TCPListener) {
	for _, ln := range list {
		ln.Close()
	}
}
