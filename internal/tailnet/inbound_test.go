package tailnet_test

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
)

// TestPeerIsNoLocalClient checks that a peer which connects to a node without
// shields is seen with its own address, and not as a process of the host. The
// engine by itself connects for it from 127.0.0.1.
func TestPeerIsNoLocalClient(t *testing.T) {
	nstest.EachMode(t, func(t *testing.T, mode tailnet.Mode) {
		w := newWorld(t, mode)
		ln, err := net.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		clients := make(chan netip.AddrPort, 1)
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				clients <- socket.ClientAddr(c)
				io.Copy(c, c)
				c.Close()
			}
		}()
		open := w.join(t, "open", tailnet.Options{})
		peer := (&world{w.tailnetWorld, tailnet.Userspace}).join(t, "peer", tailnet.Options{ShieldsUp: true})
		ctx := testkit.Within(t, connTime)
		port := uint16(ln.Addr().(*net.TCPAddr).Port)
		c, err := peer.DialTCP(ctx, netip.AddrPortFrom(open.Addrs()[0], port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "echo"); err != nil {
			t.Fatal(err)
		}
		if err := socket.CloseWrite(c); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "echo" {
			t.Errorf("read %q, %v; want %q and the end of the stream", got, err, "echo")
		}
		client := <-clients
		if client.Addr() != peer.Addrs()[0] || socket.IsLocal(client.Addr()) {
			t.Errorf("the listener sees the client %v, local: %v; want the peer %v, not local",
				client, socket.IsLocal(client.Addr()), peer.Addrs()[0])
		}

		nobody, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		nobody.Close()
		closed := uint16(nobody.Addr().(*net.TCPAddr).Port)
		c, err = peer.DialTCP(ctx, netip.AddrPortFrom(open.Addrs()[0], closed))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil {
			t.Error("a port without a listener sent a byte")
		}
	})
}
