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

// newStack returns a stack whose packets never get an answer.
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

// fill starts count connections to target, which never get an answer.
func fill(t *testing.T, s *Stack, count int) {
	t.Helper()
	for range count {
		if err := new(attempt).connect(t.Context(), s, here, target); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoPortIsLeft checks a dial to a target for which all source ports are in use:
// it is refused without making an endpoint for each port, and other targets can
// still use the ports.
func TestNoPortIsLeft(t *testing.T) {
	s := newStack(t)
	const ports = 4096 // a twelfth of the usual
	if terr := s.SetPortRange(20000, 20000+ports-1); terr != nil {
		t.Fatal(terr)
	}
	fill(t, s, ports)
	begin := time.Now()
	if _, err := s.Dial(t.Context(), here, target); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("Dial(%v) = %v with all %d ports in use, want EADDRNOTAVAIL", target, err, ports)
	}
	t.Logf("MEASURED with %d ports taken, a dial is refused after %v", ports, time.Since(begin).Round(100*time.Microsecond))
	if tried := s.Stats().TCP.FailedConnectionAttempts.Value(); tried != 0 {
		t.Errorf("the dial that was refused made %d endpoints, want 0", tried)
	}
	other := netip.AddrPortFrom(target.Addr(), 81)
	if err := new(attempt).connect(t.Context(), s, here, other); err != nil {
		t.Errorf("connect(%v) = %v with the ports of another target in use, want nil", other, err)
	}
}

// TestNoFreshPortIsLeft checks that a dial still waits for its answer when there is
// no port for its second attempt.
func TestNoFreshPortIsLeft(t *testing.T) {
	s := newStack(t)
	if terr := s.SetPortRange(20000, 20003); terr != nil {
		t.Fatal(terr)
	}
	fill(t, s, 3)
	ctx, cancel := context.WithTimeout(t.Context(), freshPorts[1]+300*time.Millisecond)
	defer cancel()
	if _, err := s.Dial(ctx, here, target); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("Dial(%v) = %v with the last port, want ETIMEDOUT", target, err)
	}
}
