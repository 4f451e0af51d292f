package device_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/device"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/metrics"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// TestBeforeTheJoin checks that every method works before the device has
// joined, and reports that it has not.
func TestBeforeTheJoin(t *testing.T) {
	cfg := config.Default().Tailnet
	cfg.StartTimeout = config.Duration(10 * time.Millisecond)
	d := device.New(device.Options{Config: cfg, UseDNS: true})
	ctx := t.Context()
	target := netip.MustParseAddrPort("10.12.3.4:443")
	ended, cancel := context.WithCancel(ctx)
	cancel()

	notUp := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, tailnet.ErrNotUp) {
			t.Errorf("%s: err = %v, want tailnet.ErrNotUp", name, err)
		}
	}
	notUp("Snapshot", d.Snapshot().Err)
	if want := "the tailnet is not up: reading the device's state"; d.Snapshot().Err.Error() != want {
		t.Errorf("Snapshot().Err = %q, want %q", d.Snapshot().Err, want)
	}
	err := d.Wait(ended)
	notUp("Wait", err)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: err = %v, want context.Canceled in it", err)
	}
	err = d.Ready(ctx)
	notUp("Ready", err)
	if c := flow.ClassOf(err); c != flow.NotReady {
		t.Errorf("Ready: class = %v, want %v", c, flow.NotReady)
	}
	_, err = d.DialTailnet(ctx, target)
	notUp("DialTailnet", err)
	if c := flow.ClassOf(err); c != flow.NotReady {
		t.Errorf("DialTailnet: class = %v, want %v", c, flow.NotReady)
	}
	for _, network := range []string{"udp", "tcp"} {
		_, err = d.DialResolver(ctx, network, target)
		notUp("DialResolver "+network, err)
		_, err = d.DialGlobal(ctx, network, target)
		notUp("DialGlobal "+network, err)
	}
	_, err = d.QueryMagicDNS(ctx, nil)
	notUp("QueryMagicDNS", err)
	checkEmpty(t, d)
	if err := d.Close(ctx); err != nil {
		t.Errorf("Close() = %v, want nil", err)
	}
}

// checkEmpty checks that a device which has not joined reports nothing but its state.
func checkEmpty(t *testing.T, d *device.Device) {
	t.Helper()
	addr := testnet.APIAddr
	if dns, ok := d.DNS(); ok {
		t.Errorf("DNS() = %+v, true; want false", dns)
	}
	if st := d.Status(); st.State != "reading the device's state" || st.Up || len(st.Peers) != 0 {
		t.Errorf("Status() = %+v, want only the state", st)
	}
	if c, ok := d.Carrier(addr); ok {
		t.Errorf("Carrier() = %v, true; want false", c)
	}
	if got := d.AwaitRoutes(t.Context(), []netip.Addr{addr, addr}); len(got) != 2 || got[0] || got[1] {
		t.Errorf("AwaitRoutes() = %v, want false for both", got)
	}
	for name, got := range map[string]bool{
		"Up":     d.Up(),
		"Warm":   d.Warm(),
		"Routed": d.Snapshot().Routed,
		"Routes": d.Routes(addr),
	} {
		if got {
			t.Errorf("%s() = true, want false", name)
		}
	}
	if a := d.Snapshot().Unrouted; a.IsValid() {
		t.Errorf("Snapshot().Unrouted = %v, want none", a)
	}
	if a := d.Addrs(); len(a) != 0 {
		t.Errorf("Addrs() = %v, want none", a)
	}
	if text := d.CarrierText(addr); text != "" {
		t.Errorf("CarrierText() = %q, want nothing", text)
	}
	if device, peers := d.Snapshot().Report(); device.State != "reading the device's state" || device.Up || peers == nil || len(peers) != 0 {
		t.Errorf("Report() = %+v, %v; want only the state, and no peers that are not nil", device, peers)
	}
	if m := d.Metrics(); m != (metrics.Tailnet{}) {
		t.Errorf("Metrics() = %+v, want the zero value", m)
	}
	if text, err := d.EngineMetrics(); err != nil || text != "" {
		t.Errorf("EngineMetrics() = %q, %v; want nothing", text, err)
	}
}

