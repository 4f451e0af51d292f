//go:build abuse && linux

package abuse

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
)

// TestGivesBack checks that memory goes back to the system after a burst of tunnels.
func TestGivesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED, NOT TESTED in the short form: it takes a minute; make abuse runs it")
	}
	nstest.EachModeAlone(t, givesBack)
}

func givesBack(t *testing.T, mode tailnet.Mode) {
	const most = 40 << 20 // more than before
	many := min(9500, openFiles()/2-600)
	a := newArena(t, mode, 512<<20, 4*many)
	if n := len(a.innocent(t.Context(), 2*time.Second).failures); n > 0 {
		t.Fatalf("%d failures before the burst", n)
	}
	idle := a.rss()
	conns := a.burst(many)
	if t.Failed() {
		return
	}
	height := a.rss()
	for _, c := range conns {
		c.SetLinger(0)
		c.Close()
	}
	closed := time.Now()
	testkit.EventuallyOr(30*time.Second, func() bool { return a.rss() <= idle+most }, func() {}) // judged below
	after := a.rss()
	t.Logf("MEASURED %s mode: RSS %d MiB when idle, %d MiB with %d tunnels, %d MiB %v after they were closed",
		mode, idle>>20, height>>20, many, after>>20, time.Since(closed).Round(time.Second))
	if after > idle+most {
		t.Errorf("RSS is %d MiB 30 s after a burst, and was %d MiB before; want at most %d MiB more", after>>20, idle>>20, most>>20)
	}
}

// burst opens many tunnels. A burst may exceed what new tunnels count as, so it
// tries again.
func (a *arena) burst(many int) []*net.TCPConn {
	conns := make([]*net.TCPConn, many)
	open := func(from string) (*net.TCPConn, error) {
		for {
			c, err := dialFrom(a.t.Context(), from, a.Proxy)
			if err != nil {
				return nil, err
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if connect(c, a.Idle) == nil {
				return c, nil
			}
			c.Close()
			flow.Sleep(a.t.Context().Done(), 100*time.Millisecond) // what is held is measured four times a second
		}
	}
	var wg sync.WaitGroup
	for part := range 16 {
		wg.Go(func() {
			for i := part; i < many; i += 16 {
				c, err := open(fmt.Sprintf("127.0.3.%d", 1+i%8))
				if err != nil {
					a.t.Error(err)
					return
				}
				conns[i] = c
			}
		})
	}
	wg.Wait()
	return conns
}

// rss returns the resident memory of the replica, in bytes.
func (a *arena) rss() int64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.process.Process.Pid))
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}
