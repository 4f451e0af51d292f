package socket

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// address is a connection that has nothing but a remote address.
type address struct {
	net.Conn
	addr net.Addr
}

func (a address) RemoteAddr() net.Addr { return a.addr }
func (address) CloseWrite() error      { return nil }

func TestClientAddr(t *testing.T) {
	for _, c := range []struct {
		name string
		addr net.Addr
		want netip.AddrPort
	}{
		{"ipv4", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1).To4(), Port: 80}, netip.MustParseAddrPort("10.0.0.1:80")},
		{"ipv4_mapped", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1).To16(), Port: 80}, netip.MustParseAddrPort("10.0.0.1:80")},
		{"ipv6", &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 80}, netip.MustParseAddrPort("[2001:db8::1]:80")},
		{"not_tcp", &net.UnixAddr{Name: "/run/x"}, netip.AddrPort{}},
		{"none", nil, netip.AddrPort{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ClientAddr(address{addr: c.addr}); got != c.want {
				t.Errorf("ClientAddr of %v = %v, want %v", c.addr, got, c.want)
			}
		})
	}
}

// TestCloseGently checks that the last bytes arrive although the peer has sent
// more than was read.
func TestCloseGently(t *testing.T) {
	client, server := testkit.TCPPair(t)
	if _, err := client.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.WriteString(server, "goodbye")
		CloseGently(server)
	}()
	if got, err := io.ReadAll(client); err != nil || string(got) != "goodbye" {
		t.Errorf("the peer reads %q, %v; want %q and an end of stream", got, err, "goodbye")
	}
	client.Close()
	<-done
	if _, err := server.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after CloseGently: error %v, want %v", err, net.ErrClosed)
	}
}

// TestCloseGentlySilentPeer checks that a peer that does not close cannot hold
// CloseGently up.
func TestCloseGentlySilentPeer(t *testing.T) {
	client, server := testkit.TCPPair(t)
	CloseGently(server)
	if got, err := io.ReadAll(client); err != nil || len(got) > 0 {
		t.Errorf("the peer reads %q, %v; want an end of stream", got, err)
	}
}

func TestCloseWrite(t *testing.T) {
	client, server := testkit.TCPPair(t)
	if err := CloseWrite(server); err != nil {
		t.Fatalf("CloseWrite = %v, want nil", err)
	}
	if got, err := io.ReadAll(client); err != nil || len(got) > 0 {
		t.Errorf("the peer reads %q, %v; want an end of stream", got, err)
	}
	io.WriteString(client, "still open")
	b := make([]byte, len("still open"))
	if _, err := io.ReadFull(server, b); err != nil || string(b) != "still open" {
		t.Errorf("the other direction carries %q, %v; want %q", b, err, "still open")
	}
	server.Close()
	if err := CloseWrite(server); err != nil {
		t.Errorf("CloseWrite of a closed connection = %v, want nil", err)
	}
	pipe, _ := net.Pipe()
	if err := CloseWrite(pipe); err != errNoHalfClose {
		t.Errorf("CloseWrite of a net.Pipe = %v, want %v", err, errNoHalfClose)
	}
}

// TestAbort checks that the peer gets a reset and that a read in progress ends.
func TestAbort(t *testing.T) {
	client, server := testkit.TCPPair(t)
	ended := make(chan error, 1)
	go func() {
		_, err := server.Read(make([]byte, 1))
		ended <- err
	}()
	Abort(server)
	if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the read in progress ended with %v, want %v or %v", err, net.ErrClosed, os.ErrDeadlineExceeded)
	}
	if n, err := client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer reads %d bytes, %v; want %v", n, err, syscall.ECONNRESET)
	}
}

// stackConn has the methods of the userspace network stack's connections.
type stackConn struct {
	net.Conn
	calls    *[]string
	readable bool
}

func (c stackConn) Abort() { *c.calls = append(*c.calls, "Abort") }
func (c stackConn) SetDeadline(time.Time) error {
	*c.calls = append(*c.calls, "SetDeadline")
	return nil
}
func (c stackConn) Close() error      { *c.calls = append(*c.calls, "Close"); return nil }
func (c stackConn) CloseWrite() error { *c.calls = append(*c.calls, "CloseWrite"); return nil }
func (c stackConn) Readable() bool    { return c.readable }

// TestUserspaceStack checks that connections that are not kernel sockets are
// recognised by their methods.
func TestUserspaceStack(t *testing.T) {
	var calls []string
	c := stackConn{calls: &calls}
	Abort(c)
	if err := CloseWrite(c); err != nil {
		t.Errorf("CloseWrite = %v, want nil", err)
	}
	const want = "Abort SetDeadline Close CloseWrite"
	if got := strings.Join(calls, " "); got != want {
		t.Errorf("called %s, want %s", got, want)
	}
	for _, want := range []bool{true, false} {
		if got := Readable(stackConn{readable: want}); got != want {
			t.Errorf("Readable = %v, want %v as the connection says", got, want)
		}
	}
}
