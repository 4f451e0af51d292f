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
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/fleet"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/oauth"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// tailnetDNS is the tailnet's DNS configuration, as far as it is used.
func (g *Gateway) tailnetDNS() (resolve.TailnetDNS, bool) {
	if !g.hasJoined() {
		return resolve.TailnetDNS{}, false
	}
	d, ok := g.node.DNS()
	if !g.cfg.Resolve.Tailnet {
		d = tailnet.DNS{}
	}
	return resolve.TailnetDNS(d), ok
}

// start joins the tailnet and makes the replica ready. Its error ends it.
func (g *Gateway) start(ctx context.Context) error {
	boot, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if t := time.Duration(g.cfg.Tailnet.BootTimeout); t > 0 {
		timer := time.AfterFunc(t, func() { cancel(fmt.Errorf("tailnet.bootTimeout: not on the tailnet after %v", t)) })
		defer timer.Stop()
	}
	err := g.join(boot, g.cfg.Tailnet)
	if err == nil {
		err = g.node.Wait(boot)
	}
	switch {
	case ctx.Err() != nil:
		return nil // stopped before
	case boot.Err() != nil && err != nil:
		return fmt.Errorf("%w: %w", context.Cause(boot), err)
	case err != nil:
		return err
	}
	g.warmUp(ctx)
	return nil
}

// hasJoined reports whether the engine runs; it may still be logging in.
func (g *Gateway) hasJoined() bool {
	select {
	case <-g.joined:
		return true
	default:
		return false
	}
}

// onTailnet reports whether the device is on its tailnet.
func (g *Gateway) onTailnet() bool { return g.hasJoined() && g.node.Up() }

// tailnetErr returns nil while the device is on its tailnet, and otherwise
// what it is waiting for.
func (g *Gateway) tailnetErr() error {
	if !g.hasJoined() {
		return fmt.Errorf("%w: reading the device's state", tailnet.ErrNotUp)
	}
	return g.node.Err()
}

// leave closes what join opened.
func (g *Gateway) leave(ctx context.Context) error {
	if !g.hasJoined() {
		return nil
	}
	err := g.node.Close()
	if g.secret != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		err = errors.Join(err, g.secret.Close(ctx))
	}
	return err
}

// warmTime bounds the warming of the tunnels: a route whose peer is down must
// not keep the others from being used. It leaves room for a second handshake.
const warmTime = 6 * time.Second

// warmUp makes the first handshakes with the tailnet's routers, and lets requests
// pass.
func (g *Gateway) warmUp(ctx context.Context) {
	g.saveDevice()
	if g.secret != nil && g.cfg.Tailnet.AuthOnce {
		g.secret.DropAuthKey()
	}
	start := time.Now()
	g.handshake(ctx)
	g.log.Info("on the tailnet", "name", g.node.Name(), "addrs", g.node.Addrs(), "warm_ms", time.Since(start).Milliseconds())
	g.road.Resolver.Follow() // from here on, so that the first change is one
	close(g.warm)
	if g.awaitResolvers(ctx) {
		g.handshake(ctx) // with those that have come
	}
	close(g.routed)
}

func (g *Gateway) handshake(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, warmTime)
	defer cancel()
	if err := g.node.Warm(ctx); err != nil {
		g.log.Warn("tunnels are not all warm", "err", err)
	}
}

// routeTime bounds the wait for the routes that a replica should find. A
// subnet router looks for a control server that was away every half minute.
const routeTime = time.Minute

// awaitResolvers waits for routes to the private resolvers that the tailnet's
// split DNS names: it means them to be there. A control server that has itself
// just started may not know yet that the subnet router is. It reports whether it
// had to wait. Meanwhile the replica is not ready, but serves who comes.
func (g *Gateway) awaitResolvers(ctx context.Context) (waited bool) {
	if !g.cfg.Tailnet.AcceptRoutes || !g.cfg.Resolve.Tailnet {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, routeTime)
	defer cancel()
	for {
		missing := g.unroutedResolver()
		switch {
		case !missing.IsValid():
			return waited
		case ctx.Err() != nil:
			g.log.Warn("no peer routes a resolver of the tailnet's split DNS", "resolver", missing.String())
			return waited
		case !waited:
			g.log.Info("waiting for a route to a resolver of the tailnet's split DNS", "resolver", missing.String())
		}
		waited = true
		sleep(ctx, 100*time.Millisecond)
	}
}

// awaitRoute waits for a route to a resolver: one that was there a moment ago, and
// just after the start one that should be.
func (g *Gateway) awaitRoute(ctx context.Context, a netip.Addr) {
	for routed := g.node.AwaitRoute(ctx, a); !routed && ctx.Err() == nil; routed = g.node.Routes(a) {
		select {
		case <-g.routed:
			return // without one the dial says so
		default:
			sleep(ctx, 50*time.Millisecond)
		}
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
	select {
	case <-g.joined:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", g.tailnetErr(), ctx.Err())
	}
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
		err = g.tailnetErr()
	}
	if err != nil {
		return &flow.Error{Class: flow.NotReady, Op: "tailnet", Hint: "the gateway is not on its tailnet; try again, and look at its log if it stays so", Err: err}
	}
	return nil
}

