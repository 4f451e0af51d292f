// Package device is the replica's device on the tailnet: the tailnet engine,
// and the Kubernetes Secret or the directory that keeps its state. All methods
// may be called before the device has joined its tailnet; they then report that
// it has not. The package does not judge addresses for clients and does not
// resolve names.
//
// The order of things: New; Run, which joins and stays until its context ends;
// Close, after Run has returned.
package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/fleet"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/podproxy"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// Options say which tailnet to join, and how.
type Options struct {
	// Config is the valid section tailnet of the configuration.
	Config config.Tailnet
	// PeerTimeout is that of tailnet.Options.
	PeerTimeout time.Duration
	// UseDNS says that the tailnet's DNS configuration is used. Without it, DNS
	// returns an empty configuration, and Run waits for no resolver's route.
	UseDNS bool
	// FollowDNS applies changes of DNS. The engine does not report them, so Run
	// calls FollowDNS again and again: first when the device is on its tailnet,
	// before Ready lets a request pass. Nil is allowed.
	FollowDNS func()
	// Proxy is how the device reaches the control server, the relays and the OAuth
	// service. Run keeps what it knows of the own fleet up to date. Nil means no proxy.
	Proxy *podproxy.Proxy
	Log   *slog.Logger // nil discards
}

// Device is one device. Its methods may be called at the same time, except
// Close.
type Device struct {
	opts   Options
	config config.Tailnet
	log    *slog.Logger

	secret *fleet.Secret                // set by Run before node; nil without a Kubernetes Secret
	node   atomic.Pointer[tailnet.Node] // nil until the engine runs; it may still be logging in

	warm   chan struct{} // closed when the device is on its tailnet and its WireGuard sessions are warm
	routed chan struct{} // closed after warm, when Run has stopped waiting for routes
}

// New returns a device that has not joined. It starts nothing.
func New(opts Options) *Device {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.FollowDNS == nil {
		opts.FollowDNS = func() {}
	}
	return &Device{
		opts:   opts,
		config: opts.Config,
		log:    opts.Log,
		warm:   make(chan struct{}),
		routed: make(chan struct{}),
	}
}

// Run joins the tailnet, warms the WireGuard sessions, and then follows the
// tailnet's DNS configuration, keeps the device's entry in its Secret up to date and
// warns before its key expires, until ctx ends. In another tailnet than the expected
// one it goes no further until that changes. It returns nil when ctx has ended,
// and otherwise why the device could not join.
func (d *Device) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var untilEnd sync.WaitGroup
	defer untilEnd.Wait()
	d.opts.Proxy.Check(ctx)
	untilEnd.Go(func() { d.opts.Proxy.Follow(ctx) })
	if err := d.start(ctx); err != nil || ctx.Err() != nil {
		stop()
		return err
	}
	d.warmUp(ctx)
	// There is nothing to follow before: until the sessions are warm, Ready lets no
	// lookup pass, so no answer is cached that a change could make wrong, and warmUp
	// has followed the configuration once. It has saved the device, too.
	untilEnd.Go(func() { d.followDNS(ctx) })
	untilEnd.Go(func() { d.upkeep(ctx) })
	untilEnd.Go(func() { d.watchExpected(ctx) })
	d.awaitRouters(ctx)
	return nil
}

// start joins the tailnet and waits until the device is on it. It returns nil
// when ctx has ended.
func (d *Device) start(ctx context.Context) error {
	boot, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if t := time.Duration(d.config.BootTimeout); t > 0 {
		timer := time.AfterFunc(t, func() { cancel(fmt.Errorf("tailnet.bootTimeout: not on the tailnet after %v", t)) })
		defer timer.Stop()
	}
	err := d.join(boot)
	if err == nil {
		err = d.node.Load().Wait(boot)
	}
	if err == nil {
		err = d.awaitExpected(boot)
	}
	switch {
	case ctx.Err() != nil:
		return nil // stopped before it had joined
	case boot.Err() != nil && err != nil:
		return fmt.Errorf("%w: %w", context.Cause(boot), err)
	}
	return err
}

// secretTime bounds the last write to the Secret.
const secretTime = 2 * time.Second

// Close leaves the tailnet and saves what the Secret lacks. It closes all that
// Run has opened, whether the device has joined or not. Call it when Run has
// returned. Only ctx's values are used.
func (d *Device) Close(ctx context.Context) error {
	var nodeErr, secretErr error
	if n := d.node.Load(); n != nil {
		nodeErr = n.Close()
	}
	if d.secret != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), secretTime)
		defer cancel()
		secretErr = d.secret.Close(ctx)
	}
	return errors.Join(nodeErr, secretErr)
}

// err returns nil while the device is on its tailnet. Otherwise it returns
// tailnet.ErrNotUp with what it is waiting for, or tailnet.ErrWrongTailnet.
func (d *Device) err() error {
	if n := d.node.Load(); n != nil {
		return n.Err()
	}
	return fmt.Errorf("%w: %s", tailnet.ErrNotUp, readingState)
}

