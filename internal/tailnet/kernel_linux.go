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

// tunPath is the device node of the kernel's TUN driver.
const tunPath = "/dev/net/tun"

// useKernel gives the engine a TUN device and our own router, and the node a
// dialer whose sockets are bound to its tailnet address.
//
// The device is up when useKernel returns. An interface that comes up later
// counts as a change of network: the engine then closes its connection to the
// control server, possibly in the middle of the login.
func (n *Node) useKernel(conf *wgengine.Config) error {
	if err := ensureTUN(tunPath); err != nil {
		return err
	}
	dev, name, err := tstun.New(n.logf, n.opts.TUNName)
	if err != nil {
		return fmt.Errorf("TUN device %q: %w; kernel mode needs the capability NET_ADMIN: grant it, or use tailnet.mode: userspace", n.opts.TUNName, err)
	}
	r := scoped.New(name)
	if err := r.Up(); err != nil {
		dev.Close()
		return err
	}
	netmon.SetTailscaleInterfaceProps(name, 0)
	conf.Tun = dev
	conf.Router = r
	n.dial = n.dialKernel
	return nil
}

// ensureTUN makes the TUN device node path if it is missing. That needs
// CAP_MKNOD.
func ensureTUN(path string) error {
	_, err := os.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
		err = unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200)))
	}
	if err != nil {
		return fmt.Errorf("%s is missing and cannot be created: %w; mount it into the pod (a hostPath volume of type CharDevice), or use tailnet.mode: userspace", path, err)
	}
	return nil
}

// dialKernel connects from the node's own address. The two rules that the router
// installs for that address send such sockets, and no others, into the tailnet.
func (n *Node) dialKernel(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{
		LocalAddr:       net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0)),
		KeepAliveConfig: socket.KeepAlive(n.opts.PeerTimeout),
		Control: func(network, addr string, c syscall.RawConn) error {
			var serr error
			err := c.Control(func(fd uintptr) {
				// Choose the port at connect, by the whole 4-tuple. Otherwise
				// 28,000 connections use up the ports of the one address.
				serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			})
			return errors.Join(err, serr, socket.UserTimeout(n.opts.PeerTimeout)(network, addr, c), socket.BoundUnsent(c))
		},
	}
	return d.DialContext(ctx, "tcp", dst.String())
}
