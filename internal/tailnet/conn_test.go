package tailnet_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// TestReachesIPv4AndIPv6 checks that both families reach the private API, from
// the node's own address of that family.
func TestReachesIPv4AndIPv6(t *testing.T) { eachModeShared(t, reachesBothFamilies) }

func reachesBothFamilies(t *testing.T, w *world) {
	n := w.join(t, "both", tailnet.Options{})
	for i, addr := range []netip.Addr{testnet.APIAddr, testnet.APIAddr6} {
		c := dial(t, n, netip.AddrPortFrom(addr, 80))
		if w.mode == tailnet.Kernel {
			if _, ok := c.(*net.TCPConn); !ok {
				t.Errorf("DialTCP(%v) returned a %T in kernel mode, want a *net.TCPConn", addr, c)
			}
		}
		io.WriteString(c, "GET /x HTTP/1.0\r\nHost: api\r\n\r\n")
		b, err := io.ReadAll(c)
		if err != nil || !strings.Contains(string(b), `"private-api"`) {
			t.Errorf("%v answered %q, %v; want the private API", addr, b, err)
		}
		if want := `"device":"` + n.Addrs()[i].String() + `"`; !strings.Contains(string(b), want) {
			t.Errorf("%v answered %q, want %s in it", addr, b, want)
		}
	}
}

// TestRefusesUnroutedAddresses checks that a dial to an address that no peer
// routes fails, and does not use the host's network.
func TestRefusesUnroutedAddresses(t *testing.T) { eachModeShared(t, refusesUnrouted) }

func refusesUnrouted(t *testing.T, w *world) {
	n := w.join(t, "unrouted", tailnet.Options{})
	// A server listens here, so a dial through the host's network would succeed.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, addr := range []netip.AddrPort{
		ln.Addr().(*net.TCPAddr).AddrPort(),
		netip.MustParseAddrPort("192.0.2.1:80"),
		netip.MustParseAddrPort("[2001:db8::1]:80"),
		netip.AddrPortFrom(n.Addrs()[0], 80), // its own
	} {
		if c, err := n.DialTCP(testkit.Within(t, connTime), addr); !errors.Is(err, tailnet.ErrNoRoute) {
			t.Errorf("DialTCP(%v) = %v, %v; want ErrNoRoute", addr, c, err)
		}
		if c, err := n.DialUDP(testkit.Within(t, connTime), addr); !errors.Is(err, tailnet.ErrNoRoute) {
			t.Errorf("DialUDP(%v) = %v, %v; want ErrNoRoute", addr, c, err)
		}
	}
}

// TestRefusedConnection checks the errno of a dial that the target refuses.
func TestRefusedConnection(t *testing.T) {
	eachModeShared(t, func(t *testing.T, w *world) {
		n := w.join(t, "refused", tailnet.Options{})
		addr := w.cloud.NewAddr()
		if c, err := n.DialTCP(testkit.Within(t, connTime), addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("DialTCP(%v) = %v, %v; want ECONNREFUSED", addr, c, err)
		}
	})
}

// TestDialTimesOut checks that a dial through a router that is gone ends with the
// caller's deadline, as a timeout.
func TestDialTimesOut(t *testing.T) { eachMode(t, timesOut) }

func timesOut(t *testing.T, w *world) {
	n := w.join(t, "timeout", tailnet.Options{})
	gone, err := w.net.StartCloud(testkit.Within(t, joinTime), "gone", nil)
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort("10.77.0.1:80")
	if err := w.net.ApproveRoutes("gone", netip.MustParsePrefix("10.77.0.0/16")); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the route", func() bool { return n.Routes(dead.Addr()) })
	gone.Close()
	const deadline = 500 * time.Millisecond
	start := time.Now()
	_, err = n.DialTCP(testkit.Within(t, deadline), dead)
	took := time.Since(start)
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Errorf("DialTCP(%v) = %v, want a timeout", dead, err)
	}
	// Without the deadline it would take a minute or more.
	if most := 20 * time.Second; took > most {
		t.Errorf("DialTCP(%v) took %v with a deadline of %v, want less than %v", dead, took, deadline, most)
	}
}

// TestHalfCloses checks that each direction of a connection ends alone, from
// either side.
func TestHalfCloses(t *testing.T) { eachModeShared(t, halfCloses) }

