package session

import (
	"log/slog"
	"net/netip"
	"testing"

	"tailscale.com/net/packet"
	"tailscale.com/types/ipproto"
	"tailscale.com/wgengine/filter"
)

// TestLeftovers checks which packets pass before and after the first connection of
// our own. The packets of each case come in this order.
func TestLeftovers(t *testing.T) {
	type sent struct {
		proto ipproto.Proto
		flags packet.TCPFlag
		want  filter.Response
	}
	udp := sent{ipproto.UDP, 0, filter.Accept}
	syn := sent{ipproto.TCP, packet.TCPSyn, filter.Accept}
	dropped := sent{ipproto.TCP, packet.TCPAck, filter.DropSilently}
	reset := sent{ipproto.TCP, packet.TCPRst, filter.DropSilently}
	data := sent{ipproto.TCP, packet.TCPAck, filter.Accept}
	for name, c := range map[string]struct {
		released bool
		packets  []sent
	}{
		"of a predecessor":           {false, []sent{dropped, reset, udp, dropped}},
		"until our first connection": {false, []sent{dropped, syn, data}},
		"released":                   {true, []sent{data, syn, data}},
	} {
		t.Run(name, func(t *testing.T) {
			var l Leftovers
			if c.released {
				l.Release()
			}
			for i, p := range c.packets {
				if got := l.Filter(&packet.Parsed{IPProto: p.proto, TCPFlags: p.flags}, nil); got != p.want {
					t.Errorf("packet %d (%v, flags %v): Filter() = %v, want %v", i, p.proto, p.flags, got, p.want)
				}
			}
		})
	}
}

// TestSuspectDoesNotWait checks that Suspect returns at once, also when nothing
// takes the addresses: a dial calls it.
func TestSuspectDoesNotWait(t *testing.T) {
	c := NewChecker(&Peers{}, slog.New(slog.DiscardHandler))
	for i := range 3 * checksMost {
		c.Suspect(netip.AddrFrom4([4]byte{10, 12, 0, byte(i)}))
	}
	if got := len(c.suspects); got != checksMost {
		t.Errorf("%d addresses wait for a check, want %d", got, checksMost)
	}
	if first := <-c.suspects; first != netip.MustParseAddr("10.12.0.0") {
		t.Errorf("the first address to be checked is %v, want the one that was suspected first", first)
	}
}