// Up reports whether the device is on its tailnet, which is not another one than
// the expected one.
func (d *Device) Up() bool { return d.err() == nil }

// Warm reports whether the device has been on its tailnet with warm WireGuard
// sessions. Until then Ready lets no request pass. Warm stays true when the device
// loses its tailnet.
func (d *Device) Warm() bool { return closed(d.warm) }

// hasRouted reports what Snapshot.Routed says.
func (d *Device) hasRouted() bool { return closed(d.routed) }

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Wait returns nil once the device is on its tailnet with warm WireGuard
// sessions, while Run runs. When ctx ends first, the error says what the device is
// waiting for.
func (d *Device) Wait(ctx context.Context) error {
	select {
	case <-d.warm:
		return nil
	case <-ctx.Done():
	}
	if err := d.err(); err != nil {
		return fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return fmt.Errorf("warming WireGuard sessions: %w", ctx.Err())
}

// Ready lets a request wait for the tailnet, at most tailnet.startTimeout. The
// error is a *flow.Error of class NotReady. In the wrong tailnet it comes at once.
func (d *Device) Ready(ctx context.Context) error {
	err := d.err()
	if !errors.Is(err, tailnet.ErrWrongTailnet) && !d.Warm() {
		wait, cancel := context.WithTimeout(ctx, time.Duration(d.config.StartTimeout))
		defer cancel()
		err = d.Wait(wait)
		if err == nil {
			err = d.err()
		}
	}
	if err == nil {
		return nil
	}
	return &flow.Error{
		Class: flow.NotReady,
		Op:    "tailnet",
		Hint:  hintFor(err, "the replica is not on its tailnet; try again, and check the replica's log if it stays so"),
		Err:   err,
	}
}

// Addrs returns the device's own addresses on the tailnet; none before it has
// joined.
func (d *Device) Addrs() []netip.Addr {
	if n := d.node.Load(); n != nil {
		return n.Addrs()
	}
	return nil
}

// DNS returns the tailnet's DNS configuration, as far as it is used, and false
// before the device has received it.
func (d *Device) DNS() (resolve.TailnetDNS, bool) {
	n := d.node.Load()
	if n == nil {
		return resolve.TailnetDNS{}, false
	}
	dns, ok := n.DNS()
	if !d.opts.UseDNS {
		dns = tailnet.DNS{}
	}
	return resolve.TailnetDNS(dns), ok
}

// QueryMagicDNS answers a query, in wire form, for a name under the tailnet's
// MagicDNS suffix.
func (d *Device) QueryMagicDNS(ctx context.Context, query []byte) ([]byte, error) {
	if n := d.node.Load(); n != nil {
		return n.QueryMagicDNS(ctx, query)
	}
	return nil, d.err()
}

// followEvery is how often changes of the DNS configuration are looked for.
const followEvery = 500 * time.Millisecond

// followDNS looks for changes of the DNS configuration until ctx ends.
func (d *Device) followDNS(ctx context.Context) {
	for {
		flow.Sleep(ctx.Done(), followEvery)
		if ctx.Err() != nil {
			return
		}
		d.opts.FollowDNS()
	}
}

// upkeepEvery is how often upkeep looks at the device.
const upkeepEvery = time.Minute

// expiryWarning is how long before the device's key expires the log warns, once
// a day.
const expiryWarning = 14 * 24 * time.Hour

// upkeep keeps the device's entry in its Secret up to date and warns before its
// key expires, until ctx ends.
func (d *Device) upkeep(ctx context.Context) {
	var warned time.Time
	for ctx.Err() == nil {
		if d.Up() {
			d.saveDevice()
			warned = d.warnOfExpiry(warned)
		}
		flow.Sleep(ctx.Done(), upkeepEvery)
	}
}

// warnOfExpiry logs that the device's key expires soon, unless it did so within
// a day before. It returns when it did so last; zero means never.
func (d *Device) warnOfExpiry(warned time.Time) time.Time {
	expiry := d.Status().KeyExpiry
	if expiry.IsZero() || time.Until(expiry) >= expiryWarning || time.Since(warned) <= 24*time.Hour {
		return warned
	}
	d.log.Warn("device key expires soon",
		"at", expiry.UTC().Format(time.RFC3339),
		"in", time.Until(expiry).Round(time.Hour).String(),
		"remedy", "make sure that the auth key is valid then, because Pando logs in again with it; or disable key expiry for this device")
	return time.Now()
}

// saveDevice writes the device's identity into its Secret, if there is one.
func (d *Device) saveDevice() {
	if d.secret == nil {
		return
	}
	n := d.node.Load()
	d.secret.SetDevice(n.ID(), n.Name(), n.Addrs())
}