// TestKeyMistakes checks that Run returns mistakes in the keys, and that Close
// works after it.
func TestKeyMistakes(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*config.Tailnet)
		want string
	}{
		{"oauth_without_tags", func(c *config.Tailnet) { c.AuthKey = "tskey-client-x" }, "tailnet.tags: "},
		{"client_secret_without_tags", func(c *config.Tailnet) { c.ClientSecret = "tskey-client-x" }, "tailnet.tags: "},
		{"client_secret_with_a_bad_option", func(c *config.Tailnet) {
			c.ClientSecret = "tskey-client-x?nosuch=1"
			c.Tags = []string{"tag:k8s"}
		}, "tailnet.clientSecret: "},
		{"client_secret_file_missing", func(c *config.Tailnet) { c.ClientSecretFile = "/nosuch/file" }, "tailnet.clientSecretFile: "},
		{"state_dir_is_a_file", func(c *config.Tailnet) { c.StateDir = "device_test.go" }, "tailnet.stateDir: "},
		{"no_pod", func(c *config.Tailnet) { c.KubeSecret = "pando-0" }, "tailnet.kubeSecret: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config.Default().Tailnet
			c.edit(&cfg)
			d := device.New(device.Options{Config: cfg})
			err := d.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Run() = %v, want %q in it", err, c.want)
			}
			if want := "the tailnet is not up: reading the device's state"; d.Snapshot().Err.Error() != want {
				t.Errorf("Snapshot().Err = %v after the mistake, want %q: no engine runs", d.Snapshot().Err, want)
			}
			if err := d.Close(t.Context()); err != nil {
				t.Errorf("Close() = %v, want nil", err)
			}
		})
	}
}

// TestBootTimeout checks that Run returns an error when the device is not on
// its tailnet in time, with the reason, and nil when it is stopped before.
func TestBootTimeout(t *testing.T) {
	cfg := config.Default().Tailnet
	cfg.ControlURL = "http://127.0.0.1:1" // refused
	cfg.AuthKey = "tskey-auth-x"
	cfg.BootTimeout = config.Duration(300 * time.Millisecond)
	d := device.New(device.Options{Config: cfg})
	err := d.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "tailnet.bootTimeout: not on the tailnet after 300ms") || !errors.Is(err, tailnet.ErrNotUp) {
		t.Errorf("Run() = %v, want the boot timeout and tailnet.ErrNotUp", err)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Errorf("Close() = %v, want nil", err)
	}

	cfg.BootTimeout = 0
	d = device.New(device.Options{Config: cfg})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	testkit.Eventually(t, "the engine to run", func() bool { return d.Status().State != "reading the device's state" })
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run() = %v after its context ended, want nil", err)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Errorf("Close() = %v, want nil", err)
	}
}

// startTailnet starts a tailnet with a cloud until the test ends. Its split DNS also
// has the resolver late, which no peer routes.
func startTailnet(t *testing.T, late netip.Addr) *testnet.Net {
	t.Helper()
	net, err := testnet.Start(testkit.Within(t, time.Minute), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { net.Close() })
	net.SetDNSRoutes(map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}, "late.example": {late.String()}})
	cloud, err := net.StartCloud(testkit.Within(t, time.Minute), "cloud", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cloud.Close() })
	return net
}

// TestOnATailnet checks a device's life on a real tailnet: it joins, reports
// that before the first request passes, dials what a peer routes and refuses
// the rest, and waits for the route to a resolver that appears late.
func TestOnATailnet(t *testing.T) {
	late := netip.MustParseAddr("10.50.0.2")
	net := startTailnet(t, late)
	cfg := config.Default().Tailnet
	cfg.Hostname = "device"
	cfg.ControlURL = net.URL()
	cfg.AuthKey = testnet.AuthKey
	var log testkit.Buffer
	var d *device.Device
	var follows atomic.Int32
	var warmAtFirst atomic.Bool
	d = device.New(device.Options{
		Config: cfg,
		UseDNS: true,
		FollowDNS: func() {
			if follows.Add(1) == 1 {
				warmAtFirst.Store(d.Warm())
			}
		},
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v, want nil", err)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Errorf("Close() = %v, want nil", err)
		}
	}()

	if err := d.Wait(testkit.Within(t, time.Minute)); err != nil {
		t.Fatalf("Wait() = %v, want nil", err)
	}
	if n := follows.Load(); n == 0 || warmAtFirst.Load() {
		t.Errorf("FollowDNS was called %d times, first with Warm() = %v; want at least once, and false", n, warmAtFirst.Load())
	}
	testkit.Eventually(t, "the DNS configuration to be followed", func() bool { return follows.Load() >= 2 })
	checkJoined(t, d)
	checkDials(t, d)
	checkReports(t, d)
	checkLateRoute(t, net, d, late)
	for _, line := range []string{"on the tailnet", "waiting for a route to a split-DNS resolver"} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log lacks %q:\n%s", line, log.String())
		}
	}
}

// checkJoined checks what a device says of itself on its tailnet.
func checkJoined(t *testing.T, d *device.Device) {
	t.Helper()
	if err := d.Ready(t.Context()); err != nil {
		t.Errorf("Ready() = %v, want nil", err)
	}
	if !d.Up() || d.Snapshot().Err != nil || len(d.Addrs()) != 2 {
		t.Errorf("Up, Snapshot().Err, Addrs = %v, %v, %v; want true, nil and two addresses", d.Up(), d.Snapshot().Err, d.Addrs())
	}
	if st := d.Status(); !st.Up || !strings.HasPrefix(st.Name, "device") {
		t.Errorf("Status() = %+v, want up and the device's name", st)
	}
	dns, ok := d.DNS()
	if _, zone := dns.Routes[testnet.Zone]; !ok || !zone {
		t.Errorf("DNS() = %+v, %v; want the zone %s", dns, ok, testnet.Zone)
	}
}