func halfCloses(t *testing.T, w *world) {
	const size = 100_000
	n := w.join(t, "halfclose", tailnet.Options{})
	c := dial(t, n, w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		b, _ := io.ReadAll(c) // until the client's end
		fmt.Fprintf(c, "got %d", len(b))
	}))
	io.WriteString(c, strings.Repeat("x", size))
	closeWrite(t, c)
	if b, err := io.ReadAll(c); err != nil || string(b) != "got 100000" {
		t.Errorf("client closes first: read %q, %v; want %q", b, err, "got 100000")
	}

	got := make(chan int, 1)
	c = dial(t, n, w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "bye")
		c.(interface{ CloseWrite() error }).CloseWrite()
		b, _ := io.ReadAll(c)
		got <- len(b)
	}))
	if b, err := io.ReadAll(c); err != nil || string(b) != "bye" {
		t.Errorf("target closes first: read %q, %v; want %q", b, err, "bye")
	}
	io.WriteString(c, strings.Repeat("y", size))
	closeWrite(t, c)
	select {
	case b := <-got:
		if b != size {
			t.Errorf("target closes first: it got %d bytes after that, want %d", b, size)
		}
	case <-time.After(connTime):
		t.Error("target closes first: it did not get the client's end")
	}
}

// TestLostConnection checks that Read and Write both tell of a reset, when both wait
// for the peer. Netstack tells one of them, and the other that the stream has ended.
// (In kernel mode socket.Lost tells.)
func TestLostConnection(t *testing.T) {
	w := newWorld(t, tailnet.Userspace)
	n := w.join(t, "lost", tailnet.Options{})
	reset := make(chan bool)
	target := w.cloud.Serve(func(c net.Conn) {
		c.Read(make([]byte, 1))
		<-reset
		c.Close() // with bytes unread, which makes it a reset
	})
	for range 10 { // either of them may be the one
		c := dial(t, n, target)
		written := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, 64<<20))
			written <- err
		}()
		time.AfterFunc(200*time.Millisecond, func() { reset <- true }) // when both wait
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read = %v, want ECONNRESET", err)
		}
		if err := <-written; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Write = %v, want ECONNRESET", err)
		}
	}
}

// TestPrivateResolver checks that a DNS server behind a subnet router answers over
// UDP and TCP.
func TestPrivateResolver(t *testing.T) { eachModeShared(t, asksPrivateResolver) }

func asksPrivateResolver(t *testing.T, w *world) {
	n := w.join(t, "dns", tailnet.Options{})
	server := netip.AddrPortFrom(testnet.DNSAddr, 53)
	for _, network := range []string{"udp", "tcp"} {
		dialer := n.DialTCP
		if network == "udp" {
			dialer = n.DialUDP
		}
		c, err := dialer(testkit.Within(t, connTime), server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		q := new(dns.Msg).SetQuestion(testnet.APIName+".", dns.TypeA)
		client := dns.Client{Net: network, Timeout: connTime}
		r, _, err := client.ExchangeWithConnContext(testkit.Within(t, connTime), q, &dns.Conn{Conn: c})
		if err != nil || len(r.Answer) != 1 || !strings.Contains(r.Answer[0].String(), testnet.APIAddr.String()) {
			t.Errorf("%s: the answer is %v, %v; want %v", network, r, err, testnet.APIAddr)
		}
	}
}

// TestIgnoreRoutes checks that a node with IgnoreRoutes reaches peers, but not
// what they route.
func TestIgnoreRoutes(t *testing.T) {
	eachModeShared(t, func(t *testing.T, w *world) {
		n := w.join(t, "noroutes", tailnet.Options{IgnoreRoutes: true})
		testkit.Eventually(t, "the peer", func() bool { return n.Routes(w.cloud.Addrs()[0]) })
		if n.Routes(testnet.APIAddr) {
			t.Errorf("Routes(%v) = true with IgnoreRoutes, want false", testnet.APIAddr)
		}
	})
}

// TestBulkTransfersEnd reads more than all buffers hold from a server that closes
// as soon as it has written. It checks that the rest of the send buffer arrives.
func TestBulkTransfersEnd(t *testing.T) {
	eachModeAlone(t, bulkTransfers)
}

func bulkTransfers(t *testing.T, w *world) {
	n := w.join(t, "bulk", tailnet.Options{})
	const size = 8 << 20
	const readers = 8
	const rounds = 2
	block := make([]byte, size)
	addr := w.cloud.Serve(func(c net.Conn) { c.Write(block); c.Close() })
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for range rounds {
				got, err := readAll(t, n, addr)
				if got != size || err != io.EOF {
					t.Errorf("read %d bytes, %v; want %d, EOF", got, err, size)
				}
			}
		})
	}
	wg.Wait()
}

// readAll returns how many bytes addr sends, and the error that ended it. A slow
// transfer is not an error, a silent one is.
func readAll(t *testing.T, n *tailnet.Node, addr netip.AddrPort) (got int, err error) {
	c, err := n.DialTCP(testkit.Within(t, connTime), addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	buf := make([]byte, 64<<10)
	for err == nil {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		var m int
		m, err = c.Read(buf)
		got += m
	}
	return got, err
}
