package socket

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestReusePort checks that two listeners share a port only if both ask for it.
func TestReusePort(t *testing.T) {
	for _, c := range []struct {
		name          string
		first, second bool
		want          error
	}{
		{"both", true, true, nil},
		{"neither", false, false, syscall.EADDRINUSE},
		{"only_the_first", true, false, syscall.EADDRINUSE},
		{"only_the_second", false, true, syscall.EADDRINUSE},
	} {
		t.Run(c.name, func(t *testing.T) {
			lc := ListenConfig(c.first, 0)
			first, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			lc = ListenConfig(c.second, 0)
			second, err := lc.Listen(t.Context(), "tcp", first.Addr().String())
			if err == nil {
				second.Close()
			}
			if !errors.Is(err, c.want) {
				t.Errorf("the second listener: error %v, want %v", err, c.want)
			}
		})
	}
}

// connect returns both ends of a connection that d dials to a listener of lc. They are
// closed with the test.
func connect(t *testing.T, lc net.ListenConfig, d net.Dialer) (out, in *net.TCPConn) {
	t.Helper()
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return c.(*net.TCPConn), accepted.(*net.TCPConn)
}

// TestListenConfigUDP checks that the settings suit a UDP port too: that of the DNS
// server has them.
func TestListenConfigUDP(t *testing.T) {
	lc := ListenConfig(true, time.Second)
	pc, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("ListenPacket: %v, want no error", err)
	}
	pc.Close()
}
