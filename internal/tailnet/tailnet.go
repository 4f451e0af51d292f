// Package tailnet joins a tailnet from inside this process: the Tailscale
// engine, in userspace or with a kernel TUN device, behind one type, Node. It
// is, with its two inner rooms, where the engine is imported.
//
// A Node dials addresses, never names, and only addresses that a peer routes:
// what it can't carry it refuses, and never hands to the host's network. It
// never touches /etc/resolv.conf, the firewall or a sysctl.
//
// The order of things: Start, Wait until it is up, DialTCP and DialUDP, Close.
package tailnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"tailscale.com/control/controlclient"
	"tailscale.com/envknob"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnlocal"
	"tailscale.com/net/netmon"
	"tailscale.com/net/netns"
	"tailscale.com/net/tsdial"
	"tailscale.com/tsd"
	"tailscale.com/types/logid"
	"tailscale.com/types/nettype"
	"tailscale.com/util/eventbus"
	"tailscale.com/wgengine"
	"tailscale.com/wgengine/netstack"

	"github.com/pandoproxy/pando/internal/tailnet/userspace"
)

// Mode says where the tailnet's TCP/IP runs.
type Mode string

const (
	// Userspace runs TCP/IP inside this process and needs no privilege.
	Userspace Mode = "userspace"
	// Kernel uses a TUN device; it needs CAP_NET_ADMIN and Linux.
	Kernel Mode = "kernel"
)

// DefaultControlURL is the coordination server used when Options names none.
const DefaultControlURL = "https://controlplane.tailscale.com"

// ErrNoRoute says that no peer of the tailnet routes the address.
var ErrNoRoute = errors.New("no peer of the tailnet routes this address")

// ErrNotUp says that the node has not joined the tailnet yet, or was logged out.
var ErrNotUp = errors.New("the tailnet is not up")

// Options says which tailnet to join, and how. The zero value joins
// Tailscale's own with a device named after the host, in userspace, with state
// kept in memory; it will need a login.
type Options struct {
	Mode       Mode   // empty means Userspace
	Hostname   string // device name; empty means the host's name
	ControlURL string // empty means DefaultControlURL
	AuthKey    string // used only when the state holds no login
	// NextKey is asked for an auth key whenever a login is needed and AuthKey
	// is empty, was refused, or has served: when the device's own key has
	// expired, say. It is asked again, ever more slowly, while no login comes
	// of it. Nil means that such a login waits for a person.
	NextKey   func(context.Context) (string, error)
	Tags      []string // "tag:name" each
	Ephemeral bool     // log out at Close, and be forgotten when unseen

	// IgnoreRoutes leaves out the subnet routes of peers: only the peers
	// themselves can be reached.
	IgnoreRoutes bool

	// AdvertiseRoutes are prefixes that this node offers to carry.
	AdvertiseRoutes []netip.Prefix

	// ShieldsUp refuses what peers open towards this node. Without it, they
	// reach whatever listens on the host's loopback.
	ShieldsUp bool

	// ServeTCP and ServeUDP, when set, see each flow that peers open towards
	// the advertised routes before it is forwarded to the host's network. With
	// a handler the flow ends in this process; with nil and true it is refused;
	// with false it is forwarded. A TCP handler closes the connection and must
	// not return before: the engine forgets the address dst when it does.
	ServeTCP func(src, dst netip.AddrPort) (handler func(net.Conn), intercept bool)
	ServeUDP func(src, dst netip.AddrPort) (handler func(net.Conn), intercept bool)

	// PeerTimeout ends a connection whose target has acknowledged nothing for so
	// long, and an idle one whose target answers no keep-alive. Zero means the
	// stacks' own times: minutes.
	PeerTimeout time.Duration

	// CacheDir is a directory for the last network map, which the engine keeps
	// and starts from if the control server grants it. Empty means none.
	CacheDir string

	Store   Store        // where the login is kept; nil means in memory, a new device at each start
	Port    uint16       // UDP port of the engine; 0 means any
	TUNName string       // kernel mode; empty means "tailscale0"
	Logger  *slog.Logger // nil discards; the engine's own chatter is at debug level
}

