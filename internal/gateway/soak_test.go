//go:build soak

package gateway_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

var soakTime = flag.Duration("soak", 5*time.Minute, "how long TestSoak loads the replica")

// TestSoak loads a replica with everything that it does while its
// configuration changes every second and its router restarts: at the end it
// has as many goroutines, files and bytes as at the start, and every failure
// is explained by a router that was away.
func TestSoak(t *testing.T) {
	ctx := testkit.Within(t, time.Minute)
	w := &world{mode: tailnet.Userspace, dir: t.TempDir()}
	var err error
	w.net, err = testnet.Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.net.Close() })
	w.net.SetDNSRoutes(map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}})
	var target netip.AddrPort // the same for each router
	startRouter := func() {
		w.cloud, err = w.net.StartCloud(testkit.Within(t, time.Minute), "cloud", nil)
		if err != nil {
			t.Fatal(err)
		}
		if !target.IsValid() {
			target = w.cloud.NewAddr()
		}
		w.cloud.Handle(target, func(c net.Conn) {
			io.Copy(c, c)
			c.(interface{ CloseWrite() error }).CloseWrite()
			c.Close()
		})
	}
	startRouter()
	file := filepath.Join(t.TempDir(), "pando.yaml")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var away atomic.Bool // the router is, or was a moment ago
	troubles := troubleLog{away: &away}
	r := w.startWith(t, func(c *config.Config) {
		withAdmin(c)
		c.Tunnel.PeerTimeout = config.Duration(5 * time.Second)
		c.HTTP.IdleTimeout = config.Duration(2 * time.Second)
	}, func(base config.Config, o *gateway.Options) {
		o.Log = slog.New(&troubles)
		o.Files = []string{file}
		o.Load = func() (config.Config, error) {
			cfg := base
			data, err := os.ReadFile(file)
			if err == nil {
				err = config.Parse(data, &cfg)
			}
			return cfg, err
		}
	})

	jobs := map[string]func(context.Context) error{
		"http":    func(ctx context.Context) error { return soakHTTP(ctx, r.addr) },
		"connect": func(ctx context.Context) error { return soakTunnel(ctx, r.addr, "CONNECT", target) },
		"socks5":  func(ctx context.Context) error { return soakTunnel(ctx, r.addr, "SOCKS", target) },
		"reset":   func(ctx context.Context) error { return soakReset(ctx, r.addr, target) },
	}
	for _, job := range jobs { // everything has been done once before the counting
		if err := job(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := settled(t, r)
	var restarts atomic.Int64 // of the router
	var failures, during sync.Map
	var done atomic.Int64
	count := func(m *sync.Map, what string) {
		n, _ := m.LoadOrStore(what, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}
	run, stop := context.WithTimeout(t.Context(), *soakTime)
	defer stop()
	end, _ := run.Deadline()
	var load sync.WaitGroup
	for name, job := range jobs {
		for range 4 {
			load.Go(func() {
				for run.Err() == nil {
					wasAway := away.Load()
					gone := restarts.Load()
					err := job(run)
					switch {
					case run.Err() != nil || time.Until(end) < 100*time.Millisecond:
						return
					case err == nil:
						done.Add(1)
					case wasAway || away.Load() || restarts.Load() != gone:
						count(&during, name)
					default:
						count(&failures, name+": "+err.Error())
					}
					time.Sleep(5 * time.Millisecond) // the pace of the load
				}
			})
		}
	}
	reloads := 0
	reload := time.NewTicker(time.Second)
	restart := time.NewTicker(max(*soakTime/6, 20*time.Second))
	for run.Err() == nil {
		select {
		case <-run.Done():
		case <-reload.C:
			reloads++
			text := fmt.Sprintf("limits: {dials: %d}\nresolve: {hosts: {h%d.example.com: [10.12.3.4]}}\n", 100+reloads, reloads)
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		case <-restart.C:
			restarts.Add(1)
			away.Store(true)
			w.cloud.Close()
			startRouter()
			testkit.Eventually(t, "traffic after a restart of the router", func() bool { return soakHTTP(t.Context(), r.addr) == nil })
			time.Sleep(time.Second) // a grace time for the other jobs: only HTTP is known to work
			away.Store(false)
		}
	}
	load.Wait()
	after := settled(t, r)
	for end := time.Now().Add(30 * time.Second); after.goroutines > before.goroutines+2 && time.Now().Before(end); {
		after = settled(t, r) // the routers that were closed may still be ending
	}
	m := scrape(t, r)
	t.Logf("MEASURED %v: %d jobs done, %d reloads applied, %d restarts of the router", *soakTime, done.Load(), int(m[`pando_config_reloads_total{outcome="ok"}`]), restarts.Load())
	t.Logf("MEASURED goroutines %d -> %d, files %d -> %d, heap %.1f -> %.1f MiB", before.goroutines, after.goroutines, before.files, after.files, before.heap, after.heap)
	during.Range(func(k, n any) bool {
		t.Logf("MEASURED while the router was away: %v failed %d times", k, n.(*atomic.Int64).Load())
		return true
	})
	failures.Range(func(k, n any) bool { t.Errorf("%d times: %v", n.(*atomic.Int64).Load(), k); return true })
	if t.Failed() {
		for _, line := range troubles.last() {
			t.Logf("a flow that broke: %s", line)
		}
	}
	if after.goroutines > before.goroutines+2 || after.files > before.files+5 || after.heap > before.heap*1.15+4 {
		t.Error("something was left behind")
		var stacks bytes.Buffer
		pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		t.Logf("%s", stacks.String())
	}
	if m[`pando_config_reloads_total{outcome="ok"}`] < float64(reloads)*0.8 || m[`pando_config_reloads_total{outcome="failed"}`] > float64(reloads)*0.05 {
		t.Errorf("%d changes of the file gave %v", reloads, m)
	}
}

// troubleLog keeps the last few flows that broke by no fault of their client or
// of a router that was away.
type troubleLog struct {
	away         *atomic.Bool
	slog.Handler // nil: only flows get here
	mu           sync.Mutex
	lines        []string
}

func (l *troubleLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *troubleLog) Handle(_ context.Context, r slog.Record) error {
	var line bytes.Buffer
	slog.NewTextHandler(&line, nil).Handle(context.Background(), r)
	if s := line.String(); !l.away.Load() && r.Message == "flow" && !strings.Contains(s, "class=ok") && !strings.Contains(s, "class=canceled") {
		l.mu.Lock()
		l.lines = append(l.lines[max(0, len(l.lines)-30):], strings.TrimSpace(s))
		l.mu.Unlock()
	}
	return nil
}

func (l *troubleLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *troubleLog) WithGroup(string) slog.Handler      { return l }

func (l *troubleLog) last() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines
}

// state is what must be at the end as at the start.
type state struct {
	goroutines, files int
	heap              float64 // MiB
}

// settled waits until the replica has nothing to do any more.
func settled(t *testing.T, r *replica) state {
	t.Helper()
	http.DefaultClient.CloseIdleConnections()
	testkit.Eventually(t, "the replica to be at rest", func() bool {
		m := scrape(t, r)
		return m["pando_connections"] <= 1 && m["pando_tunnels"] == 0
	})
	time.Sleep(5 * time.Second) // nothing shows when pooled connections to origins have ended and the engine rests
	http.DefaultClient.CloseIdleConnections()
	debug.FreeOSMemory()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return state{runtime.NumGoroutine(), len(files), float64(m.HeapAlloc) / (1 << 20)}
}

func soakDial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		c.SetDeadline(time.Now().Add(15 * time.Second))
	}
	return c, err
}