// checkDials checks that a device dials what a peer routes, and refuses the rest.
func checkDials(t *testing.T, d *device.Device) {
	t.Helper()
	api := netip.AddrPortFrom(testnet.APIAddr, 80)
	c, err := d.DialTailnet(testkit.Within(t, 20*time.Second), api)
	if err != nil {
		t.Fatalf("DialTailnet(%v) = %v, want a connection", api, err)
	}
	c.Close()
	nowhere := netip.MustParseAddrPort("10.99.0.1:80")
	if _, err := d.DialTailnet(testkit.Within(t, 20*time.Second), nowhere); flow.ClassOf(err) != flow.NoRoute {
		t.Errorf("DialTailnet(%v) = %v, want class %v", nowhere, err, flow.NoRoute)
	}
	for _, network := range []string{"udp", "tcp"} {
		resolver := netip.AddrPortFrom(testnet.DNSAddr, 53)
		c, err := d.DialResolver(testkit.Within(t, 20*time.Second), network, resolver)
		if err != nil {
			t.Errorf("DialResolver(%s, %v) = %v, want a connection", network, resolver, err)
			continue
		}
		c.Close()
	}
	checkNotDirect(t, d)
}

// checkNotDirect checks that a resolver of the tailnet is not asked in the pod's own
// network if its address means another host there, although one listens.
func checkNotDirect(t *testing.T, d *device.Device) {
	t.Helper()
	for _, a := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		ln, err := net.Listen("tcp", net.JoinHostPort(a, "0"))
		if err != nil {
			t.Logf("%s: %v", a, err) // a machine without IPv6
			continue
		}
		defer ln.Close()
		addr := netip.AddrPortFrom(netip.MustParseAddr(a), ln.Addr().(*net.TCPAddr).AddrPort().Port())
		for _, network := range []string{"udp", "tcp"} {
			if _, err := d.DialGlobal(testkit.Within(t, time.Second), network, addr); !errors.Is(err, tailnet.ErrNoRoute) {
				t.Errorf("DialGlobal(%s, %v) = %v, want tailnet.ErrNoRoute", network, addr, err)
			}
		}
	}
}

// checkReports checks what a device reports of the cloud, its only peer.
func checkReports(t *testing.T, d *device.Device) {
	t.Helper()
	if hop, ok := d.Carrier(testnet.APIAddr); !ok || !strings.HasPrefix(hop.Name, "cloud") || hop.Route != testnet.Network {
		t.Errorf("Carrier(%v) = %v, %v; want the cloud with %v", testnet.APIAddr, hop, ok, testnet.Network)
	}
	if text := d.CarrierText(testnet.APIAddr); !strings.HasPrefix(text, "carried by cloud") {
		t.Errorf("CarrierText(%v) = %q, want that the cloud carries it", testnet.APIAddr, text)
	}
	if device, peers := d.Snapshot().Report(); !device.Up || len(peers) != 1 || !strings.HasPrefix(peers[0].Name, "cloud") {
		t.Errorf("Report() = %+v, %+v; want up, and the cloud", device, peers)
	}
	if m := d.Metrics(); !m.Up || m.Peers != 1 || m.Routes != 2 || m.Direct+m.Relayed+m.Unused != 1 {
		t.Errorf("Metrics() = %+v, want up, one peer that is a router, and two routes", m)
	}
	if text, err := d.EngineMetrics(); err != nil || !strings.Contains(text, "tailscaled_") {
		t.Errorf("EngineMetrics() = %.100q, %v; want metrics tailscaled_*", text, err)
	}
}

// checkLateRoute approves the route to the resolver late, which was missing, and checks
// what the device says of it before and after.
func checkLateRoute(t *testing.T, net *testnet.Net, d *device.Device, late netip.Addr) {
	t.Helper()
	if a := d.Snapshot().Unrouted; a != late || d.Snapshot().Routed {
		t.Errorf("Unrouted, Routed = %v, %v; want %v, false", a, d.Snapshot().Routed, late)
	}
	if err := net.ApproveRoutes("cloud", testnet.Network, testnet.Network6, netip.MustParsePrefix("10.50.0.0/16")); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the route that appears late", func() bool { return d.Snapshot().Routed })
	if a := d.Snapshot().Unrouted; a.IsValid() {
		t.Errorf("Snapshot().Unrouted = %v after its route appeared, want none", a)
	}
}
