package mux

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/mux/proxyheader"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// trusts reports whether sender says who its clients are.
func (r *Role) trusts(sender netip.Addr) bool {
	return slices.ContainsFunc(r.Senders, func(p netip.Prefix) bool { return p.Contains(sender) })
}

// admitSender takes a new connection of a sender that the listener trusts. The client
// takes its place, and its turn, when the header has named it.
func (m *Mux) admitSender(ctx context.Context, c *net.TCPConn, role Role, sender netip.Addr) {
	leave := func() {}
	if m.EnterSender != nil {
		var err error
		leave, err = m.EnterSender(sender)
		if err != nil { // its header is not read, so no reply would be in the client's protocol
			m.Log.Info("connection of a sender refused", "client", sender.String(), "err", err, "hint", flow.HintOf(err))
			socket.Abort(c)
			return
		}
	}
	m.handlers.Go(func() {
		defer leave()
		defer flow.CatchTo(func(err error) { m.panicked(c, err) })
		if err := m.readHeader(c, sender); err != nil {
			m.refuseSender(c, role, err)
			return
		}
		m.admitClient(ctx, c, role)
	})
}

// readHeader reads the header of a trusted sender, and introduces the client that it
// names. Drain ends the wait. The error is a *flow.Error.
func (m *Mux) readHeader(c *net.TCPConn, sender netip.Addr) error {
	if !m.addSilent(c) {
		return &flow.Error{
			Class: flow.Canceled,
			Op:    "proxy_protocol",
			Err:   errors.New("the replica is shutting down"),
		}
	}
	defer m.removeSilent(c)
	c.SetReadDeadline(time.Now().Add(cmp.Or(m.HeaderTimeout, defaultHeaderTimeout)))
	client, err := proxyheader.Read(c)
	c.SetReadDeadline(time.Time{})
	if err != nil {
		return err
	}
	// A loopback address is one of the sender's own host: here it would stand for
	// processes of this pod.
	if client.IsValid() && (sender.IsLoopback() || !client.Addr().IsLoopback()) {
		socket.Introduce(c, client)
	}
	return nil
}

// refuseSender ends a connection whose header cannot be used, with why, a *flow.Error.
// The client gets why in its own protocol if the bytes behind the header show which that
// is. It takes c and closes it.
func (m *Mux) refuseSender(c *net.TCPConn, role Role, why error) {
	switch flow.ClassOf(why) {
	case flow.Canceled: // health checks connect and leave
		m.Log.Debug("sender left", "client", c.RemoteAddr().String(), "err", why)
		c.Close()
		return
	case flow.Timeout:
		if m.Silent != nil {
			m.Silent()
		}
	}
	sender := c.RemoteAddr().String()
	if !m.turnAway(c, role, why) { // a front would have logged it
		m.Log.Info("connection of a sender refused", "client", sender, "err", why, "hint", flow.HintOf(why))
	}
}

// unexpectedHeader refuses a connection that begins with a header, although its sender
// is not trusted to send one. It takes c and closes it.
func (m *Mux) unexpectedHeader(c *net.TCPConn, role Role) {
	c.SetReadDeadline(time.Now().Add(m.peekTimeout()))
	proxyheader.Read(c) // whatever it says: behind it, the client's protocol can be seen
	c.SetReadDeadline(time.Time{})
	m.refuseSender(c, role, &flow.Error{
		Class: flow.BadRequest,
		Op:    "proxy_protocol",
		Hint:  "the connection begins with a PROXY header, which this port accepts only from addresses in listen.proxyProtocol: add the sender's address there, or switch the header off at the load balancer",
		Err:   errors.New("a PROXY header of an untrusted sender"),
	})
}