func soakHTTP(ctx context.Context, addr string) error {
	c, err := soakDial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", testnet.APIName)
	b, err := io.ReadAll(c)
	if err == nil && !strings.HasPrefix(string(b), "HTTP/1.1 200 ") {
		err = fmt.Errorf("%.120q", b)
	}
	return err
}

// soakTunnel sends 256 KiB through an echo and counts what comes back.
func soakTunnel(ctx context.Context, addr, how string, target netip.AddrPort) error {
	c, err := soakDial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	var want string
	if how == "CONNECT" {
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
		want = "HTTP/1.1 200 Connection established\r\n\r\n"
	} else {
		a := target.Addr().As4()
		c.Write(slices.Concat([]byte{5, 1, 0, 5, 1, 0, 1}, a[:], []byte{byte(target.Port() >> 8), byte(target.Port())}))
		want = "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	}
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		return fmt.Errorf("%s: %q, %w", how, got[:n], orEnd(err))
	}
	const size = 256 << 10
	go func() { // ends with c
		c.Write(make([]byte, size))
		c.(*net.TCPConn).CloseWrite()
	}()
	n, err := io.Copy(io.Discard, c)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes came back", n)
	}
	return err
}

func orEnd(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

// soakReset leaves in the middle of a transfer.
func soakReset(ctx context.Context, addr string, target netip.AddrPort) error {
	c, err := soakDial(ctx, addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\nhello", target)
	c.Read(make([]byte, 10))
	c.(*net.TCPConn).SetLinger(0)
	return c.Close()
}
