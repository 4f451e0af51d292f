package tailnet_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tailscale.com/envknob"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// TestCachedNetmap checks that a node which restarts while the control server is
// away starts from the network map that it kept, if the control server granted
// that, and carries traffic. Otherwise it reports what it waits for.
func TestCachedNetmap(t *testing.T) {
	if raceEnabled {
		t.Skip("the library's own handling of disco keys races here; make test runs this without the detector")
	}
	eachModeAlone(t, cachedNetmap)
}

func cachedNetmap(t *testing.T, w *world) {
	// testnet.Start has set this to false, for the whole process.
	envknob.Setenv("TS_USE_CACHED_NETMAP", "true")
	defer envknob.Setenv("TS_USE_CACHED_NETMAP", "false")
	target := w.cloud.Serve(echo)
	granted := t.TempDir()
	denied := t.TempDir()
	runOnce(t, w, target, "granted", granted, true)
	runOnce(t, w, target, "denied", denied, false)
	// The engine sometimes leaves a map without peers though it may keep none.
	if err := leaveEmptyCache(granted, denied); err != nil {
		t.Fatal(err)
	}
	w.net.StopControl()

	n := startCached(t, w, "granted", granted)
	if err := n.Wait(testkit.Within(t, joinTime)); err != nil {
		t.Fatalf("Wait() = %v with a cached network map, want nil", err)
	}
	begin := time.Now()
	carries(t, n, target)
	t.Logf("carries traffic without a control server, the first connection after %v", time.Since(begin).Round(time.Millisecond))
	if n.Status().Control {
		t.Error("Status().Control = true without a control server, want false")
	}
	n.Close()

	n = startCached(t, w, "denied", denied)
	if left, _ := filepath.Glob(filepath.Join(denied, "*", "*", "netmap-cache", "*")); len(left) > 0 {
		t.Errorf("a network map without peers is left: %v", left)
	}
	testkit.Eventually(t, "the reason", func() bool { return strings.Contains(fmt.Sprint(n.Err()), "connection refused") })
	if err := n.Wait(testkit.Within(t, time.Second)); !errors.Is(err, tailnet.ErrNotUp) {
		t.Errorf("Wait() = %v without a cached network map, want ErrNotUp", err)
	}
}

// startCached starts a node that keeps its state and its network map in dir.
func startCached(t *testing.T, w *world, name, dir string) *tailnet.Node {
	t.Helper()
	store, err := tailnet.DirStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return w.start(t, name, tailnet.Options{
		AuthKey:  testnet.AuthKey,
		Store:    store,
		CacheDir: dir,
	})
}

// runOnce runs a node with a control server, so that it leaves state in dir, and
// a network map if grant is set.
func runOnce(t *testing.T, w *world, target netip.AddrPort, name, dir string, grant bool) {
	t.Helper()
	n := startCached(t, w, name, dir)
	defer n.Close()
	if err := n.Wait(testkit.Within(t, joinTime)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the route", func() bool { return n.Routes(testnet.APIAddr) })
	if grant {
		if err := w.net.GrantNetmapCache(name); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, "the network map on disk", func() bool {
			found, _ := filepath.Glob(filepath.Join(dir, "*", "*", "netmap-cache", tailnet.CachedPeer+"*"))
			return len(found) > 0
		})
	}
	pingPong(t, dial(t, n, target))
}

// carries checks that n reaches target. The first attempts may fail: the peer's
// disco key is not known yet.
func carries(t *testing.T, n *tailnet.Node, target netip.AddrPort) {
	t.Helper()
	var c net.Conn
	var err error
	testkit.EventuallyOr(time.Minute, func() bool {
		c, err = n.DialTCP(testkit.Within(t, 5*time.Second), target)
		return err == nil
	}, func() { t.Fatalf("DialTCP(%v) = %v for a minute, want a connection", target, err) })
	defer c.Close()
	c.SetDeadline(time.Now().Add(connTime))
	pingPong(t, c)
}

// leaveEmptyCache copies a cached network map, without its peers, to where
// another device would look for its own.
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
