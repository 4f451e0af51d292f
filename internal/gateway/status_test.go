package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// admin asks the replica's admin port.
func (r *replica) admin(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + r.gw.AdminAddr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func withAdmin(c *config.Config) { c.Listen.Admin = "127.0.0.1:0" }

// value reads one metric; 0 when it is not there.
func value(t *testing.T, r *replica, name string) float64 {
	t.Helper()
	return scrape(t, r)[name]
}

func scrape(t *testing.T, r *replica) map[string]float64 {
	t.Helper()
	_, body := r.admin(t, "/metrics")
	m := map[string]float64{}
	for line := range strings.Lines(body) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			v, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
			if err != nil {
				t.Fatal(err)
			}
			m[line[:i]] = v
		}
	}
	return m
}

func TestProbeTargets(t *testing.T) { userspace(t, sharedTailnet, probeTargets) }

func probeTargets(t *testing.T, w *world) {
	addr := w.cloud.NewAddr()
	target := testnet.NamePort(addr)
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Probe.Targets = []config.Target{parseTarget(target)}
		c.Probe.Interval = config.Duration(50 * time.Millisecond)
		c.Probe.Failures = 3
		c.Dial.Timeout = config.Duration(time.Second)
	})
	ready := func() bool { code, _ := r.admin(t, "/readyz"); return code == 200 }
	testkit.Eventually(t, "the log to say that the target never answered", func() bool {
		r.flows.mu.Lock()
		defer r.flows.mu.Unlock()
		return strings.Contains(r.flows.all.String(), "probe target does not answer")
	})
	if ready() {
		t.Error("ready, and its target does not answer")
	}
	w.cloud.Handle(addr, func(c net.Conn) { c.Close() })
	testkit.Eventually(t, "the target to answer", ready)
	w.cloud.Handle(addr, nil) // refused from now on
	testkit.Eventually(t, "the target's failure", func() bool { return !ready() })
	if _, body := r.admin(t, "/readyz?verbose"); !strings.Contains(body, "[-]probe "+target+" failed: dial") || value(t, r, "pando_probes_failing") != 1 {
		t.Errorf("readyz: %s", body)
	}
	w.cloud.Handle(addr, func(c net.Conn) { c.Close() })
	testkit.Eventually(t, "the target to be back", ready)
	if n := r.flows.count(); n != 0 {
		t.Errorf("%d flow lines, want none for probes", n)
	}
}

// shownStatus is the part of /status that status checks. It reads the JSON as other
// programs do.
type shownStatus struct {
	Mode    string
	Ready   bool
	Tailnet struct {
		Name             string
		Addrs            []string
		Up               bool
		ControlConnected bool
	}
	Peers     []shownPeer
	Zones     []struct{ Suffix string }
	Resolvers []struct {
		Server   string
		Answered *time.Time
	}
	FlowsTotal int
	Flows      []struct {
		Target, Client, Path, Source string
		Up                           int
	}
}

type shownPeer struct {
	Name, Path    string
	Routes        []string
	LastHandshake *time.Time
}

func TestStatus(t *testing.T) { eachMode(t, sharedTailnet, status) }

func status(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Listen.Pprof = true
	})
	target := w.countBytes()
	tunnel, _ := r.connectTo(t, target, "hello")
	var st shownStatus
	var body string
	testkit.Eventually(t, "the tunnel's bytes", func() bool {
		_, body = r.admin(t, "/status")
		if err := json.Unmarshal([]byte(body), &st); err != nil {
			t.Fatal(err)
		}
		return len(st.Flows) == 1 && st.Flows[0].Up == 5
	})
	st.check(t, w, body)
	if f := st.Flows[0]; f.Target != target || f.Client != tunnel.LocalAddr().String() || f.Path != "tailnet" || f.Source != "zone "+testnet.Zone || st.FlowsTotal != 1 {
		t.Errorf("flows: %+v", st.Flows)
	}
	checkSecrecy(t, r, body)
	tunnel.Close()
	testkit.Eventually(t, "no flow", func() bool { return value(t, r, `pando_flows_active{front="connect"}`) == 0 })
}

// check checks what st, which is body, says of the device, its peers and names.
func (st *shownStatus) check(t *testing.T, w *world, body string) {
	t.Helper()
	if st.Mode != string(w.mode) || !st.Ready || !st.Tailnet.Up || !st.Tailnet.ControlConnected || !strings.HasPrefix(st.Tailnet.Name, "gateway") || len(st.Tailnet.Addrs) != 2 {
		t.Errorf("the device: %s", body)
	}
	i := slices.IndexFunc(st.Peers, func(p shownPeer) bool { return strings.HasPrefix(p.Name, "cloud") })
	if i < 0 || !slices.Contains(st.Peers[i].Routes, testnet.Network.String()) || st.Peers[i].LastHandshake == nil || !strings.HasPrefix(st.Peers[i].Path, "direct ") {
		t.Errorf("the router: %+v", st.Peers)
	}
	if len(st.Zones) != 1 || st.Zones[0].Suffix != testnet.Zone || len(st.Resolvers) != 1 || st.Resolvers[0].Answered == nil {
		t.Errorf("names: %+v %+v", st.Zones, st.Resolvers)
	}
}

