package socket

import (
	"net"
	"net/netip"
	"testing"

	"github.com/pandoproxy/pando/internal/testkit"
)

// TestDialForwarded checks that a listener sees the client for which a
// connection was made, and that such a connection is never local, also when its
// registration has ended.
func TestDialForwarded(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	client := netip.MustParseAddrPort("100.64.0.7:4000")
	out, forget, err := DialForwarded(t.Context(), "tcp", port, client)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if got := ClientAddr(in); got != client {
		t.Errorf("ClientAddr = %v, want %v", got, client)
	}
	forget()
	got := ClientAddr(in)
	if got.Addr() != ForwardedSource || IsLocal(got.Addr()) {
		t.Errorf("ClientAddr after forget = %v, local: %v; want %v, not local", got, IsLocal(got.Addr()), ForwardedSource)
	}
	if _, _, err := DialForwarded(t.Context(), "tcp", 1, client); err == nil {
		t.Error("DialForwarded to a port without a listener: no error")
	}
	forwarded.Range(func(local, _ any) bool {
		t.Errorf("%v is still registered", local)
		return true
	})
}

// TestDialForwardedUDP checks that the source of a datagram is the client for which the
// socket was made, and not that of a TCP connection with the same port.
func TestDialForwardedUDP(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	client := netip.MustParseAddrPort("100.64.0.7:4000")
	out, forget, err := DialForwarded(t.Context(), "udp", uint16(pc.LocalAddr().(*net.UDPAddr).Port), client)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_, from, err := pc.ReadFrom(make([]byte, 1))
	if err != nil {
		t.Fatal(err)
	}
	if got := ClientAt(from); got != client {
		t.Errorf("ClientAt(%v) = %v, want %v", from, got, client)
	}
	local := out.LocalAddr().(*net.UDPAddr).AddrPort()
	if got := ClientAt(net.TCPAddrFromAddrPort(local)); got != local || IsLocal(got.Addr()) {
		t.Errorf("ClientAt of the same port of TCP = %v, local: %v; want %v, not local", got, IsLocal(got.Addr()), local)
	}
	forget()
	if got := ClientAt(from); got != local || IsLocal(got.Addr()) {
		t.Errorf("ClientAt after the end = %v, local: %v; want %v, not local", got, IsLocal(got.Addr()), local)
	}
}

// TestIntroduce checks that a connection has the client that it was introduced with
// until it is forgotten, and that others keep theirs.
func TestIntroduce(t *testing.T) {
	client, server := testkit.TCPPair(t)
	_, other := testkit.TCPPair(t)
	own := ClientAddr(server)
	want := netip.MustParseAddrPort("192.0.2.7:4000")
	Introduce(server, want)
	if got := ClientAddr(server); got != want {
		t.Errorf("ClientAddr = %v, want %v", got, want)
	}
	if got := ClientAddr(other); got == want {
		t.Errorf("ClientAddr of another connection = %v, want its own address", got)
	}
	Forget(server)
	Forget(other) // was not introduced
	if got := ClientAddr(server); got != own || got != client.LocalAddr().(*net.TCPAddr).AddrPort() {
		t.Errorf("ClientAddr after Forget = %v, want %v", got, own)
	}
	introduced.Range(func(c, _ any) bool {
		t.Errorf("%v is still introduced", c)
		return true
	})
}

func TestIsLocal(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1":    true,
		"127.0.0.53":   true,
		"::1":          true,
		"127.9.0.1":    false,
		"10.0.0.1":     false,
		"100.64.0.7":   false,
		"169.254.1.1":  false,
		"fd7a:115c::1": false,
	} {
		if got := IsLocal(netip.MustParseAddr(addr)); got != want {
			t.Errorf("IsLocal(%s) = %v, want %v", addr, got, want)
		}
	}
}
