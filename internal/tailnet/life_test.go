package tailnet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tailscale.com/envknob"
	"tailscale.com/net/packet"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testnet"
)

// routerVanishes: connections through a router that is gone from one moment to
// the next end in seconds, idle ones and those with data on the way, with the
// errno of a time-out; and the node can say who it was.
func routerVanishes(t *testing.T, w *world) {
	nw, err := testnet.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nw.Close()
	cloud, err := nw.StartCloud(within(t, 20*time.Second), "router", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.Close()
	own := &world{mode: w.mode, net: nw, cloud: cloud}
	const timeout = 4 * time.Second
	n := own.join(t, "bereft", tailnet.Options{PeerTimeout: timeout, TUNName: "bereft0"})
	target := netip.AddrPortFrom(testnet.APIAddr, 7080)
	cloud.Handle(target, echo)
	silent, idle, busy := dial(t, n, target), dial(t, n, target), dial(t, n, target)
	pingPong(t, idle)
	pingPong(t, busy)
	if c, ok := n.Carrier(target.Addr()); !ok || c.Route != testnet.Network || !strings.HasPrefix(c.String(), "router."+testnet.MagicSuffix+", subnet router of "+testnet.Network.String()+", direct ") || !strings.Contains(c.String(), "last handshake") {
		t.Errorf("the carrier: %v, %+v", ok, c)
	}
	tailnet.Freeze(cloud.Node)
	begin := time.Now()
	io.WriteString(busy, "lost")
	var wg sync.WaitGroup
	for what, c := range map[string]net.Conn{"silent": silent, "idle": idle, "busy": busy} {
		wg.Go(func() {
			c.SetReadDeadline(begin.Add(time.Minute))
			_, err := c.Read(make([]byte, 4))
			took := time.Since(begin)
			t.Logf("the %s connection ended after %v: %v", what, took.Round(100*time.Millisecond), err)
			if !errors.Is(err, syscall.ETIMEDOUT) || took > 4*timeout {
				t.Errorf("the %s connection: %v after %v; want ETIMEDOUT in a few times %v", what, err, took, timeout)
			}
		})
	}
	wg.Wait()
}

// cachedNetmap: a node that restarts while the control server is away comes up
// from the network map that it kept, if that was granted, and carries traffic;
// otherwise it says what it waits for.
func cachedNetmap(t *testing.T, w *world) {
	if raceEnabled {
		t.Skip("the library's own handling of disco keys races here; the run without the detector has this case")
	}
	envknob.Setenv("TS_USE_CACHED_NETMAP", "true")
	defer envknob.Setenv("TS_USE_CACHED_NETMAP", "false") // as testnet.Start has it
	nw, err := testnet.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nw.Close()
	envknob.Setenv("TS_USE_CACHED_NETMAP", "true")
	cloud, err := nw.StartCloud(within(t, 20*time.Second), "cloud", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.Close()
	target := netip.AddrPortFrom(testnet.APIAddr, 7081)
	cloud.Handle(target, echo)
	start := func(name, dir string) *tailnet.Node {
		store, err := tailnet.DirStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		n, err := tailnet.Start(t.Context(), tailnet.Options{Mode: w.mode, Hostname: name, ControlURL: nw.URL(), AuthKey: testnet.AuthKey, Store: store, CacheDir: dir, TUNName: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	granted, denied := t.TempDir(), t.TempDir()
	for _, name := range []string{"granted", "denied"} {
		dir := map[string]string{"granted": granted, "denied": denied}[name]
		n := start(name, dir)
		if err := n.Wait(within(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the route", func() bool { return n.Routes(testnet.APIAddr) })
		if name == "granted" {
			if err := nw.GrantNetmapCache(name); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the network map on disk", func() bool {
				found, _ := filepath.Glob(filepath.Join(dir, "*", "*", "netmap-cache", tailnet.CachedPeer+"*"))
				return len(found) > 0
			})
		}
		pingPong(t, dial(t, n, target))
		n.Close()
		if name == "denied" { // what the engine sometimes leaves though it may not: a map without peers
			if err := leaveEmptyCache(granted, denied); err != nil {
				t.Fatal(err)
			}
		}
	}
	nw.StopControl()
	n := start("granted", granted)
	if err := n.Wait(within(t, 20*time.Second)); err != nil {
		t.Fatalf("with a cached network map: %v", err)
	}
	begin := time.Now()
	var c net.Conn
	eventuallyOr(time.Minute, func() bool {
		c, err = n.DialTCP(within(t, 5*time.Second), target)
		return err == nil
	}, func() { t.Fatal(err) })
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	pingPong(t, c)
	t.Logf("carries traffic without a control server, the first connection after %v; control %v", time.Since(begin).Round(time.Millisecond), n.Status().Control)
	if n.Status().Control {
		t.Error("it takes itself for connected to the control server")
	}
	n.Close()
	n = start("denied", denied)
	if left, _ := filepath.Glob(filepath.Join(denied, "*", "*", "netmap-cache", "*")); len(left) > 0 {
		t.Errorf("it may start from a network map without peers: %v", left)
	}
	if err := n.Wait(within(t, 3*time.Second)); !errors.Is(err, tailnet.ErrNotUp) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("without one: %v", err)
	} else {
		t.Logf("without a cached network map: %v", err)
	}
}

// leaveEmptyCache copies a cached network map, without its peers, to where another
// device would look for its own.
func leaveEmptyCache(from, to string) error {
	profiles, err := filepath.Glob(filepath.Join(to, "*", "*"))
	if err != nil || len(profiles) != 1 {
		return fmt.Errorf("profiles %v, %w", profiles, err)
	}
	files, err := filepath.Glob(filepath.Join(from, "*", "*", "netmap-cache", "*"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no files in %s: %w", from, err)
	}
	cache := filepath.Join(profiles[0], "netmap-cache")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasPrefix(filepath.Base(f), tailnet.CachedPeer) {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(cache, filepath.Base(f)), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// expiredKey: a device whose key has expired logs in again by itself, with a key
// that it is given anew, as soon as the control server lets it.
func expiredKey(t *testing.T, w *world) {
	net, err := testnet.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	asked := make(chan struct{}, 100)
	n, err := tailnet.Start(t.Context(), tailnet.Options{
		Mode: w.mode, Hostname: "expiring", ControlURL: net.URL(), AuthKey: testnet.AuthKey, TUNName: "expiring0",
		NextKey: func(context.Context) (string, error) { asked <- struct{}{}; return testnet.AuthKey, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Wait(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 0 {
		t.Error("it asked for a key that it did not need")
	}
	net.ExpireDevices(true)
	eventually(t, "the key to expire", func() bool { return n.Err() != nil })
	select {
	case <-asked:
	case <-time.After(20 * time.Second):
		t.Fatal("it never asked for a new key")
	}
	net.ExpireDevices(false)
	eventuallyOr(90*time.Second, n.Up, func() { t.Errorf("it did not come back: %v", n.Err()) })
}

// plainPreferences: "tailscale up" would refuse to go on with settings that
// the stock container's environment does not mention.
func plainPreferences(t *testing.T, w *world) {
	dir := t.TempDir()
	store, err := tailnet.DirStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.join(t, "plain", tailnet.Options{Store: store, ShieldsUp: true}).Close()
	state, err := os.ReadFile(filepath.Join(dir, "tailscaled.state"))
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string][]byte
	if err := json.Unmarshal(state, &keys); err != nil {
		t.Fatal(err)
	}
	profiles := 0
	for id, value := range keys {
		if !strings.HasPrefix(id, "profile-") {
			continue
		}
		profiles++
		var prefs struct {
			ShieldsUp, RouteAll bool
			NetfilterMode       int
		}
		if err := json.Unmarshal(value, &prefs); err != nil {
			t.Fatal(err)
		}
		if prefs.ShieldsUp || prefs.NetfilterMode != 2 || !prefs.RouteAll {
			t.Errorf("%s holds %+v", id, prefs)
		}
	}
	if profiles != 1 {
		t.Errorf("%d profiles in %s", profiles, state)
	}
}

// outageEnds: what was to be sent in an outage of the network goes out soon after
// it, in a connection that was open before. TCP alone doubles its patience with
// each try: after one at 12.6 s the next would be at 25.4 s.
func outageEnds(t *testing.T, w *world) {
	if w.mode != tailnet.Userspace {
		return // the kernel's stack is its own (docs/design/0011)
	}
	n := w.join(t, "cutoff", tailnet.Options{PeerTimeout: time.Minute})
	target := netip.AddrPortFrom(testnet.APIAddr, 7072)
	w.cloud.Handle(target, echo)
	c := dial(t, n, target)
	pingPong(t, c)
	tailnet.Lose(w.cloud.Node, func(p *packet.Parsed) bool { return p.Dst == target })
	defer tailnet.Lose(w.cloud.Node, nil)
	lasts := time.After(13 * time.Second)
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	<-lasts
	tailnet.Lose(w.cloud.Node, nil)
	start := time.Now()
	c.SetReadDeadline(start.Add(time.Minute))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("answered %v after the outage", took.Round(time.Millisecond))
	if took > tailnet.MaxRTO+4*time.Second {
		t.Errorf("the answer took %v", took)
	}
}

func controlOutage(t *testing.T, w *world) {
	n := w.join(t, "outage", tailnet.Options{})
	addr := netip.AddrPortFrom(testnet.APIAddr, 7003)
	w.cloud.Handle(addr, echo)
	before := dial(t, n, addr)
	w.net.StopControl()
	defer w.net.StartControl()
	for range 50 {
		pingPong(t, before)
		c := dial(t, n, addr)
		pingPong(t, c)
		c.Close()
	}
	if !n.Up() {
		t.Error("the node counts as down in a control-plane outage")
	}
	usual := tailnet.RouteWait(n)
	eventually(t, "the outage to be noticed", func() bool { return !tailnet.SeesControl(n) })
	if err := w.net.StartControl(); err != nil {
		t.Fatal(err)
	}
	// Both ends follow the control server again, after a few seconds of backoff.
	if err := w.net.ApproveRoutes("outage", netip.MustParsePrefix("10.98.0.0/16")); err != nil {
		t.Fatal(err)
	}
	if err := w.net.ApproveRoutes("cloud", testnet.Network, testnet.Network6, netip.MustParsePrefix("10.99.0.0/16")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was approved after the outage", func() bool {
		return w.cloud.Routes(netip.MustParseAddr("10.98.0.1")) && n.Routes(netip.MustParseAddr("10.99.0.1"))
	})
	// Routers come back when they do: a lost route is hoped for longer now.
	eventually(t, "more patience", func() bool { return tailnet.RouteWait(n) > 2*usual })
	// Nobody is to wait for this node later.
	if err := w.net.ApproveRoutes("outage"); err != nil {
		t.Fatal(err)
	}
}

// routeComesBack: a control server that restarts may take a route away for a
// moment, as Headscale does until it has heard of the subnet router again.
func routeComesBack(t *testing.T, w *world) {
	n := w.join(t, "patient", tailnet.Options{})
	extra := netip.MustParsePrefix("10.97.0.0/16")
	addr := netip.MustParseAddr("10.97.0.1")
	with := []netip.Prefix{testnet.Network, testnet.Network6, extra}
	approve := func(routes []netip.Prefix) {
		t.Helper()
		if err := w.net.ApproveRoutes("cloud", routes...); err != nil {
			t.Fatal(err)
		}
	}
	defer approve(with[:2])
	approve(with)
	eventually(t, "the route", func() bool { return n.AwaitRoute(t.Context(), addr) })
	approve(with[:2])
	eventually(t, "the route to go", func() bool { return !n.Routes(addr) })
	there := make(chan bool)
	go func() { there <- n.AwaitRoute(t.Context(), addr) }()
	if n.AwaitRoute(t.Context(), netip.MustParseAddr("10.97.0.2")) {
		t.Error("an address that was never routed is")
	}
	approve(with)
	if !<-there {
		t.Error("the route came back and was not waited for")
	}
	approve(with[:2])
	eventually(t, "the route to go", func() bool { return !n.Routes(addr) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if n.AwaitRoute(ctx, addr) {
		t.Error("a route that is gone is there")
	}
}
