//go:build abuse && linux

package abuse

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
)

// silentAddr is an address that a peer routes and where nothing answers.
var silentAddr = netip.MustParseAddrPort("10.77.0.1:80")

// silentConnects is the name of an attack.
const silentConnects = "CONNECTs to a silent target (2,200)"

// silentAttacks are attacks that need a silent target.
var silentAttacks = []attack{{silentConnects, connectSilent}}

// TestSilent attacks a replica with the least memory: a client sends 2,200 CONNECTs to a
// target that does not answer, again and again, and four clients hold 4,096 tunnels
// each, or as many as they get.
func TestSilent(t *testing.T) { nstest.EachModeAlone(t, silent) }

func silent(t *testing.T, mode tailnet.Mode) {
	attack := time.Minute
	if testing.Short() {
		attack = 15 * time.Second // longer than dial.timeout
	}
	a := newArena(t, mode, 128<<20, config.Default().Limits.Connections)
	a.routeSilent()
	before := a.innocent(t.Context(), 2*time.Second)
	peak := a.watchPeak(t.Context())
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, name := range []string{silentConnects, idleTunnelsAttack} {
		running.Go(func() { a.attack(ctx, name) })
	}
	during := a.innocent(ctx, attack)
	metrics := a.readMetrics("pando_limit_refusals_total")
	ready := a.readiness()
	stop()
	running.Wait()
	most, _ := peak()
	t.Logf("MEASURED %s mode, limit 128 MiB, a silent target and many tunnels for %v\n%s", mode, attack, table([][2]string{
		{"memory most", fmt.Sprintf("%d MiB", most>>20)},
		{"innocent client before: p50 / p99 / failures", before.String()},
		{"innocent client meanwhile", during.String()},
		{"readiness", ready},
	})+listMetrics(metrics))
	if !a.alive() || a.box.kills() != 0 {
		t.Fatalf("the replica ended: alive %v, killed for memory %d times", a.alive(), a.box.kills())
	}
	if n := len(during.failures); n != 0 {
		t.Errorf("the innocent client saw %d failures, want none; the first: %v", n, during.failures[0])
	}
	if strings.Contains(ready, silentAddr.String()) || !strings.Contains(ready, "only once a second: 1;") || metrics[`pando_limit_refusals_total{limit="target"}`] == 0 {
		t.Errorf("readiness %q and refusals %v do not tell of the silent target, or name it", ready, metrics)
	}
}

// routeSilent starts a router of silentAddr, waits until the replica has its route, and
// stops the router.
func (a *arena) routeSilent() {
	a.t.Helper()
	const name = "gone"
	router, err := a.net.StartCloud(testkit.Within(a.t, time.Minute), name, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	defer router.Close()
	prefix := netip.PrefixFrom(silentAddr.Addr(), 16).Masked()
	if err := a.net.ApproveRoutes(name, prefix); err != nil {
		a.t.Fatal(err)
	}
	testkit.Eventually(a.t, "the route of the silent target", func() bool {
		return strings.Contains(a.adminPage("/status"), prefix.String())
	})
}

// readiness returns the line of the readiness that is about dials.
func (a *arena) readiness() string {
	for line := range strings.Lines(a.adminPage("/readyz?verbose")) {
		if strings.Contains(line, "]dials ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// adminPage returns a page of the admin port, and "" without an answer.
func (a *arena) adminPage(path string) string {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + a.admin + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// connectSilent sends CONNECTs to the silent target, all at once, and each again a
// second after its answer.
func connectSilent(ctx context.Context, a *site) {
	var wg sync.WaitGroup
	for range max(2200/a.Scale, 1) {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := dialFrom(ctx, "127.0.4.1", a.Proxy)
				if err == nil {
					c.SetDeadline(time.Now().Add(30 * time.Second))
					connect(c, silentAddr) // it fails
					c.Close()
				}
				flow.Sleep(ctx.Done(), time.Second)
			}
		})
	}
	wg.Wait()
}