// checkSecrecy checks that the status, which is body, and the profiles show no secret.
func checkSecrecy(t *testing.T, r *replica, body string) {
	t.Helper()
	if strings.Contains(body, testnet.AuthKey) {
		t.Error("the status shows the auth key")
	}
	if code, _ := r.admin(t, "/debug/pprof/heap"); code != 200 {
		t.Errorf("profiles: %d", code)
	}
	for _, profile := range []string{"cmdline", "goroutine?debug=1"} {
		if _, body := r.admin(t, "/debug/pprof/"+profile); strings.Contains(body, testnet.AuthKey) || strings.Contains(body, os.Args[0]) && profile == "cmdline" {
			t.Errorf("%s shows a secret", profile)
		}
	}
}

func TestControlServerAway(t *testing.T) { userspace(t, ownTailnet, controlAway) }

// controlAway checks that a replica stays ready without the control server, and
// says that it is away.
func controlAway(t *testing.T, w *world) {
	r := w.start(t, withAdmin)
	w.net.StopControl()
	testkit.Eventually(t, "the control server to be missed", func() bool {
		code, body := r.admin(t, "/readyz?verbose")
		return code == 200 && strings.Contains(body, "[+]tailnet ok: control server unreachable") && value(t, r, "pando_tailnet_control_connected") == 0
	})
	if err := w.net.StartControl(); err != nil {
		t.Fatal(err)
	}
	// The nodes look for it at growing intervals, so this takes longer than most waits.
	testkit.EventuallyOr(time.Minute, func() bool {
		return w.cloud.Status().Control && value(t, r, "pando_tailnet_control_connected") == 1
	}, func() { t.Fatal("the nodes did not find the control server again") })
}

func TestLogSample(t *testing.T) { userspace(t, sharedTailnet, logSample) }

func logSample(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Log.Sample = 10
	})
	for i := range 30 {
		c := r.raw(t)
		fmt.Fprintf(c, "GET http://%s/status/204 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", w.origin.host)
		io.Copy(io.Discard, c)
		if i%10 == 0 {
			c := r.raw(t)
			fmt.Fprint(c, "GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			io.Copy(io.Discard, c)
		}
	}
	testkit.Eventually(t, "all flows to be counted", func() bool {
		m := scrape(t, r)
		return m[`pando_flows_total{class="ok",front="http"}`] == 30 && m[`pando_flows_total{class="denied",front="http"}`] == 3
	})
	if ok, denied := len(r.flows.matching(w.origin.host)), len(r.flows.matching("127.0.0.1")); ok != 3 || denied != 3 {
		t.Errorf("%d good flows were logged and %d bad ones; want 3 and 3", ok, denied)
	}
}

func TestEveryMetricMoves(t *testing.T) { eachMode(t, ownTailnet, metricsMove) }

// metricsMove checks that a scrape at work differs from one at rest in every
// metric of ours, except those that other tests move or that must not move here.
func metricsMove(t *testing.T, w *world) {
	target := w.countBytes()
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Limits.PerClient = 3
		c.Dial.Timeout = config.Duration(10 * time.Second)
		c.Drain.Settle = config.Duration(time.Hour) // until the test has looked at it
	})
	before := scrape(t, r)
	tunnel, _ := r.connectTo(t, target, "x")
	w.curl(t, "-x", "http://"+r.addr, "http://"+testnet.APIName+"/")
	w.curl(t, "-x", "socks5h://"+r.addr, "http://"+testnet.APIName+"/")
	testkit.Eventually(t, "curl to be gone", func() bool { return value(t, r, "pando_connections") == 1 })
	mended(t, w, r, w.cloud.Serve(func(c net.Conn) { c.Close() }).String())
	r.connectTo(t, target, "x")
	r.connectTo(t, target, "x")
	refused := r.raw(t)
	io.WriteString(refused, "GET")
	io.Copy(io.Discard, refused)
	r.drain()
	testkit.Eventually(t, "the drain", func() bool { return value(t, r, "pando_draining") == 1 })
	after := scrape(t, r)
	checkMoved(t, before, after)
	checkPresent(t, after)
	tunnel.Close()
}

