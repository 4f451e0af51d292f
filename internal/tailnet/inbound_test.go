package tailnet_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
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

// TestPeerOverUDPIsNoLocalClient is TestPeerIsNoLocalClient for datagrams, in userspace
// mode. In kernel mode the host has no route for an answer over UDP to a peer.
func TestPeerOverUDPIsNoLocalClient(t *testing.T) {
	w := newWorld(t, tailnet.Userspace)
	pc, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	clients := make(chan netip.AddrPort, 16)
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			clients <- socket.ClientAt(from)
			pc.WriteTo(b[:n], from)
		}
	}()
	open := w.join(t, "open", tailnet.Options{})
	peer := w.join(t, "peer", tailnet.Options{ShieldsUp: true})
	port := uint16(pc.LocalAddr().(*net.UDPAddr).Port)
	c, err := peer.DialUDP(testkit.Within(t, connTime), netip.AddrPortFrom(open.Addrs()[0], port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(connTime))
	for _, text := range []string{"one", "two", strings.Repeat("x", 48)} {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 64)
		if n, err := c.Read(b); err != nil || string(b[:n]) != text {
			t.Fatalf("read %q, %v; want %q", b[:n], err, text)
		}
		client := <-clients
		if client.Addr() != peer.Addrs()[0] || socket.IsLocal(client.Addr()) {
			t.Errorf("the listener sees the client %v, local: %v; want the peer %v, not local",
				client, socket.IsLocal(client.Addr()), peer.Addrs()[0])
		}
	}
}

// TestWrongTailnetCarriesNothing checks that a node in another tailnet than the
// expected one reaches no target, has no route and no name, and that peers reach
// nothing through it.
func TestWrongTailnetCarriesNothing(t *testing.T) {
	w := newWorld(t, tailnet.Userspace) // both modes use the same check
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	n := w.start(t, "stray", tailnet.Options{AuthKey: testnet.AuthKey, Expect: "tail1234.ts.net"})
	if err := n.Wait(testkit.Within(t, joinTime)); err != nil {
		t.Fatal(err)
	}
	api := netip.AddrPortFrom(testnet.APIAddr, 80)
	ctx := testkit.Within(t, connTime)
	_, tcp := n.DialTCP(ctx, api)
	_, udp := n.DialUDP(ctx, api)
	_, query := n.QueryMagicDNS(ctx, nil)
	for what, err := range map[string]error{"Err": n.Err(), "DialTCP": tcp, "DialUDP": udp, "QueryMagicDNS": query} {
		if !errors.Is(err, tailnet.ErrWrongTailnet) {
			t.Errorf("%s() = %v, want ErrWrongTailnet", what, err)
		}
	}
	if dns, ok := n.DNS(); ok || n.Routes(api.Addr()) {
		t.Errorf("DNS() = %+v, %v and Routes(%v) = %v; want nothing", dns, ok, api.Addr(), n.Routes(api.Addr()))
	}
	peer := w.join(t, "peer", tailnet.Options{ShieldsUp: true})
	c, err := peer.DialTCP(ctx, netip.AddrPortFrom(n.Addrs()[0], uint16(ln.Addr().(*net.TCPAddr).Port)))
	if err == nil {
		c.Close()
		t.Error("a peer reached a port of the host through the node")
	}
}
