package userspace

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

var (
	here   = netip.MustParseAddr("100.64.0.1")
	target = netip.MustParseAddrPort("10.0.0.1:80")
)

// newStack is a stack from which nothing ever gets an answer.
func newStack(t *testing.T) *Stack {
	t.Helper()
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	t.Cleanup(s.Close)
	if terr := s.CreateNIC(nicID, channel.New(16, 1280, "")); terr != nil {
		t.Fatal(terr)
	}
	addr := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddrFromSlice(here.AsSlice()).WithPrefix()}
	if terr := s.AddProtocolAddress(nicID, addr, stack.AddressProperties{}); terr != nil {
		t.Fatal(terr)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}})
	return &Stack{Stack: s}
}

func fill(t *testing.T, s *Stack, count int) {
	t.Helper()
	for range count {
		if err := new(attempt).connect(t.Context(), s, here, target); err != nil {
			t.Fatal(err)
		}
	}
}

// With all ports of a target taken, one dial more is refused without an endpoint
// for each of them, and other targets have theirs.
func TestNoPortIsLeft(t *testing.T) {
	s := newStack(t)
	const ports = 4096 // a twelfth of the usual
	if terr := s.SetPortRange(20000, 20000+ports-1); terr != nil {
		t.Fatal(terr)
	}
	fill(t, s, ports)
	begin := time.Now()
	if _, err := s.Dial(t.Context(), here, target); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("one more than %d: %v", ports, err)
	}
	t.Logf("MEASURED with %d ports taken, a dial is refused after %v", ports, time.Since(begin).Round(100*time.Microsecond))
	if tried := s.Stats().TCP.FailedConnectionAttempts.Value(); tried != 0 {
		t.Errorf("%d endpoints were made for it, in vain", tried)
	}
	if err := new(attempt).connect(t.Context(), s, here, netip.AddrPortFrom(target.Addr(), 81)); err != nil {
		t.Errorf("another target: %v", err)
	}
}

// A dial that waits for an answer goes on waiting when there is no fresh port for
// its second try.
func TestNoFreshPortIsLeft(t *testing.T) {
	s := newStack(t)
	if terr := s.SetPortRange(20000, 20003); terr != nil {
		t.Fatal(terr)
	}
	fill(t, s, 3)
	ctx, cancel := context.WithTimeout(t.Context(), freshPorts[1]+300*time.Millisecond)
	defer cancel()
	if _, err := s.Dial(ctx, here, target); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("with the last port: %v, want a time-out", err)
	}
}
