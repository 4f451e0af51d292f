package device

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/metrics"
	"github.com/pandoproxy/pando/internal/status"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// readingState is what a device does before its engine runs.
const readingState = "reading the device's state"

// Status returns the state of the device and of its peers, at most a second
// old. Before the engine runs, only State is set.
func (d *Device) Status() tailnet.Status {
	if n := d.node.Load(); n != nil {
		return n.Status()
	}
	return tailnet.Status{State: readingState}
}

// Snapshot is the state of the device at one moment.
type Snapshot struct {
	// Status is that of Device.Status, but with an Up of this moment.
	Status tailnet.Status
	// Err is nil while the device is on a tailnet, and otherwise
	// tailnet.ErrNotUp with what the device is waiting for.
	Err error
	// Wrong is nil unless the device is on another tailnet than the expected one. It
	// is tailnet.ErrWrongTailnet then, with the names of both.
	Wrong error
	// Warm is what Device.Warm reports.
	Warm bool
	// Routed reports whether Run has stopped waiting for the routes that should
	// exist at the start: all of them are there, or the time for it is over.
	Routed bool
	// Unrouted is a private resolver of the tailnet's split DNS that no peer
	// routes: always the same one, as long as the tailnet does not change. It is
	// the zero Addr when there is none, when such resolvers are not used, and while
	// the device is not on its tailnet.
	Unrouted netip.Addr
	// State is nil while the state Secret, if there is one, is this pod's alone, and
	// otherwise says which pod uses it, too.
	State error

	sessionsMended int64
}

// Snapshot returns the state of the device now.
func (d *Device) Snapshot() Snapshot {
	s := Snapshot{Routed: d.hasRouted()} // first: the wait for routes may end meanwhile
	s.Warm = d.Warm()
	s.Err = d.err()
	if errors.Is(s.Err, tailnet.ErrWrongTailnet) {
		s.Wrong = s.Err
		s.Err = nil
	}
	s.Status = d.Status()
	s.sessionsMended = d.sessionsMended()
	s.Status.Up = s.Err == nil
	s.State = d.stateErr()
	if s.Status.Up && s.Wrong == nil && d.usesRoutedDNS() {
		s.Unrouted = d.findUnrouted()
	}
	return s
}

// stateErr returns what Snapshot.State says.
func (d *Device) stateErr() error {
	if d.node.Load() == nil || d.secret == nil { // node first: see Device.secret
		return nil
	}
	return d.secret.Err()
}

// Report returns s in the words of the status page. The peers are never nil.
func (s Snapshot) Report() (status.Device, []status.Peer) {
	t := s.Status
	device := status.Device{
		ID:               t.ID,
		Name:             t.Name,
		Addrs:            t.Addrs,
		State:            t.State,
		Up:               t.Up,
		LoginURL:         t.LoginURL,
		ControlConnected: t.Control,
		HomeRelay:        t.Home,
		Health:           t.Health,
		SessionsMended:   s.sessionsMended,
	}
	if !t.KeyExpiry.IsZero() {
		device.KeyExpiry = &t.KeyExpiry
	}
	if !t.HomeHeard.IsZero() {
		device.HomeHeard = &t.HomeHeard
	}
	if t.ClockAhead != nil {
		ahead := t.ClockAhead.Seconds()
		device.ClockAhead = &ahead
	}
	peers := []status.Peer{}
	for _, p := range t.Peers {
		peers = append(peers, peerStatus(p))
	}
	return device, peers
}

func peerStatus(p tailnet.Peer) status.Peer {
	peer := status.Peer{
		Name:     p.Name,
		Addrs:    p.Addrs,
		Routes:   p.Routes,
		Online:   p.Online,
		Path:     p.Path.String(),
		Received: p.Rx,
		Sent:     p.Tx,
	}
	if !p.LastHandshake.IsZero() {
		peer.LastHandshake = &p.LastHandshake
	}
	return peer
}

// Carrier returns the peer that carries a, with its route. ok is false when there
// is none.
func (d *Device) Carrier(a netip.Addr) (carrier status.Carrier, ok bool) {
	n := d.node.Load()
	if n == nil {
		return status.Carrier{}, false
	}
	peer, route, ok := n.Carrier(a)
	return status.NewCarrier(a.Unmap(), route, peerStatus(peer)), ok
}

// CarrierText describes the peer that carries a in a sentence; empty when there
// is none.
func (d *Device) CarrierText(a netip.Addr) string {
	c, ok := d.Carrier(a)
	if !ok {
		return ""
	}
	return "carried by " + c.String()
}

// sessionsMended returns how many WireGuard sessions were started again because
// a peer had lost its side.
func (d *Device) sessionsMended() int64 {
	if n := d.node.Load(); n != nil {
		return n.SessionsMended()
	}
	return 0
}

// Metrics returns Status in the words of the metrics.
func (d *Device) Metrics() metrics.Tailnet {
	t := d.Status()
	m := metrics.Tailnet{
		Up:             d.Up(),
		Control:        t.Control,
		KeyExpiry:      t.KeyExpiry,
		SessionsMended: d.sessionsMended(),
		Peers:          len(t.Peers),
	}
	for _, p := range t.Peers {
		if len(p.Routes) == 0 {
			continue
		}
		m.Routes += len(p.Routes)
		switch p.Path.Kind {
		case tailnet.Direct:
			m.Direct++
		case tailnet.Relay:
			m.Relayed++
		default:
			m.Unused++
		}
		age := time.Since(p.LastHandshake)
		if !p.LastHandshake.IsZero() && p.Online && age > m.HandshakeAge {
			m.HandshakeAge = age
		}
	}
	return m
}

// EngineMetrics returns the engine's own metrics in the text format of
// Prometheus; empty before the engine runs.
func (d *Device) EngineMetrics() (string, error) {
	n := d.node.Load()
	if n == nil {
		return "", nil
	}
	var b strings.Builder
	if err := n.WriteMetrics(&b); err != nil {
		return "", fmt.Errorf("engine metrics: %w", err)
	}
	return b.String(), nil
}
