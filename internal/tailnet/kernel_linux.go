package tailnet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	"tailscale.com/net/netmon"
	"tailscale.com/net/tstun"
	"tailscale.com/wgengine"

	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/tailnet/scoped"
)

// tunPath is where the kernel's TUN driver is opened.
const tunPath = "/dev/net/tun"

// useKernel gives the engine a TUN device and our own router, and this node a
// dialer whose sockets are bound to its tailnet address. The device is up when
// it returns: an interface that appears later is a change of network to the
// engine, which then closes its connection to the control server, at worst in
// the middle of the login.
func (n *Node) useKernel(conf *wgengine.Config) error {
	if err := ensureTUN(tunPath); err != nil {
		return err
	}
	dev, name, err := tstun.New(n.logf, n.opts.TUNName)
	if err != nil {
		return fmt.Errorf("TUN device %q: %w (kernel mode needs the capability NET_ADMIN; without it use tailnet.mode: userspace)", n.opts.TUNName, err)
	}
	r := scoped.New(name)
	if err := r.Up(); err != nil {
		dev.Close()
		return err
	}
	netmon.SetTailscaleInterfaceProps(name, 0)
	conf.Tun, conf.Router = dev, r
	n.dial = n.dialKernel
	n.holdLeftovers = true
	return nil
}

// ensureTUN makes the TUN device node when it is missing and we may.
func ensureTUN(path string) error {
	_, err := os.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
		err = unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200)))
	}
	if err != nil {
		return fmt.Errorf("%s is missing and can't be made: %w; mount it into the pod (a hostPath volume of type CharDevice), or use tailnet.mode: userspace", path, err)
	}
	return nil
}

// dialKernel connects from the node's own address: the one rule that the
// router installs sends such sockets, and nothing else, into the tailnet.
func (n *Node) dialKernel(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{
		LocalAddr:       net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0)),
		KeepAliveConfig: socket.KeepAlive(n.opts.PeerTimeout),
		Control: func(network, addr string, c syscall.RawConn) error {
			var serr error
			err := c.Control(func(fd uintptr) {
				// Choose the port at connect, by the whole 4-tuple: else
				// 28,000 connections use up the ports of the one address.
				serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			})
			return errors.Join(err, serr, socket.UserTimeout(n.opts.PeerTimeout)(network, addr, c))
		},
	}
	return d.DialContext(ctx, "tcp", dst.String())
}
