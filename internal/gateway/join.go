package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/fleet"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// tailnetDNS is the tailnet's DNS configuration, as far as it is used.
func (g *Gateway) tailnetDNS() (resolve.TailnetDNS, bool) {
	d, ok := g.node.DNS()
	if !g.cfg.Resolve.Tailnet {
		d = tailnet.DNS{}
	}
	return resolve.TailnetDNS(d), ok
}

// warmTime bounds the warming of the tunnels: a route whose peer is down must
// not keep the others from being used. It leaves room for a second handshake.
const warmTime = 6 * time.Second

// warmUp waits for the tailnet and makes its first handshakes. Its error ends
// the replica.
func (g *Gateway) warmUp(ctx context.Context) error {
	if t := time.Duration(g.cfg.Tailnet.BootTimeout); t > 0 {
		boot, cancel := context.WithTimeout(ctx, t)
		defer cancel()
		if err := g.node.Wait(boot); err != nil && ctx.Err() == nil {
			return fmt.Errorf("tailnet.bootTimeout: not on the tailnet after %v: %w", t, err)
		}
	}
	if g.node.Wait(ctx) != nil {
		return nil // stopped before
	}
	if g.secret != nil {
		g.secret.SetDevice(g.node.ID(), g.node.Name()+".", g.node.Addrs())
		if g.cfg.Tailnet.AuthOnce {
			g.secret.DropAuthKey()
		}
	}
	start := time.Now()
	g.awaitResolvers(ctx)
	ctx, cancel := context.WithTimeout(ctx, warmTime)
	defer cancel()
	if err := g.node.Warm(ctx); err != nil {
		g.log.Warn("tunnels are not all warm", "err", err)
	}
	g.log.Info("on the tailnet", "name", g.node.Name(), "addrs", g.node.Addrs(), "warm_ms", time.Since(start).Milliseconds())
	close(g.warm)
	return nil
}

// routeTime bounds the wait for the routes that a replica should find. A
// subnet router looks for a control server that was away every half minute.
const routeTime = time.Minute

// awaitResolvers waits for routes to the private resolvers that the tailnet's
// split DNS names: it means them to be there. A control server that has itself
// just started may not know yet that the subnet router is.
func (g *Gateway) awaitResolvers(ctx context.Context) {
	if !g.cfg.Tailnet.AcceptRoutes || !g.cfg.Resolve.Tailnet {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, routeTime)
	defer cancel()
	for missing := g.unroutedResolver(); missing.IsValid(); missing = g.unroutedResolver() {
		if ctx.Err() != nil {
			g.log.Warn("no peer routes a resolver of the tailnet's split DNS", "resolver", missing.String())
			return
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// unroutedResolver returns a private resolver of the tailnet that no peer
// routes; the zero Addr when there is none.
func (g *Gateway) unroutedResolver() netip.Addr {
	d, _ := g.node.DNS()
	for _, servers := range d.Routes {
		for _, s := range servers {
			ap, err := resolve.ServerAddr(s)
			if err == nil && ap.Addr().IsPrivate() && !g.node.Routes(ap.Addr()) {
				return ap.Addr()
			}
		}
	}
	return netip.Addr{}
}

// Wait returns nil once the replica is on its tailnet with warm tunnels, while
// it runs. The error says what it is waiting for.
func (g *Gateway) Wait(ctx context.Context) error {
	if err := g.node.Wait(ctx); err != nil {
		return err
	}
	select {
	case <-g.warm:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("warming tunnels: %w", ctx.Err())
	}
}

// ready lets a request wait for the tailnet, for a bounded time.
func (g *Gateway) ready(ctx context.Context) error {
	var err error
	select {
	case <-g.warm:
	default:
		wait, cancel := context.WithTimeout(ctx, time.Duration(g.cfg.Tailnet.StartTimeout))
		err = g.Wait(wait)
		cancel()
	}
	if err == nil {
		err = g.node.Err()
	}
	if err != nil {
		return &flow.Error{Class: flow.NotReady, Op: "tailnet", Hint: "the gateway is not on its tailnet; try again, and look at its log if it stays so", Err: err}
	}
	return nil
}

// dialResolver connects to a resolver of the tailnet, through the tunnel alone.
func (g *Gateway) dialResolver(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	g.node.AwaitRoute(ctx, addr.Addr()) // without one the dial says so
	if strings.HasPrefix(network, "udp") {
		return g.node.DialUDP(ctx, addr)
	}
	return g.node.DialTCP(ctx, addr)
}

// oauthSecret is what the secrets of OAuth clients begin with. They may stand
// wherever an auth key does, as with the stock client.
const oauthSecret = "tskey-client-"

// join starts the tailnet engine, with the state and the key that it needs.
func (g *Gateway) join(ctx context.Context, c config.Tailnet) (*tailnet.Node, error) {
	key, err := c.ReadAuthKey()
	if err != nil {
		return nil, err
	}
	o := tailnet.Options{
		Mode: tailnet.Mode(c.Mode), Hostname: c.Hostname, ControlURL: c.ControlURL, AuthKey: key.Reveal(),
		Tags: c.Tags, Ephemeral: c.Ephemeral, IgnoreRoutes: !c.AcceptRoutes, AdvertiseRoutes: prefixes(c.AdvertiseRoutes),
		ShieldsUp: c.ShieldsUp && len(c.AdvertiseRoutes) == 0, Port: uint16(c.Port), TUNName: c.TUN, Logger: g.log,
	}
	client, err := c.ReadClientSecret()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(o.AuthKey, oauthSecret) {
		client, o.AuthKey = key, ""
	}
	if client != "" {
		if len(c.Tags) == 0 {
			return nil, errors.New("tailnet.tags: an OAuth client mints keys for tags alone; give at least one, such as tag:k8s")
		}
		oauth, err := tailnet.NewOAuthClient(client.Reveal(), c.Tags)
		if err != nil {
			return nil, fmt.Errorf("tailnet.clientSecret: %w", err)
		}
		o.MintKey = oauth.Mint
	}
	switch {
	case c.KubeSecret != "":
		if g.secret, err = fleet.Open(ctx, c.KubeSecret, g.log); err != nil {
			return nil, fmt.Errorf("tailnet.kubeSecret: %w", err)
		}
		o.Store = g.secret
		if o.AuthKey == "" && o.MintKey == nil {
			o.AuthKey = g.secret.AuthKey()
		}
	case c.StateDir != "":
		if o.Store, err = tailnet.DirStore(c.StateDir); err != nil {
			return nil, fmt.Errorf("tailnet.stateDir: %w", err)
		}
	}
	return tailnet.Start(ctx, o)
}