// checkMoved checks that all metrics differ between two scrapes, except those that
// other tests move or that must not move.
func checkMoved(t *testing.T, before, after map[string]float64) {
	t.Helper()
	family := regexp.MustCompile(`^pando_[a-z_]+`)
	moved := map[string]bool{}
	for name, v := range after {
		if f := family.FindString(name); f != "" {
			moved[f] = moved[f] || before[name] != v
		}
	}
	for _, f := range slices.Sorted(maps.Keys(moved)) {
		switch f {
		case "pando_build_info", "pando_config_reloads_total", "pando_config_last_reload_successful", "pando_config_last_reload_success_timestamp_seconds", "pando_config_restart_needed",
			"pando_probes_failing", "pando_dials", // the cases reload, probe_targets and limits
			"pando_memory_budget_bytes",                           // the machine's, which does not change
			"pando_panics_total",                                  // TestPanicEndsOneFlow of package datapath
			"pando_dropped_trailer_fields_total",                  // TestMayTrail of package wire
			"pando_dns_answers_total",                             // the case dns_answerer
			"pando_tailnet_up", "pando_tailnet_control_connected", // TestEarlyConnection and the case status
			"pando_tailnet_key_expiry_timestamp_seconds", "pando_tailnet_peers", "pando_tailnet_routes", "pando_tailnet_routers": // the case key_expiry_peers_and_routes
		default:
			if !moved[f] {
				t.Errorf("%s did not move", f)
			}
		}
	}
}

// checkPresent checks that the metrics of the tailnet are not 0, and that the
// engine's own are there.
func checkPresent(t *testing.T, after map[string]float64) {
	t.Helper()
	for _, f := range []string{"pando_tailnet_up", "pando_tailnet_control_connected", "pando_tailnet_peers", "pando_tailnet_routes", `pando_tailnet_routers{path="direct"}`} {
		if after[f] == 0 {
			t.Errorf("%s is 0", f)
		}
	}
	engine := 0
	for name := range after {
		if strings.HasPrefix(name, "tailscaled_") {
			engine++
		}
	}
	if engine == 0 {
		t.Error("the engine's own metrics are missing")
	}
}

// mended makes the router lose its side of the session, until the replica finds
// the loss before the router has begun a new session by itself.
func mended(t *testing.T, w *world, r *replica, addr string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); value(t, r, "pando_tailnet_sessions_mended_total") == 0; {
		if time.Now().After(end) {
			t.Error("no lost session was mended")
			return
		}
		w.cloud.ResetSession(r.gw.Device().Addrs()[0])
		c, _ := r.connectTo(t, addr, "x") // its dial has to wait
		c.Close()
	}
}

func TestKeyExpiryPeersAndRoutes(t *testing.T) { userspace(t, ownTailnet, keyExpiry) }

// keyExpiry checks that a key which ends soon is shown and warned of, and that
// peers and routes are counted as they come.
func keyExpiry(t *testing.T, w *world) {
	edit := func(dir string) func(*config.Config) {
		return func(c *config.Config) {
			withAdmin(c)
			c.Tailnet.Hostname = "expiring"
			c.Tailnet.StateDir = dir
		}
	}
	dir := t.TempDir()
	first := w.start(t, edit(dir))
	if m := scrape(t, first); m["pando_tailnet_key_expiry_timestamp_seconds"] != 0 {
		t.Errorf("a key that never expires: %v", m["pando_tailnet_key_expiry_timestamp_seconds"])
	}
	first.kill()
	if err := first.wait(); err != nil {
		t.Fatal(err)
	}
	ends := time.Now().Add(50 * time.Hour).Truncate(time.Second)
	if err := w.net.SetKeyExpiry("expiring", ends); err != nil {
		t.Fatal(err)
	}
	r := w.start(t, edit(dir))
	before := scrape(t, r)
	if got := before["pando_tailnet_key_expiry_timestamp_seconds"]; got != float64(ends.Unix()) {
		t.Errorf("the metric says %v, want %v", got, ends.Unix())
	}
	if _, st := r.admin(t, "/status"); !strings.Contains(st, `"keyExpiry": "`+ends.UTC().Format("2006-01-02T15:04:05")) {
		t.Errorf("the status does not show the end of the key: %s", st)
	}
	testkit.Eventually(t, "the warning", func() bool {
		r.flows.mu.Lock()
		defer r.flows.mu.Unlock()
		return strings.Contains(r.flows.all.String(), "device key expires soon")
	})
	w.deadTarget(t, r) // a router with one route
	testkit.Eventually(t, "one router more", func() bool {
		after := scrape(t, r)
		routers := func(m map[string]float64) (n float64) {
			for name, v := range m {
				if strings.HasPrefix(name, "pando_tailnet_routers{") {
					n += v
				}
			}
			return n
		}
		return after["pando_tailnet_peers"] == before["pando_tailnet_peers"]+1 &&
			after["pando_tailnet_routes"] == before["pando_tailnet_routes"]+1 && routers(after) == routers(before)+1
	})
}
