// Package tailnet joins a tailnet from inside this process. It runs the
// Tailscale engine, in userspace or with a kernel TUN device, behind one type,
// Node. With the packages in its folder it is the only product code that drives
// the engine.
//
// A Node dials addresses, not names, and only addresses that a peer routes. It
// refuses all others and never sends them to the host's network. It never
// changes /etc/resolv.conf, the firewall or a sysctl.
//
// Call Start, then Wait until the node is up, then Warm, then DialTCP and
// DialUDP. Call Close at the end.
package tailnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"tailscale.com/ipn"
	"tailscale.com/types/preftype"

	"github.com/pandoproxy/pando/internal/podproxy"
	"github.com/pandoproxy/pando/internal/tailnet/control"
	"github.com/pandoproxy/pando/internal/tailnet/inbound"
	"github.com/pandoproxy/pando/internal/tailnet/session"
)

// Mode says where the tailnet's TCP/IP runs.
type Mode string

const (
	// Userspace runs TCP/IP inside this process and needs no privilege.
	Userspace Mode = "userspace"
	// Kernel uses a TUN device. It needs Linux and CAP_NET_ADMIN.
	Kernel Mode = "kernel"
)

// DefaultControlURL is the control server used when Options names none.
const DefaultControlURL = "https://controlplane.tailscale.com"

// ErrNoRoute means that no peer of the tailnet routes the address.
var ErrNoRoute = errors.New("no peer of the tailnet routes this address")

// ErrNotUp means that the node has not joined the tailnet yet, or was logged out.
var ErrNotUp = errors.New("the tailnet is not up")

// Options says which tailnet to join, and how. The zero value joins Tailscale's
// own tailnet service in userspace mode, with a device named after the host and
// state in memory. That needs a login by a person.
type Options struct {
	// Mode is Userspace or Kernel. Empty means Userspace.
	Mode Mode

	// Hostname is the name of the device. Empty means the host's name.
	Hostname string

	// ControlURL is the control server. Empty means DefaultControlURL.
	ControlURL string

	// AuthKey logs the device in when Store holds no login.
	AuthKey string

	// NextKey returns an auth key. It is called whenever a login is needed and
	// AuthKey is empty, was refused or was already used, for example when the
	// device's own key has expired. While the login fails it is called again
	// after 1 s, 2 s, and so on up to a minute. Nil means that such a login
	// waits for a person.
	NextKey func(context.Context) (string, error)

	// Tags are the tags to ask for, in the form "tag:name".
	Tags []string

	// Ephemeral logs the device out at Close. The control server also deletes
	// the device once it is offline.
	Ephemeral bool

	// Expect is the MagicDNS suffix of the tailnet that the node must be in, such as
	// tail1234.ts.net. In another tailnet it carries nothing, see ErrWrongTailnet. Empty
	// means any tailnet.
	Expect string

	// IgnoreRoutes leaves out the subnet routes of peers: only the peers'
	// own addresses can be reached.
	IgnoreRoutes bool

	// AdvertiseRoutes are the prefixes that this node offers to carry.
	AdvertiseRoutes []netip.Prefix

	// ShieldsUp refuses connections that peers open to this node. Without it
	// they reach whatever listens on the host. In userspace mode they come from
	// socket.ForwardedSource, and socket.ClientAddr returns the peer.
	ShieldsUp bool

	// ServeTCP and ServeUDP, if not nil, are called for each flow that a peer
	// opens to an advertised route, before it is forwarded to the host's network.
	// If intercept is false the flow is forwarded. If it is true the handler
	// serves the flow in this process, and a nil handler refuses it.
	// A TCP handler closes the connection and returns only after that: when it
	// returns, the engine forgets the address dst.
	ServeTCP func(src, dst netip.AddrPort) (handler func(net.Conn), intercept bool)
	ServeUDP func(src, dst netip.AddrPort) (handler func(net.Conn), intercept bool)

	// PeerTimeout ends a connection whose target has acknowledged nothing for
	// this long, and an idle one whose target does not answer keep-alives. Zero
	// means the defaults of the TCP stacks, which are minutes.
	PeerTimeout time.Duration

	// CacheDir is a directory where the engine keeps the last network map, and
	// from which it starts if the control server grants that. Empty means none.
	CacheDir string

	// Store keeps the login between runs. Nil means in memory: a new device at
	// each start.
	Store Store

	// Port is the engine's UDP port. Zero means any.
	Port uint16

	// TUNName is the name of the device in kernel mode. Empty means "tailscale0".
	TUNName string

	// Proxy is the HTTP proxy on the way to the control server and to the relays; no
	// connection to a peer or a target uses it. The engine knows one for the whole
	// process, that of the Node which was started last. Nil leaves it as it is.
	Proxy *podproxy.Proxy

	// Logger gets the node's messages. The engine's own messages are at debug
	// level. Nil discards all of them.
	Logger *slog.Logger
}

