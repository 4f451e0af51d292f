package tailnet

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"tailscale.com/control/controlclient"
	"tailscale.com/envknob"
	"tailscale.com/ipn/ipnlocal"
	"tailscale.com/net/netmon"
	"tailscale.com/net/netns"
	"tailscale.com/net/tsdial"
	"tailscale.com/tsd"
	"tailscale.com/types/logid"
	"tailscale.com/util/eventbus"
	"tailscale.com/wgengine"
	"tailscale.com/wgengine/netstack"

	"github.com/pandoproxy/pando/internal/tailnet/userspace"
)

// engine holds the parts of the Tailscale engine that a Node drives. Parts that
// could not be made are nil.
type engine struct {
	sys    *tsd.System
	netMon *netmon.Monitor
	dialer *tsdial.Dialer
	lb     *ipnlocal.LocalBackend
	ns     *netstack.Impl
	stack  *userspace.Stack
}

// disableTelemetry switches off what the engine would send to Tailscale. It is
// process-wide.
var disableTelemetry = sync.OnceFunc(func() {
	envknob.SetNoLogsNoSupport()
	// Neither mode needs marked sockets: kernel mode captures only what is
	// bound to the node's own address.
	netns.SetEnabled(false)
})

// startEngine makes the parts of the engine in the order in which they need
// each other, and starts them. On an error the parts that were made are left in
// n for engine.close.
func (n *Node) startEngine() error {
	n.sys = tsd.NewSystem()
	n.dialer = &tsdial.Dialer{Logf: n.logf}
	n.dialer.SetBus(n.sys.Bus.Get())
	eventbus.SubscribeFunc(n.sys.Bus.Get().Client("pando.clock"), n.control.CompareClocks) // ends with the bus
	wg, err := n.startWireGuard()
	if err != nil {
		return err
	}
	if err := n.startNetstack(wg); err != nil {
		wg.Close()
		return err
	}
	n.sys.Set(Store(plainPrefs{n.opts.Store}))
	if n.opts.Mode == Kernel {
		n.sys.Tun.Get().PreFilterPacketOutboundToWireGuardAppConnectorIntercept = n.leftovers.Filter
	}
	n.sys.Tun.Get().Start()
	if err := n.startBackend(); err != nil {
		wg.Close()
		return err
	}
	if n.opts.CacheDir != "" {
		if err := dropEmptyCache(n.opts.CacheDir); err != nil {
			return err
		}
		n.lb.SetVarRoot(n.opts.CacheDir)
	}
	if err := n.ns.Start(n.lb); err != nil {
		return err
	}
	tun := n.sys.Tun.Get()
	tun.PostFilterPacketInboundFromWireGuard = (&userspace.OneFlow{Next: tun.PostFilterPacketInboundFromWireGuard}).Filter
	return nil
}

// startWireGuard starts WireGuard, with a TUN device and a router in kernel mode.
func (n *Node) startWireGuard() (wgengine.Engine, error) {
	conf := wgengine.Config{
		ListenPort:    n.opts.Port,
		Dialer:        n.dialer,
		SetSubsystem:  n.sys.Set,
		ControlKnobs:  n.sys.ControlKnobs(),
		HealthTracker: n.sys.HealthTracker.Get(),
		ExtraRootCAs:  n.sys.ExtraRootCAs,
		Metrics:       n.sys.UserMetricsRegistry(),
		EventBus:      n.sys.Bus.Get(),
	}
	if n.opts.Mode == Kernel {
		if err := n.useKernel(&conf); err != nil {
			return nil, err
		}
	}
	var err error
	n.netMon, err = netmon.New(n.sys.Bus.Get(), n.logf)
	if err != nil {
		return nil, err
	}
	conf.NetMon = n.netMon
	wg, err := wgengine.NewUserspaceEngine(n.logf, conf)
	if err != nil {
		return nil, err
	}
	n.sys.Set(wg)
	n.sys.HealthTracker.Get().SetMetricsRegistry(n.sys.UserMetricsRegistry())
	return wg, nil
}

