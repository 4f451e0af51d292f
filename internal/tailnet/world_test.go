package tailnet_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testnet"
)

// world is a tailnet with a cloud node, and the way to join it.
type world struct {
	mode  tailnet.Mode
	net   *testnet.Net
	cloud *testnet.Cloud
	timeWait
	gag gag
}

// join joins the tailnet and waits until the cloud's routes are known.
func (w *world) join(t *testing.T, name string, opts tailnet.Options) *tailnet.Node {
	t.Helper()
	opts.Mode, opts.Hostname, opts.ControlURL = w.mode, name, w.net.URL()
	if opts.AuthKey == "" {
		opts.AuthKey = testnet.AuthKey
	}
	// The engine's chatter is kept, and shown when joining failed or was slow.
	start := time.Now()
	var chatter lockedBuffer
	opts.Logger = slog.New(slog.NewTextHandler(&chatter, &slog.HandlerOptions{Level: slog.LevelDebug}))
	defer func() {
		took := time.Since(start)
		t.Logf("%s joined in %v", name, took.Round(time.Millisecond))
		if t.Failed() || took > 4*time.Second {
			t.Logf("the engine said:\n%s", chatter.String())
		}
	}()
	n, err := tailnet.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	ctx := within(t, 20*time.Second)
	if err := n.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if !opts.IgnoreRoutes {
		eventually(t, "the cloud's route", func() bool { return n.Routes(testnet.APIAddr) && n.Routes(testnet.APIAddr6) })
		if err := n.Warm(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// lockedBuffer is a bytes.Buffer for several writers.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, n *tailnet.Node, a netip.AddrPort) net.Conn {
	t.Helper()
	c, err := n.DialTCP(within(t, 10*time.Second), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func echo(c net.Conn) { defer c.Close(); io.Copy(c, c) }

func pingPong(t *testing.T, c net.Conn) {
	t.Helper()
	var b [4]byte
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b[:]); err != nil || string(b[:]) != "ping" {
		t.Fatalf("echo said %q, %v", b, err)
	}
}

func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	eventuallyOr(15*time.Second, f, func() { t.Fatalf("waited too long for %s", what) })
}

func eventuallyOr(d time.Duration, f func() bool, or func()) {
	for deadline := time.Now().Add(d); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			or()
			return
		}
	}
}

func raiseFiles(t *testing.T) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
}
