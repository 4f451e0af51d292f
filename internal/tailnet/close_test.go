package tailnet_test

import (
	"io"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testnet"
)

// closesWithTunnels closes a node under 2,000 tunnels that are in the middle
// of things.
func closesWithTunnels(t *testing.T, w *world) {
	const tunnels = 2000
	raiseFiles(t)
	n := w.join(t, "tunnels", tailnet.Options{})
	addr := netip.AddrPortFrom(testnet.APIAddr, 7004)
	w.cloud.Handle(addr, echo)
	conns := make([]net.Conn, tunnels)
	var wg sync.WaitGroup
	sem := make(chan struct{}, 64)
	for i := range conns {
		wg.Go(func() {
			sem <- struct{}{}
			defer func() { <-sem }()
			c, err := n.DialTCP(within(t, 30*time.Second), addr)
			if err != nil {
				t.Errorf("dial: %v", err)
				return
			}
			io.WriteString(c, "x")
			conns[i] = c
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	var readers sync.WaitGroup
	for _, c := range conns {
		readers.Go(func() { io.Copy(io.Discard, c) })
	}
	start := time.Now()
	if w.mode == tailnet.Kernel {
		for _, c := range conns { // they are the kernel's, so the caller's to close
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	took := time.Since(start)
	t.Logf("closed with %d tunnels in %v", tunnels, took.Round(time.Millisecond))
	limit := 2 * time.Second
	if raceEnabled {
		limit = 10 * time.Second // the detector's cost; make test runs this without it too
	}
	if took > limit {
		t.Errorf("close took %v, want less than %v", took, limit)
	}
	done := make(chan struct{})
	go func() { readers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("readers of the node's connections still wait")
	}
	for _, c := range conns {
		c.Close()
	}
}

// leavesNothing compares the goroutines after one node came and went with
// those after four.
func leavesNothing(t *testing.T, w *world) {
	store := tailnet.MemoryStore() // one device: the cloud keeps goroutines for each it has met
	comeAndGo := func() {
		n := w.join(t, "leaves", tailnet.Options{Store: store})
		c := dial(t, n, netip.AddrPortFrom(testnet.APIAddr, 80))
		io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		if _, err := io.ReadAll(c); err != nil { // to the end: what the cloud keeps would be counted
			t.Error(err)
		}
		c.Close()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	comeAndGo()
	settled()
	before := goroutines()
	for range 3 {
		comeAndGo()
	}
	var more map[string]int
	eventuallyOr(20*time.Second, func() bool {
		more = goroutines()
		for stack, n := range before {
			more[stack] -= n
		}
		maps.DeleteFunc(more, func(_ string, n int) bool { return n <= 0 })
		return len(more) == 0
	}, func() {
		for stack, n := range more {
			t.Errorf("%d goroutines more after 4 nodes than after 1:\n%s", n, stack)
		}
	})
	if w.mode == tailnet.Kernel {
		noTraceInKernel(t)
	}
}

// goroutines counts the running goroutines by where they were created.
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

// settled waits until the number of goroutines has stopped falling.
func settled() {
	for last := runtime.NumGoroutine() + 1; runtime.NumGoroutine() < last; {
		last = runtime.NumGoroutine()
		time.Sleep(500 * time.Millisecond)
	}
}
