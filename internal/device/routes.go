package device

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// warmTime bounds the warming of the WireGuard sessions: a route whose peer is
// down must not delay the use of the others. It leaves room for a second handshake.
const warmTime = 6 * time.Second

// warmUp makes the first handshakes with the tailnet's routers, and then lets
// requests pass.
func (d *Device) warmUp(ctx context.Context) {
	d.saveDevice()
	if d.secret != nil && d.config.AuthOnce {
		d.secret.DropAuthKey()
	}
	start := time.Now()
	d.handshake(ctx)
	n := d.node.Load()
	d.log.Info("on the tailnet", "name", n.Name(), "addrs", n.Addrs(), "warm_ms", time.Since(start).Milliseconds())
	d.opts.FollowDNS()
	close(d.warm)
}

func (d *Device) handshake(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, warmTime)
	defer cancel()
	if err := d.node.Load().Warm(ctx); err != nil {
		d.log.Warn("some WireGuard sessions are not warm", "err", err)
	}
}

// routeTime bounds the wait for the routes that should exist at the start. A
// subnet router that lost its control server looks for it every half minute.
const routeTime = time.Minute

// awaitRouters waits until there are routes to the private resolvers that the
// tailnet's split DNS names, and warms the WireGuard sessions with routers that
// appeared meanwhile. The tailnet's DNS settings name these resolvers, so their routes
// should exist; a control server that has itself just started may not know yet
// that the subnet router is online. Meanwhile the replica is not ready, but
// serves clients.
func (d *Device) awaitRouters(ctx context.Context) {
	if d.awaitResolvers(ctx) {
		d.handshake(ctx)
	}
	close(d.routed)
}

// awaitResolvers waits for the routes of awaitRouters, at most routeTime. It
// reports whether it had to wait.
func (d *Device) awaitResolvers(ctx context.Context) (waited bool) {
	if !d.usesRoutedDNS() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, routeTime)
	defer cancel()
	for {
		missing := d.findUnrouted()
		switch {
		case !missing.IsValid():
			return waited
		case ctx.Err() != nil:
			d.log.Warn("no peer routes a split-DNS resolver", "resolver", missing.String())
			return waited
		case !waited:
			d.log.Info("waiting for a route to a split-DNS resolver", "resolver", missing.String())
		}
		waited = true
		flow.Sleep(ctx.Done(), 100*time.Millisecond)
	}
}

// usesRoutedDNS reports whether resolvers behind peers' routes are used.
func (d *Device) usesRoutedDNS() bool { return d.config.AcceptRoutes && d.opts.UseDNS }

// findUnrouted returns the resolver of Snapshot.Unrouted for a device that is on its
// tailnet and uses such resolvers.
func (d *Device) findUnrouted() netip.Addr {
	dns, _ := d.DNS()
	return firstUnrouted(dns.Routes, d.Routes)
}

// firstUnrouted returns the lowest private resolver of zones that is not routed,
// or the zero Addr.
func firstUnrouted(zones map[string][]string, routed func(netip.Addr) bool) (first netip.Addr) {
	for _, servers := range zones {
		for _, s := range servers {
			ap, err := dnsclient.ServerAddr(s)
			if err != nil || !ap.Addr().IsPrivate() || routed(ap.Addr()) {
				continue
			}
			if !first.IsValid() || ap.Addr().Less(first) {
				first = ap.Addr()
			}
		}
	}
	return first
}

// Routes reports whether a peer of the tailnet carries a.
func (d *Device) Routes(a netip.Addr) bool {
	n := d.node.Load()
	return n != nil && n.Routes(a)
}

// AwaitRoutes reports for each address whether a peer carries it. When no
// address has a route and one of them lost its route recently, it waits for
// that route for a bounded time.
func (d *Device) AwaitRoutes(ctx context.Context, list []netip.Addr) []bool {
	if n := d.node.Load(); n != nil {
		return n.AwaitRoutes(ctx, list)
	}
	return make([]bool, len(list))
}

// DialTailnet connects to an address that a peer routes. When there is no
// route or no tailnet, the error is a *flow.Error.
func (d *Device) DialTailnet(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	c, err := d.dialTCP(ctx, addr)
	switch {
	case errors.Is(err, tailnet.ErrNoRoute):
		err = &flow.Error{
			Class:  flow.NoRoute,
			Op:     "dial",
			Target: addr.String(),
			Err:    err,
			Hint:   "the route existed a moment ago and is gone; try again, and check the subnet router if it stays so",
		}
	case errors.Is(err, tailnet.ErrNotUp), errors.Is(err, tailnet.ErrWrongTailnet):
		err = &flow.Error{
			Class:  flow.NotReady,
			Op:     "dial",
			Target: addr.String(),
			Err:    err,
			Hint:   hintFor(err, "the replica is no longer on its tailnet; try again"),
		}
	}
	return c, err
}

func (d *Device) dialTCP(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	if n := d.node.Load(); n != nil {
		return n.DialTCP(ctx, addr)
	}
	return nil, d.err()
}

// DialResolver connects to a resolver of the tailnet, only through the tailnet.
// network is "udp" or "tcp", as in net.Dialer.
func (d *Device) DialResolver(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	n := d.node.Load()
	if n == nil {
		return nil, d.err()
	}
	d.awaitRoute(ctx, n, addr.Addr())
	if strings.HasPrefix(network, "udp") {
		return n.DialUDP(ctx, addr)
	}
	return n.DialTCP(ctx, addr)
}

// awaitRoute waits for a route to a resolver: for one that existed a moment
// ago, and just after the start for one that should exist. When it returns
// without a route, the dial reports that.
func (d *Device) awaitRoute(ctx context.Context, n *tailnet.Node, a netip.Addr) {
	routed := n.AwaitRoute(ctx, a)
	for !routed && !d.hasRouted() && ctx.Err() == nil {
		flow.Sleep(ctx.Done(), 50*time.Millisecond)
		routed = n.Routes(a)
	}
}

// DialGlobal connects to a resolver of the tailnet, global or of a split-DNS route:
// through the tailnet when a peer carries its address or should carry it, and otherwise
// directly. An address that is not public always goes through the tailnet: in the pod's
// own network it would be another host. So does one whose route has just disappeared, for
// as long as it is expected back.
func (d *Device) DialGlobal(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	a := addr.Addr()
	if !policy.Public(a) || d.AwaitRoutes(ctx, []netip.Addr{a})[0] {
		return d.DialResolver(ctx, network, addr)
	}
	var direct net.Dialer
	return direct.DialContext(ctx, network, addr.String())
}
