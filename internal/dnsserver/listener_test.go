package dnsserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/socket"
)

// TestFleetBeforeCoreDNSGivesUp checks that a zone with Fleet is answered before
// CoreDNS gives up, after 2 s, even if its resolvers are silent.
func TestFleetBeforeCoreDNSGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, want := range map[string]int{"silent.corp.example.": dns.RcodeSuccess, "silent.real.corp.example.": dns.RcodeServerFailure} {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), answerTimeout)
			m := server().Answer(ctx, netip.Addr{}, new(dns.Msg).SetQuestion(name, dns.TypeA))
			cancel()
			if took := time.Since(start); m.Rcode != want || want == dns.RcodeSuccess && (took >= 2*time.Second || len(m.Answer) != 1) {
				t.Errorf("Answer for %s = %v after %v, want code %s, and the fleet's address within 2s", name, m, took, dns.RcodeToString[want])
			}
		}
	})
}

// broken is a listener that fails for lack of descriptors, and then is closed.
type broken struct {
	net.Listener
	accepts, failures int
}

func (b *broken) Accept() (net.Conn, error) {
	b.accepts++
	if b.accepts <= b.failures {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return nil, net.ErrClosed
}

// TestAcceptDoesNotSpin checks that Accept pauses after each failure.
func TestAcceptDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broken{failures: 20}
		start := time.Now()
		if _, err := (&listener{Listener: b, ctx: t.Context(), server: server()}).Accept(); !errors.Is(err, net.ErrClosed) || b.accepts != 21 {
			t.Errorf("Accept ended with %v after %d tries, want closed after 21", err, b.accepts)
		}
		if took := time.Since(start); took < 10*time.Second {
			t.Errorf("20 failures took %v, want 10s or more", took)
		}
	})
}

// TestLimits checks that a client over TCP takes a place at Enter and gives it
// back once.
func TestLimits(t *testing.T) {
	s := server()
	var in, out []netip.Addr
	s.Enter = func(a netip.Addr) error {
		if len(in) == 1 {
			return errors.New("full")
		}
		in = append(in, a)
		return nil
	}
	s.Leave = func(a netip.Addr) { out = append(out, a) }
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 2)
	l := &listener{Listener: ln, ctx: t.Context(), server: s}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	first, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	c := <-accepted
	second, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	second.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := second.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.EAGAIN) {
		t.Errorf("read of the client over the limit: %v, want a closed connection", err)
	}
	c.Close()
	c.Close()
	if len(accepted) != 0 || len(out) != 1 || out[0] != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("%d more clients were admitted, and %v left, want none, and 127.0.0.1 once", len(accepted), out)
	}
}

// TestPeersAreClients checks that a tailnet peer over TCP takes a place of its own,
// and not one that all peers share.
func TestPeersAreClients(t *testing.T) {
	s := server()
	var in []netip.Addr
	s.Enter = func(a netip.Addr) error {
		in = append(in, a)
		return nil
	}
	s.Leave = func(netip.Addr) {}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer := netip.MustParseAddrPort("100.64.0.7:4000")
	out, forget, err := socket.DialForwarded(t.Context(), "tcp", uint16(ln.Addr().(*net.TCPAddr).Port), peer)
	if err != nil {
		t.Fatal(err)
	}
	defer forget()
	defer out.Close()
	c, err := (&listener{Listener: ln, ctx: t.Context(), server: s}).Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if len(in) != 1 || in[0] != peer.Addr() {
		t.Errorf("Enter got %v, want %v", in, peer.Addr())
	}
}

// TestLookupsOfPeers checks that a query of a tailnet peer over TCP is looked up for the
// peer, and not for a client that all peers are.
func TestLookupsOfPeers(t *testing.T) {
	s := server()
	begun := make(chan netip.Addr, 1)
	s.Begin = func(client netip.Addr, _ string) (func(), error) {
		begun <- client
		return func() {}, nil
	}
	addr, _ := serve(t, s)
	peer := netip.MustParseAddrPort("100.64.0.7:4000")
	c, forget, err := socket.DialForwarded(t.Context(), "tcp", netip.MustParseAddrPort(addr).Port(), peer)
	if err != nil {
		t.Fatal(err)
	}
	defer forget()
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	client := dns.Conn{Conn: c}
	if err := client.WriteMsg(new(dns.Msg).SetQuestion("api.real.corp.example.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ReadMsg(); err != nil {
		t.Fatal(err)
	}
	if got := <-begun; got != peer.Addr() {
		t.Errorf("the lookup is for %v, want %v", got, peer.Addr())
	}
}