// startNetstack makes the userspace TCP/IP stack. In kernel mode it serves only
// the routes that this node advertises.
func (n *Node) startNetstack(wg wgengine.Engine) error {
	var err error
	n.ns, err = netstack.Create(n.logf, n.sys.Tun.Get(), wg, n.sys.MagicSock.Get(), n.dialer, n.sys.DNSManager.Get(), n.sys.ProxyMapper())
	if err != nil {
		return fmt.Errorf("netstack: %w", err)
	}
	n.stack, err = userspace.Of(n.ns, n.opts.PeerTimeout)
	if err != nil {
		return err
	}
	if n.opts.Mode == Userspace {
		n.dial = n.stack.Dial
	}
	n.ns.ProcessLocalIPs = n.opts.Mode == Userspace
	n.ns.ProcessSubnets = true // advertised routes end here in both modes: no ip_forward, no SNAT
	n.serve()
	n.sys.Set(n.ns)
	n.sys.NetstackRouter.Set(true)
	n.dialer.UseNetstackForIP = n.Routes
	n.dialer.NetstackDialTCP = n.DialTCP
	n.dialer.NetstackDialUDP = n.DialUDP
	return nil
}

// startBackend makes the part of the engine that talks to the control server.
func (n *Node) startBackend() error {
	flags := controlclient.LocalBackendStartKeyOSNeutral
	if n.opts.Ephemeral {
		flags |= controlclient.LoginEphemeral
	}
	var err error
	n.lb, err = ipnlocal.NewLocalBackend(n.logf, logid.PublicID{}, n.sys, flags)
	if err != nil {
		return err
	}
	n.peers.Backend = n.lb
	n.peers.Sys = n.sys
	return nil
}

// serve decides who serves the flows that peers open to this node and to its
// advertised routes.
//
// Netstack's wrapper takes a routed address off the stack as soon as no handler
// uses it. The bytes that a handler left in a send buffer are then never sent.
// SendFromAny lets endpoints send from an address that the stack has dropped.
func (n *Node) serve() {
	if n.opts.ServeTCP != nil {
		n.stack.SendFromAny()
	}
	n.ns.GetTCPHandlerForFlow = n.inboundTCP
	n.ns.GetUDPHandlerForFlow = n.inboundUDP
}

// closeTime bounds each part of Close that the library might never finish.
const closeTime = 5 * time.Second

// close stops the parts of the engine that were made. It returns an error that
// names each part which did not stop in time. An ephemeral node gets more time,
// because it logs out.
func (e *engine) close(ephemeral bool) error {
	var errs []error
	within := func(what string, d time.Duration, f func()) {
		if err := bounded(d, f); err != nil {
			errs = append(errs, fmt.Errorf("tailnet: close: %s: %w", what, err))
		}
	}
	// The endpoints go first, while the engine still takes their resets:
	// netstack.Impl.Close stops the drain of its 512-packet queue and then
	// waits for ever for more resets than fit.
	if e.stack != nil {
		within("endpoints", closeTime, e.stack.Close)
	}
	if e.ns != nil && e.lb != nil {
		within("netstack", closeTime, func() { e.ns.Close() })
	}
	if e.lb != nil {
		wait := closeTime
		if ephemeral {
			wait += 5 * time.Second // the library's own bound on the logout
		}
		within("engine", wait, e.lb.Shutdown)
	}
	if e.dialer != nil {
		e.dialer.Close()
	}
	if e.netMon != nil {
		e.netMon.Close()
	}
	if e.sys != nil {
		e.sys.Bus.Get().Close()
	}
	return errors.Join(errs...)
}

// bounded runs f and waits for it for d at most. When f takes longer, its
// goroutine is left running and the error says so.
func bounded(d time.Duration, f func()) error {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		return fmt.Errorf("still running after %v", d)
	}
}