// withDefaults returns o with the defaults in place of empty fields.
func (o Options) withDefaults() Options {
	if o.Mode == "" {
		o.Mode = Userspace
	}
	if o.ControlURL == "" {
		o.ControlURL = DefaultControlURL
	}
	if o.TUNName == "" {
		o.TUNName = "tailscale0"
	}
	if o.Store == nil {
		o.Store = MemoryStore()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// prefs returns the engine's preferences for o.
func (o Options) prefs() *ipn.Prefs {
	prefs := ipn.NewPrefs()
	prefs.WantRunning = true
	prefs.ControlURL = o.ControlURL
	prefs.Hostname = o.Hostname
	prefs.AdvertiseTags = o.Tags
	prefs.AdvertiseRoutes = o.AdvertiseRoutes
	prefs.RouteAll = !o.IgnoreRoutes
	prefs.CorpDNS = true
	prefs.ShieldsUp = o.ShieldsUp
	prefs.NetfilterMode = preftype.NetfilterOff
	return prefs
}

// A Node is one device on a tailnet. Its methods may be called concurrently.
type Node struct {
	engine
	opts      Options
	log       *slog.Logger
	dial      dialFunc          // opens a TCP connection in the node's mode
	leftovers session.Leftovers // used in kernel mode

	login    *control.Login
	control  control.Server
	peers    session.Peers
	sessions *session.Checker
	routed   *lru.Cache[netip.Addr, time.Time] // when an address was last seen routed
	status   statusCache
	nodes    nodeNames

	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	workers sync.WaitGroup // the goroutines that end with ctx
	host    inbound.Host   // for peers, in userspace mode
}

// Start starts the engine and the login, and does not wait for the login. The
// Node runs until Close. Only the values of ctx are used: the end of ctx does not
// stop the node.
func Start(ctx context.Context, opts Options) (*Node, error) {
	opts = opts.withDefaults()
	disableTelemetry()
	useProxy(opts.Proxy)
	n := &Node{opts: opts, log: opts.Logger}
	var err error
	n.routed, err = lru.New[netip.Addr, time.Time](routesKept)
	if err != nil {
		return nil, err
	}
	n.login = control.NewLogin()
	n.sessions = session.NewChecker(&n.peers, n.log)
	n.ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	n.host.Ctx = n.ctx
	n.host.Log = n.log
	if err := n.startEngine(); err != nil {
		n.stop()
		return nil, errors.Join(fmt.Errorf("tailnet: %s mode: %w", opts.Mode, err), n.engine.close(opts.Ephemeral))
	}
	n.login.Backend = n.lb
	n.login.Health = n.sys.HealthTracker.Get()
	n.login.Log = n.log
	n.login.Prefs = opts.prefs()
	n.login.AuthKey = opts.AuthKey
	n.login.NextKey = opts.NextKey
	n.workers.Go(func() { n.login.Watch(n.ctx) })
	n.workers.Go(func() { n.login.LogUntilUp(n.ctx) })
	n.workers.Go(func() { n.sessions.Run(n.ctx) })
	n.workers.Go(func() { n.control.Watch(n.ctx, n.sys.HealthTracker.Get()) })
	if err := n.login.Start(n.ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("tailnet: login: %w", err), n.Close())
	}
	return n, nil
}

// Wait returns nil once the node has been up. When ctx ends first, it returns
// ErrNotUp with what the login waits for and the error of ctx.
func (n *Node) Wait(ctx context.Context) error {
	select {
	case <-n.login.Up():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %s: %w", ErrNotUp, n.login.WaitsFor(), ctx.Err())
	}
}

// Up reports whether the node is on the tailnet now. It stays true while the
// control server is away.
func (n *Node) Up() bool { return n.peers.Running() }

// Err returns nil while the node is up and in the right tailnet. Otherwise it returns
// ErrNotUp with what the login waits for, or ErrWrongTailnet.
func (n *Node) Err() error {
	if n.Up() {
		return n.checkTailnet()
	}
	return fmt.Errorf("%w: %s", ErrNotUp, n.login.WaitsFor())
}

// Addrs returns the node's own tailnet addresses, IPv4 first. It returns none
// before the node is up.
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
// trailing dot. It is empty before the node is up.
func (n *Node) Name() string {
	nm := n.lb.NetMapNoPeers()
	if nm == nil || !nm.SelfNode.Valid() {
		return ""
	}
	return trimDot(nm.SelfNode.Name())
}

// ID returns the control server's name for this device. It stays the same as
// long as the login does, and is empty before the node is up.
func (n *Node) ID() string {
	nm := n.lb.NetMapNoPeers()
	if nm == nil || !nm.SelfNode.Valid() {
		return ""
	}
	return string(nm.SelfNode.StableID())
}

// Warm makes a WireGuard handshake with every peer that is online and carries a
// route, so that the first connection through each does not wait for one. It
// returns nil when all peers have answered. When ctx ends first, the error names a
// peer that did not answer. Call it once, after the node is up; before that it
// returns ErrNotUp.
func (n *Node) Warm(ctx context.Context) error {
	if !n.Up() {
		return ErrNotUp
	}
	defer n.leftovers.Release()
	return n.peers.Warm(ctx, n.log)
}

// ResetSession discards the WireGuard session with the peer that carries addr.
// The next packet to that peer starts a new session. Without such a peer it does
// nothing.
func (n *Node) ResetSession(addr netip.Addr) { n.peers.Reset(addr) }

// SessionsMended returns how many sessions were replaced because the peer had
// lost its side.
func (n *Node) SessionsMended() int64 { return n.sessions.Mended() }

// Close leaves the tailnet. It ends every connection of the userspace stack,
// stops the engine and waits for it, and logs out if the node is ephemeral.
// Connections in kernel mode belong to the kernel: the caller closes them first.
// If a part does not stop in time, Close returns an error that names it. The
// node cannot be used after Close in any case.
func (n *Node) Close() error {
	n.stop()
	n.workers.Wait()
	defer dropProxy(n.opts.Proxy)
	return n.engine.close(n.opts.Ephemeral)
}

// logf is the engine's log function.
func (n *Node) logf(format string, args ...any) {
	if n.log.Enabled(n.ctx, slog.LevelDebug) {
		n.log.Debug("engine", "text", fmt.Sprintf(format, args...))
	}
}
