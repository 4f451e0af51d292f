package tailnet_test

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// joinTime bounds a join. It is generous: a test that passes never waits for it.
const joinTime = time.Minute

// connTime is the deadline of connections in tests.
const connTime = time.Minute

// tailnetWorld is a tailnet with a cloud node.
type tailnetWorld struct {
	net      *testnet.Net
	cloud    *testnet.Cloud
	timeWait timeWait
	gag      gag
}

// world is a tailnet, and the mode of the nodes that join it.
type world struct {
	*tailnetWorld
	mode tailnet.Mode
}

// startTailnet starts a tailnet with a cloud node.
func startTailnet(t *testing.T) *tailnetWorld {
	t.Helper()
	w := new(tailnetWorld)
	var err error
	w.net, err = testnet.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.cloud, err = w.net.StartCloud(testkit.Within(t, joinTime), "cloud", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.timeWait.install(w.cloud.Tun())
	w.gag.install(w.cloud.Tun())
	return w
}

func (w *tailnetWorld) close() {
	w.cloud.Close()
	w.net.Close()
}

// newWorld returns a world of the test's own, for tests that change the tailnet,
// look for devices by name, or measure.
func newWorld(t *testing.T, mode tailnet.Mode) *world {
	t.Helper()
	checkResolvConf(t)
	w := startTailnet(t)
	t.Cleanup(w.close)
	return &world{w, mode}
}

// shared is the tailnet that tests share.
var shared struct {
	mu    sync.Mutex
	w     *tailnetWorld
	users int // tests that use it now
	used  int // tests that have used it
}

// sharedMost is how many tests use a shared tailnet before the next one starts a
// new one: each leaves a device behind, and with -count there are many.
const sharedMost = 40

// sharedWorld returns a world that other tests use too. A test that uses it only
// adds servers of its own to the cloud node, and nodes of its own.
func sharedWorld(t *testing.T, mode tailnet.Mode) *world {
	t.Helper()
	checkResolvConf(t)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.users == 0 && shared.used >= sharedMost {
		shared.w.close()
		shared.w = nil
		shared.used = 0
	}
	if shared.w == nil {
		shared.w = startTailnet(t)
	}
	shared.users++
	shared.used++
	t.Cleanup(func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		shared.users--
	})
	return &world{shared.w, mode}
}

// checkResolvConf checks at the end of the test that /etc/resolv.conf has not
// changed.
func checkResolvConf(t *testing.T) {
	t.Helper()
	before, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		now, err := os.ReadFile("/etc/resolv.conf")
		if err != nil || string(now) != string(before) {
			t.Errorf("/etc/resolv.conf is %q, %v after the test; want it unchanged:\n%s", now, err, before)
		}
	})
}

// eachMode runs a test in both modes, in a world of its own each.
func eachMode(t *testing.T, run func(*testing.T, *world)) {
	t.Helper()
	nstest.EachMode(t, func(t *testing.T, mode tailnet.Mode) { run(t, newWorld(t, mode)) })
}

// eachModeShared runs a test in both modes, in a world that other tests share.
func eachModeShared(t *testing.T, run func(*testing.T, *world)) {
	t.Helper()
	nstest.EachMode(t, func(t *testing.T, mode tailnet.Mode) { run(t, sharedWorld(t, mode)) })
}

// eachModeAlone is eachMode for tests that measure, or need all processors.
func eachModeAlone(t *testing.T, run func(*testing.T, *world)) {
	t.Helper()
	nstest.EachModeAlone(t, func(t *testing.T, mode tailnet.Mode) { run(t, newWorld(t, mode)) })
}

// join starts a node, waits until it is up, and, unless opts ignores routes,
// until it is warm. The node is closed when the test ends.
func (w *world) join(t *testing.T, name string, opts tailnet.Options) *tailnet.Node {
	t.Helper()
	if opts.AuthKey == "" {
		opts.AuthKey = testnet.AuthKey
	}
	// The engine's log is shown when the join failed or was slow.
	start := time.Now()
	var log testkit.Buffer
	opts.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	defer func() {
		took := time.Since(start)
		t.Logf("%s joined in %v", name, took.Round(time.Millisecond))
		if t.Failed() || took > 10*time.Second {
			t.Logf("log of the engine:\n%s", log.String())
		}
	}()
	n := w.start(t, name, opts)
	ctx := testkit.Within(t, joinTime)
	if err := n.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if !opts.IgnoreRoutes {
		testkit.Eventually(t, "the cloud's routes", func() bool { return n.Routes(testnet.APIAddr) && n.Routes(testnet.APIAddr6) })
		if err := n.Warm(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// start starts a node and does not wait for it. The node is closed when the test
// ends. opts needs no Mode, Hostname or ControlURL.
func (w *world) start(t *testing.T, name string, opts tailnet.Options) *tailnet.Node {
	t.Helper()
	opts.Mode = w.mode
	opts.Hostname = name
	if opts.ControlURL == "" {
		opts.ControlURL = w.net.URL()
	}
	n, err := tailnet.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// dial opens a connection that is closed when the test ends.
func dial(t *testing.T, n *tailnet.Node, addr netip.AddrPort) net.Conn {
	t.Helper()
	c, err := n.DialTCP(testkit.Within(t, connTime), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(connTime))
	return c
}

// echo is a server that sends back what it gets.
func echo(c net.Conn) { defer c.Close(); io.Copy(c, c) }

// pingPong checks that an echo server is at the other end of c.
func pingPong(t *testing.T, c net.Conn) {
	t.Helper()
	const want = "ping"
	if _, err := io.WriteString(c, want); err != nil {
		t.Fatalf("cannot write to the echo server: %v", err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("the echo server answered %q, %v; want %q", got, err, want)
	}
}

// closeWrite ends the direction from us.
func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}