// dialTailnet connects to an address that a peer routes.
func (g *Gateway) dialTailnet(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	c, err := g.node.DialTCP(ctx, addr)
	switch {
	case errors.Is(err, tailnet.ErrNoRoute):
		err = &flow.Error{Class: flow.NoRoute, Op: "dial", Target: addr.String(), Err: err, Hint: "the route that there was a moment ago is gone; try again, and look for the subnet router if it stays so"}
	case errors.Is(err, tailnet.ErrNotUp):
		err = &flow.Error{Class: flow.NotReady, Op: "dial", Target: addr.String(), Err: err, Hint: "the gateway is not on its tailnet any more; try again"}
	}
	return c, err
}

func (g *Gateway) queryMagicDNS(ctx context.Context, query []byte) ([]byte, error) {
	return g.node.QueryMagicDNS(ctx, query)
}

// dialResolver connects to a resolver of the tailnet, through the tunnel alone.
func (g *Gateway) dialResolver(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	g.awaitRoute(ctx, addr.Addr())
	if strings.HasPrefix(network, "udp") {
		return g.node.DialUDP(ctx, addr)
	}
	return g.node.DialTCP(ctx, addr)
}

// dialGlobal connects to a global resolver of the tailnet: through the tunnel
// when a peer carries its address, or should, and else directly. A private
// address means another host in the pod's own network.
func (g *Gateway) dialGlobal(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	if a := addr.Addr(); g.node.Routes(a) || !policy.Public(a) {
		return g.dialResolver(ctx, network, addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, addr.String())
}

// followDNS has changes of the tailnet's DNS configuration apply at once, until
// ctx ends. The engine tells nobody of them.
func (g *Gateway) followDNS(ctx context.Context) {
	for t := time.NewTicker(500 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
			g.road.Resolver.Follow()
		}
	}
}

// oauthSecret is what the secrets of OAuth clients begin with. They may stand
// wherever an auth key does, as with the stock client.
const oauthSecret = "tskey-client-"

// join starts the tailnet engine, with the state and the key that it needs. It
// waits for the API server that keeps the state, until ctx ends.
func (g *Gateway) join(ctx context.Context, c config.Tailnet) (err error) {
	o := tailnet.Options{
		Mode: tailnet.Mode(c.Mode), Hostname: c.Hostname, ControlURL: c.ControlURL,
		Tags: c.Tags, Ephemeral: c.Ephemeral, IgnoreRoutes: !c.AcceptRoutes, AdvertiseRoutes: prefixes(c.AdvertiseRoutes),
		PeerTimeout: time.Duration(g.cfg.Tunnel.PeerTimeout),
		ShieldsUp:   c.ShieldsUp && len(c.AdvertiseRoutes) == 0, Port: uint16(c.Port), TUNName: c.TUN, Logger: g.log,
		CacheDir: c.CacheDir,
	}
	switch {
	case c.KubeSecret != "":
		if g.secret, err = fleet.Open(ctx, c.KubeSecret, g.log); err != nil {
			return fmt.Errorf("tailnet.kubeSecret: %w", err)
		}
		o.Store = g.secret
	case c.StateDir != "":
		if o.Store, err = tailnet.DirStore(c.StateDir); err != nil {
			return fmt.Errorf("tailnet.stateDir: %w", err)
		}
		if o.CacheDir == "" {
			o.CacheDir = c.StateDir
		}
	}
	if err := g.setKeys(&o, c); err != nil {
		return err
	}
	if g.node, err = tailnet.Start(ctx, o); err != nil {
		if g.secret != nil {
			err = errors.Join(err, g.secret.Close(ctx))
		}
		return err
	}
	close(g.joined)
	return nil
}

// setKeys says where the engine gets its auth keys. They are read again for
// each login to come: what is mounted may have been renewed, and what has
// served may be gone.
func (g *Gateway) setKeys(o *tailnet.Options, c config.Tailnet) error {
	client, err := c.ReadClientSecret()
	if err != nil {
		return err
	}
	key, err := g.authKey(c)
	if strings.HasPrefix(key, oauthSecret) {
		client = config.Secret(key)
	}
	switch {
	case client == "" && key == "" && err == nil: // a person logs in
		return nil
	case client == "":
		o.NextKey = func(context.Context) (string, error) {
			key, err := g.authKey(c)
			if err == nil && key == "" {
				err = errors.New("a login is needed, and there is no auth key: set tailnet.authKeyFile")
			}
			return key, err
		}
		if err == nil { // else the next login says so, if there has to be one
			o.AuthKey = key
		}
		return nil
	}
	if len(c.Tags) == 0 {
		return errors.New("tailnet.tags: an OAuth client mints keys for tags alone; give at least one, such as tag:k8s")
	}
	minter, err := oauth.New(client.Reveal(), c.Tags)
	if err != nil {
		return fmt.Errorf("tailnet.clientSecret: %w", err)
	}
	o.NextKey = minter.Mint
	return nil
}

// authKey reads the auth key from where it is kept; empty means none.
func (g *Gateway) authKey(c config.Tailnet) (string, error) {
	key, err := c.ReadAuthKey()
	if err == nil && key == "" && g.secret != nil {
		return g.secret.AuthKey(), nil
	}
	return key.Reveal(), err
}