// A Node is one device on a tailnet. Its methods may be called at the same time.
type Node struct {
	opts   Options
	log    *slog.Logger
	sys    *tsd.System
	netMon *netmon.Monitor
	dialer *tsdial.Dialer
	lb     *ipnlocal.LocalBackend
	ns     *netstack.Impl
	stack  *userspace.Stack

	dial          dialFunc    // how this mode opens a TCP connection
	holdLeftovers bool        // whether the kernel may hold connections of a predecessor
	spoken        atomic.Bool // set by Warm or the first connection: leftovers may go out

	ctx         context.Context // ends with Close
	stop        context.CancelFunc
	watchDone   chan struct{}
	up          chan struct{} // closed when the node is first running
	upOnce      sync.Once
	routed      *lru.Cache[netip.Addr, time.Time] // when addresses were last seen routed
	reloggingIn atomic.Bool                       // a relogin runs
	workers     sync.WaitGroup                    // its goroutine, and lookAfter's
	loginErr    atomic.Pointer[string]            // the last error that the control server or the engine gave
	loginURL    atomic.Pointer[string]

	clockAhead     atomic.Pointer[time.Duration] // the control server's clock before ours
	control        atomic.Bool                   // the control server was there when watchControl looked
	controlBack    atomic.Pointer[time.Time]     // when we were last back at the control server; nil means never
	suspects       chan netip.Addr
	sessionsMended atomic.Int64

	statusMu sync.Mutex
	status   Status // as it was at statusAt
	statusAt time.Time
}

