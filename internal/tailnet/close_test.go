package tailnet_test

import (
	"io"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// TestClosesWithTunnels closes a node with many tunnels in use. It checks that
// this is quick and ends every reader.
func TestClosesWithTunnels(t *testing.T) { eachModeAlone(t, closesWithTunnels) }

func closesWithTunnels(t *testing.T, w *world) {
	tunnels := 2000
	limit := 2 * time.Second
	if raceEnabled { // the detector makes both expensive; make test runs this without it too
		tunnels = 500
		limit = 10 * time.Second
	}
	raiseFiles(t)
	n := w.join(t, "tunnels", tailnet.Options{})
	addr := w.cloud.Serve(echo)
	conns := make([]net.Conn, tunnels)
	var dials errgroup.Group
	dials.SetLimit(64)
	for i := range conns {
		dials.Go(func() (err error) {
			conns[i], err = n.DialTCP(testkit.Within(t, connTime), addr)
			if err == nil {
				_, err = io.WriteString(conns[i], "x")
			}
			return err
		})
	}
	if err := dials.Wait(); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for _, c := range conns {
		readers.Go(func() { io.Copy(io.Discard, c) })
	}
	start := time.Now()
	if w.mode == tailnet.Kernel {
		for _, c := range conns { // they are the kernel's, so the caller closes them
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}
	if err := n.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	took := time.Since(start)
	t.Logf("closed with %d tunnels in %v", tunnels, took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("Close() took %v with %d tunnels, want less than %v", took, tunnels, limit)
	}
	done := make(chan struct{})
	go func() { readers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("readers of the node's connections still wait after Close")
	}
	for _, c := range conns {
		c.Close()
	}
}

// TestLeavesNothingBehind compares the goroutines after one node was started and
// closed with those after four. In kernel mode it also looks for what is left in
// the kernel.
func TestLeavesNothingBehind(t *testing.T) { eachModeAlone(t, leavesNothing) }

func leavesNothing(t *testing.T, w *world) {
	store := tailnet.MemoryStore() // one device: the cloud keeps goroutines for each device that it has met
	startAndClose := func() {
		n := w.join(t, "leaves", tailnet.Options{Store: store})
		c := dial(t, n, netip.AddrPortFrom(testnet.APIAddr, 80))
		io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		if _, err := io.ReadAll(c); err != nil { // to the end: what the cloud keeps would be counted
			t.Error(err)
		}
		c.Close()
		if err := n.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	}
	startAndClose()
	var before map[string]int
	// A second after an interface has gone the cloud asks for its network map again. Until
	// it has an answer, some of its goroutines are missing.
	testkit.Eventually(t, "the cloud to follow its network map", func() bool {
		awaitFewest()
		before = goroutines()
		return before[mapSession] == 1
	})
	for range 3 {
		startAndClose()
	}
	var more map[string]int
	testkit.EventuallyOr(time.Minute, func() bool {
		more = goroutines()
		for stack, n := range before {
			more[stack] -= n
		}
		maps.DeleteFunc(more, func(_ string, n int) bool { return n <= 0 })
		return len(more) == 0
	}, func() {
		for stack, n := range more {
			t.Errorf("%d more goroutines after 4 nodes than after 1, want 0; created by\n%s", n, stack)
		}
	})
	if w.mode == tailnet.Kernel {
		checkKernelClean(t)
	}
}

// mapSession is where the engine creates the goroutine that follows a network map.
const mapSession = "tailscale.com/control/controlclient.newMapSession"

// goroutines counts the running goroutines by the place where they were created.
func goroutines() map[string]int {
	buf := make([]byte, 16<<20)
	buf = buf[:runtime.Stack(buf, true)]
	counts := map[string]int{}
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		_, created, _ := strings.Cut(g, "created by ")
		created, _, _ = strings.Cut(created, " in goroutine")
		counts[created]++
	}
	return counts
}

// awaitFewest waits until the number of goroutines has stopped falling.
func awaitFewest() {
	for last := runtime.NumGoroutine() + 1; runtime.NumGoroutine() < last; {
		last = runtime.NumGoroutine()
		time.Sleep(500 * time.Millisecond) // the runtime has no event for the end of a goroutine
	}
}

// raiseFiles lets this process open as many files as it may.
func raiseFiles(t *testing.T) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
}