// Start brings up the engine and begins to log in; it doesn't wait for the
// login. The Node runs until Close: ctx lends it values alone.
func Start(ctx context.Context, opts Options) (_ *Node, err error) {
	if opts.Mode == "" {
		opts.Mode = Userspace
	}
	if opts.ControlURL == "" {
		opts.ControlURL = DefaultControlURL
	}
	if opts.TUNName == "" {
		opts.TUNName = "tailscale0"
	}
	if opts.Store == nil {
		opts.Store = MemoryStore()
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	quiet()

	n := &Node{opts: opts, log: opts.Logger, up: make(chan struct{}), watchDone: make(chan struct{}), suspects: make(chan netip.Addr, checksAtAll)}
	if n.routed, err = lru.New[netip.Addr, time.Time](routesKept); err != nil {
		return nil, err
	}
	n.ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.startEngine(); err != nil {
		n.stop()
		return nil, errors.Join(fmt.Errorf("tailnet: %s mode: %w", opts.Mode, err), n.closeEngine())
	}
	go n.watch()
	n.workers.Go(n.lookAfter)
	n.workers.Go(n.watchControl)
	n.workers.Go(n.sayWhy)
	if err := n.login(); err != nil {
		return nil, errors.Join(fmt.Errorf("tailnet: login: %w", err), n.Close())
	}
	return n, nil
}

// quiet switches off what the engine would send home. It is process-wide.
var quiet = sync.OnceFunc(func() {
	envknob.SetNoLogsNoSupport()
	// Neither mode needs marked sockets: kernel mode captures only what is
	// bound to the node's own address.
	netns.SetEnabled(false)
})

func (n *Node) startEngine() error {
	logf := n.logf
	sys := tsd.NewSystem()
	n.sys = sys
	n.dialer = &tsdial.Dialer{Logf: logf}
	n.dialer.SetBus(sys.Bus.Get())
	eventbus.SubscribeFunc(sys.Bus.Get().Client("pando.clock"), n.noteClock) // ends with the bus
	conf := wgengine.Config{
		ListenPort:    n.opts.Port,
		Dialer:        n.dialer,
		SetSubsystem:  sys.Set,
		ControlKnobs:  sys.ControlKnobs(),
		HealthTracker: sys.HealthTracker.Get(),
		ExtraRootCAs:  sys.ExtraRootCAs,
		Metrics:       sys.UserMetricsRegistry(),
		EventBus:      sys.Bus.Get(),
	}
	if n.opts.Mode == Kernel {
		if err := n.useKernel(&conf); err != nil {
			return err
		}
	}
	var err error
	if n.netMon, err = netmon.New(sys.Bus.Get(), logf); err != nil {
		return err
	}
	conf.NetMon = n.netMon
	eng, err := wgengine.NewUserspaceEngine(logf, conf)
	if err != nil {
		return err
	}
	sys.Set(eng)
	sys.HealthTracker.Get().SetMetricsRegistry(sys.UserMetricsRegistry())

	n.ns, err = netstack.Create(logf, sys.Tun.Get(), eng, sys.MagicSock.Get(), n.dialer, sys.DNSManager.Get(), sys.ProxyMapper())
	if err != nil {
		eng.Close()
		return fmt.Errorf("netstack: %w", err)
	}
	if n.stack, err = userspace.Of(n.ns, n.opts.PeerTimeout); err != nil {
		eng.Close()
		return err
	}
	if n.opts.Mode == Userspace {
		n.dial = n.stack.Dial
	}
	n.ns.ProcessLocalIPs = n.opts.Mode == Userspace
	n.ns.ProcessSubnets = true // advertised routes end here in both modes: no ip_forward, no SNAT
	n.serve()
	sys.Set(n.ns)
	sys.NetstackRouter.Set(true)
	n.dialer.UseNetstackForIP = n.routes
	n.dialer.NetstackDialTCP = n.DialTCP
	n.dialer.NetstackDialUDP = n.DialUDP
	sys.Set(Store(plainPrefs{n.opts.Store}))
	if n.holdLeftovers {
		sys.Tun.Get().PreFilterPacketOutboundToWireGuardAppConnectorIntercept = n.dropLeftovers
	}
	sys.Tun.Get().Start()

	flags := controlclient.LocalBackendStartKeyOSNeutral
	if n.opts.Ephemeral {
		flags |= controlclient.LoginEphemeral
	}
	if n.lb, err = ipnlocal.NewLocalBackend(logf, logid.PublicID{}, sys, flags); err != nil {
		eng.Close()
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
	tun := sys.Tun.Get()
	tun.PostFilterPacketInboundFromWireGuard = (&oneFlow{next: tun.PostFilterPacketInboundFromWireGuard}).filter
	return nil
}

// serve installs the in-process handlers for the advertised routes.
//
// Netstack's wrapper takes a routed address off the stack as soon as no
// handler uses it, and the bytes that a handler left in a send buffer then
// never leave; spoofing lets endpoints go on sending from an address that has
// expired.
func (n *Node) serve() {
	if n.opts.ServeTCP != nil {
		n.stack.SendFromAny()
	}
	n.ns.GetTCPHandlerForFlow = n.opts.ServeTCP
	if h := n.opts.ServeUDP; h != nil {
		n.ns.GetUDPHandlerForFlow = func(src, dst netip.AddrPort) (func(nettype.ConnPacketConn), bool) {
			handler, ok := h(src, dst)
			if handler == nil {
				return nil, ok
			}
			return func(c nettype.ConnPacketConn) { handler(c) }, ok
		}
	}
}

// Wait returns nil once the node has been up. When ctx ends first, the error
// says what the login is waiting for.
func (n *Node) Wait(ctx context.Context) error {
	select {
	case <-n.up:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %s: %w", ErrNotUp, n.waitsFor(), ctx.Err())
	}
}

// Up reports whether the node is on the tailnet now. It stays true while the
// control server is away.
func (n *Node) Up() bool { return n.lb.State() == ipn.Running }

// Err returns nil while the node is up, and otherwise ErrNotUp with what it is
// waiting for.
func (n *Node) Err() error {
	if n.Up() {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrNotUp, n.waitsFor())
}

// Addrs returns the node's own tailnet addresses; none before it is up.
func (n *Node) Addrs() []netip.Addr {
	nm := n.lb.NetMapNoPeers()
	if nm == nil || !nm.SelfNode.Valid() {
		return nil
	}
	var addrs []netip.Addr
	for _, p := range nm.SelfNode.Addresses().All() {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// Name returns the node's name on the tailnet, fully qualified and without a
// trailing dot; empty before it is up.
func (n *Node) Name() string {
	nm := n.lb.NetMapNoPeers()
	if nm == nil || !nm.SelfNode.Valid() {
		return ""
	}
	return trimDot(nm.SelfNode.Name())
}

// ID returns the control server's name for this device, which stays the same
// as long as its login; empty before it is up.
func (n *Node) ID() string {
	nm := n.lb.NetMapNoPeers()
	if nm == nil || !nm.SelfNode.Valid() {
		return ""
	}
	return string(nm.SelfNode.StableID())
}

// logf is the engine's log function.
func (n *Node) logf(format string, args ...any) {
	if n.log.Enabled(n.ctx, slog.LevelDebug) {
		n.log.Debug("engine", "msg", fmt.Sprintf(format, args...))
	}
}
