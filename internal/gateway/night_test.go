package gateway_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
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

// configMap is a directory as the kubelet mounts a ConfigMap: the file is a
// link into ..data, which is a link to the directory of a version.
type configMap struct {
	dir string
	n   int
}

func (m *configMap) file() string { return filepath.Join(m.dir, "pando.yaml") }

func (m *configMap) write(t *testing.T, text string) {
	t.Helper()
	m.n++
	version := fmt.Sprintf("..v%d", m.n)
	next := filepath.Join(m.dir, "..next")
	for _, err := range []error{
		os.Mkdir(filepath.Join(m.dir, version), 0o755),
		os.WriteFile(filepath.Join(m.dir, version, "pando.yaml"), []byte(text), 0o644),
		os.Symlink(version, next),
		os.Rename(next, filepath.Join(m.dir, "..data")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	os.Symlink("..data/pando.yaml", m.file()) // it is there but for the first time
}

func reload(t *testing.T, w *world) {
	m := &configMap{dir: t.TempDir()}
	m.write(t, "log: {level: info}\n")
	hangup := make(chan os.Signal)
	var level slog.LevelVar
	r := w.startWith(t, withAdmin, func(base config.Config, o *gateway.Options) {
		o.Files, o.Hangup, o.Level = []string{m.file()}, hangup, &level
		o.Load = func() (config.Config, error) {
			// The port is 0 for the system to choose, which a file may not say.
			cfg := base
			cfg.Listen.Proxy, cfg.Listen.Admin = "127.0.0.1:1", "127.0.0.1:2"
			cfg, err := config.LoadOver(cfg, m.file(), nil, nil)
			cfg.Listen.Proxy, cfg.Listen.Admin = base.Listen.Proxy, base.Listen.Admin
			return cfg, err
		}
	})
	countBytes(w, 7200)
	tunnel, br := r.connectTo(t, testnet.APIName+":7200", "")
	get := func(host string) string {
		return w.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "-x", "http://"+r.addr, "http://"+host+"/")
	}
	metric := func(name string) float64 { return value(t, r, name) }
	if got := get("new.example.com"); got != "502" {
		t.Fatalf("before: %s", got)
	}

	// A host, a rule, limits and the log level, without touching the tunnel.
	m.write(t, "resolve: {hosts: {new.example.com: [\""+testnet.APIAddr.String()+"\"]}}\npolicy: {rules: [{names: [old.example.com], action: deny}]}\nlimits: {dials: 77}\nlog: {level: debug}\n")
	eventually(t, "the new host", func() bool { return metric(`pando_config_reloads_total{outcome="ok"}`) == 1 })
	if a, b := get("new.example.com"), get("old.example.com"); a != "200" || b != "403" {
		t.Errorf("after the change: %s, %s; want 200, 403", a, b)
	}
	if _, st := r.admin(t, "/status"); !strings.Contains(st, `"most": 77`) || level.Level() != slog.LevelDebug {
		t.Errorf("the limit or the level did not change: %v %s", level.Level(), st)
	}
	// A file that is being written, slowly, is no configuration.
	if err := os.WriteFile(filepath.Join(m.dir, "..data", "pando.yaml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	hangup <- nil
	eventually(t, "the empty file to be refused", func() bool { return metric(`pando_config_reloads_total{outcome="failed"}`) == 1 })
	if b := get("old.example.com"); b != "403" {
		t.Errorf("an empty file took the rules away: %s", b)
	}

	// A mistake changes nothing, and is to be seen everywhere.
	m.write(t, "policy: {rules: [{names: [new.example.com], action: perhaps}]}\n")
	eventually(t, "the mistake", func() bool { return metric(`pando_config_reloads_total{outcome="failed"}`) == 2 })
	if a, b := get("new.example.com"), get("old.example.com"); a != "200" || b != "403" {
		t.Errorf("after a mistake: %s, %s; want 200, 403", a, b)
	}
	if metric("pando_config_last_reload_successful") != 0 {
		t.Error("the metric does not know of the mistake")
	}
	if code, body := r.admin(t, "/readyz?verbose"); code != 200 || !strings.Contains(body, `[+]configuration ok: the last change was not valid, the configuration before it goes on: policy.rules[0].action: "perhaps" is not known`) {
		t.Errorf("readyz: %d %s", code, body)
	}

	// What wants a restart is named; the rest applies.
	m.write(t, "drain: {timeout: 99s}\n")
	eventually(t, "the good file", func() bool { return metric(`pando_config_reloads_total{outcome="ok"}`) == 2 })
	if got := get("new.example.com"); got != "502" {
		t.Errorf("a host that was taken out: %s", got)
	}
	if _, body := r.admin(t, "/readyz?verbose"); !strings.Contains(body, "[+]configuration ok: waiting for a restart: drain.timeout") || metric("pando_config_restart_needed") != 1 {
		t.Errorf("readyz: %s", body)
	}
	hangup <- nil // SIGHUP has the file read even when it did not change
	eventually(t, "the hangup", func() bool { return metric(`pando_config_reloads_total{outcome="ok"}`) == 3 })

	tunnel.Write(make([]byte, half))
	tunnel.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || string(b) != fmt.Sprint("got ", half) {
		t.Errorf("the tunnel: %q, %v", b, err)
	}
	r.flows.mu.Lock()
	defer r.flows.mu.Unlock()
	for _, line := range []string{"configuration reloaded", "the changed configuration is not valid", "some changes want a restart"} {
		if !strings.Contains(r.flows.all.String(), line) {
			t.Errorf("the log lacks %q", line)
		}
	}
}

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

func limits(t *testing.T, w *world) {
	silentAddr := netip.AddrPortFrom(testnet.APIAddr, 7210)
	w.cloud.Handle(silentAddr, func(c net.Conn) { io.Copy(io.Discard, c); c.Close() })
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Limits = config.Limits{Connections: 3, PerClient: 2, Dials: 1}
	})
	open := func() net.Conn { c, _ := r.connectTo(t, silentAddr.String(), ""); return c }
	first, second := open(), open()
	// The third of this client: in HTTP, whatever it asks, and in SOCKS5.
	c := r.raw(t)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", silentAddr)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(resp.Header.Get("Proxy-Status"), "error=connection_limit_reached") {
		t.Errorf("the third connection: %v, %v", resp, err)
	}
	c = r.raw(t)
	c.Write([]byte{5, 1, 0})
	expect(t, c, []byte{5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0})
	if c.CloseWrite(); true {
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("SOCKS5, after the reply: %q, %v", b, err)
		}
	}
	// Another client is not concerned, until there is no room at all.
	other := func() net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		c, err := d.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	ask := func(c net.Conn) int {
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", silentAddr)
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "CONNECT"})
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	if a, b := ask(other()), ask(other()); a != 200 || b != 503 {
		t.Errorf("another client: %d, %d; want 200, 503", a, b)
	}
	m := scrape(t, r)
	if m[`pando_limit_refusals_total{limit="per_client"}`] != 2 || m[`pando_limit_refusals_total{limit="connections"}`] != 1 || m["pando_connections"] != 3 || m["pando_clients"] != 2 {
		t.Errorf("metrics: %v", m)
	}
	// Who leaves makes room.
	first.Close()
	eventually(t, "room for one", func() bool { return value(t, r, "pando_connections") == 2 })
	first = open()
	first.Close()
	second.Close()
	eventually(t, "room for two", func() bool { return value(t, r, "pando_connections") == 1 })

	// One dial at a time: a second one is told to come again.
	fmt.Fprintf(r.raw(t), "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", w.nobody(t, r))
	eventually(t, "a dial", func() bool { return value(t, r, "pando_dials") == 1 })
	if code := ask(other()); code != 503 {
		t.Errorf("a second dial: %d", code)
	}
	if f := r.flows.find(t, silentAddr.String()); f["class"] != "ok" && f["class"] != "canceled" {
		t.Errorf("flow line %v", f)
	}
}

// nobody returns an address that a peer carries and where nothing answers.
func (w *world) nobody(t *testing.T, r *replica) netip.AddrPort {
	t.Helper()
	gone, err := w.net.StartCloud(within(t, 20*time.Second), "gone", nil)
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort("10.77.0.1:80")
	if err := w.net.ApproveRoutes("gone", netip.MustParsePrefix("10.77.0.0/16")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the route to nobody", func() bool { return r.gw.Node().Routes(dead.Addr()) })
	gone.Close()
	t.Cleanup(func() { w.net.ApproveRoutes("gone") }) // it must not be waited for
	return dead
}

// slowAndHeavy: heads and bodies that do not come, or come too big.
func slowAndHeavy(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.HTTP.HeaderTimeout = config.Duration(300 * time.Millisecond)
		c.HTTP.BodyTimeout = config.Duration(300 * time.Millisecond)
		c.HTTP.MaxHeaders = 20
		c.HTTP.MaxHeaderBytes = 4096
	})
	for _, c := range []struct{ name, send, want string }{
		{"head_that_stops", "GET http://" + originHost + "/echo HTTP/1.1\r\nHost", "HTTP/1.1 408 "},
		{"body_that_stops", "POST http://" + originHost + "/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", "HTTP/1.1 408 "},
		{"chunk_that_stops", "POST http://" + originHost + "/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "HTTP/1.1 408 "},
		{"many_fields", "GET http://" + originHost + "/echo HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 20) + "\r\n", "HTTP/1.1 431 "},
		{"as_many_as_may", "GET http://" + originHost + "/echo HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 18) + "Connection: close\r\n\r\n", "HTTP/1.1 200 "},
		{"large_fields", "GET http://" + originHost + "/echo HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("b", 5000) + "\r\n\r\n", "HTTP/1.1 431 "},
	} {
		begin := time.Now()
		conn := r.raw(t)
		io.WriteString(conn, c.send)
		line, err := bufio.NewReader(conn).ReadString('\n')
		// An echo may answer before the body has stopped: then the answer is cut.
		if !strings.HasPrefix(line, c.want) && !(c.want == "HTTP/1.1 408 " && strings.HasPrefix(line, "HTTP/1.1 200 ") && strings.Contains(c.name, "that_stops")) {
			t.Errorf("%s: %q, %v; want %s", c.name, line, err, c.want)
		}
		io.Copy(io.Discard, conn)
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("%s took %v", c.name, took)
		}
	}
	if f := r.flows.matching(originHost); len(f) != 3 { // the others asked for nothing that could be read
		t.Errorf("flow lines %v", f)
	}
}

func idleTunnel(t *testing.T, w *world) {
	countBytes(w, 7220)
	r := w.start(t, func(c *config.Config) { c.Tunnel.IdleTimeout = config.Duration(400 * time.Millisecond) })
	begin := time.Now()
	busy, br := r.connectTo(t, testnet.APIName+":7220", "")
	_, idle := r.connectTo(t, testnet.APIName+":7220", "x")
	gone := make(chan error, 1)
	go func() { _, err := io.ReadAll(idle); gone <- err }()
	for len(gone) == 0 {
		if _, err := busy.Write([]byte("x")); err != nil {
			t.Fatalf("the busy one: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
		if time.Since(begin) > 15*time.Second {
			t.Fatal("the idle tunnel lives")
		}
	}
	if err := <-gone; err == nil {
		t.Error("the idle one ended cleanly")
	}
	if f := r.flows.find(t, ":7220"); f["class"] != "idle" || !strings.Contains(f["hint"].(string), "tunnel.idleTimeout") {
		t.Errorf("flow line %v", f)
	}
	busy.CloseWrite()
	if _, err := io.ReadAll(br); err != nil {
		t.Errorf("the busy one: %v", err)
	}
	// An upload that goes on is not idle, though its origin says nothing.
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7221), func(c net.Conn) {
		defer c.Close()
		if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			n, _ := io.Copy(io.Discard, req.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%d", n)
		}
	})
	upload := r.raw(t)
	fmt.Fprintf(upload, "POST http://%s:7221/ HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\nConnection: close\r\n\r\n", testnet.APIName)
	for range 20 {
		io.WriteString(upload, "x")
		time.Sleep(50 * time.Millisecond)
	}
	if b, err := io.ReadAll(upload); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 ") || !strings.Contains(string(b), "\r\n20\r\n") {
		t.Errorf("a slow upload: %q, %v", b, err)
	}
}

// routeGone: a tunnel whose router carries its target no more ends in seconds,
// and says why.
func routeGone(t *testing.T, w *world) {
	countBytes(w, 7230)
	r := w.start(t, func(c *config.Config) { c.Tunnel.PeerTimeout = config.Duration(4 * time.Second) })
	tunnel, br := r.connectTo(t, testnet.APIName+":7230", "")
	if err := w.net.ApproveRoutes("cloud"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.net.ApproveRoutes("cloud", testnet.Network, testnet.Network6); err != nil {
			t.Error(err)
		}
		eventually(t, "the route to be back", func() bool { return r.gw.Node().Routes(testnet.APIAddr) })
	}()
	eventually(t, "the route to go", func() bool { return !r.gw.Node().Routes(testnet.APIAddr) })
	begin := time.Now()
	io.WriteString(tunnel, "lost")
	if _, err := io.ReadAll(br); err == nil {
		t.Error("it ended cleanly")
	}
	f := r.flows.find(t, ":7230")
	t.Logf("ended %v after the route went: %v; %v", time.Since(begin).Round(100*time.Millisecond), f["err"], f["hint"])
	// The kernel remembers, sometimes, that its route went.
	if f["class"] != "timeout" && !(w.mode == "kernel" && f["class"] == "unreachable") || !strings.Contains(f["hint"].(string), "no peer routes it any more") || time.Since(begin) > 15*time.Second {
		t.Errorf("flow line %v", f)
	}
}

func probeTargets(t *testing.T, w *world) {
	target := netip.AddrPortFrom(testnet.APIAddr, 7240)
	w.cloud.Handle(target, func(c net.Conn) { c.Close() })
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Probe.Targets = []string{testnet.APIName + ":7240"}
		c.Probe.Interval, c.Probe.Failures = config.Duration(50*time.Millisecond), 3
		c.Dial.Timeout = config.Duration(time.Second)
	})
	ready := func() bool { code, _ := r.admin(t, "/readyz"); return code == 200 }
	eventually(t, "the target to answer", ready)
	w.cloud.Handle(target, nil) // refused from now on
	eventually(t, "the target's failure", func() bool { return !ready() })
	if _, body := r.admin(t, "/readyz?verbose"); !strings.Contains(body, "[-]probe "+testnet.APIName+":7240 failed: dial") || value(t, r, "pando_probes_failing") != 1 {
		t.Errorf("readyz: %s", body)
	}
	w.cloud.Handle(target, func(c net.Conn) { c.Close() })
	eventually(t, "the target to be back", ready)
	if n := r.flows.count(); n != 0 {
		t.Errorf("%d probes were logged as flows", n)
	}
}

func status(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Listen.Pprof = true
	})
	countBytes(w, 7250)
	tunnel, _ := r.connectTo(t, testnet.APIName+":7250", "hello")
	var st struct {
		Mode    string
		Ready   bool
		Tailnet struct {
			Name             string
			Addrs            []string
			Up               bool
			ControlConnected bool
		}
		Peers []struct {
			Name, Path    string
			Routes        []string
			Online        bool
			LastHandshake *time.Time
		}
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
	var body string
	eventually(t, "the tunnel's bytes", func() bool {
		_, body = r.admin(t, "/status")
		if err := json.Unmarshal([]byte(body), &st); err != nil {
			t.Fatal(err)
		}
		return len(st.Flows) == 1 && st.Flows[0].Up == 5
	})
	if st.Mode != w.mode || !st.Ready || !st.Tailnet.Up || !st.Tailnet.ControlConnected || !strings.HasPrefix(st.Tailnet.Name, "gateway") || len(st.Tailnet.Addrs) != 2 {
		t.Errorf("the device: %s", body)
	}
	i := slices.IndexFunc(st.Peers, func(p struct {
		Name, Path    string
		Routes        []string
		Online        bool
		LastHandshake *time.Time
	}) bool {
		return strings.HasPrefix(p.Name, "cloud")
	})
	if i < 0 || !slices.Contains(st.Peers[i].Routes, testnet.Network.String()) || st.Peers[i].LastHandshake == nil || !strings.HasPrefix(st.Peers[i].Path, "direct ") {
		t.Errorf("the router: %+v", st.Peers)
	}
	if len(st.Zones) != 1 || st.Zones[0].Suffix != testnet.Zone || len(st.Resolvers) != 1 || st.Resolvers[0].Answered == nil {
		t.Errorf("names: %+v %+v", st.Zones, st.Resolvers)
	}
	if f := st.Flows[0]; f.Target != testnet.APIName+":7250" || f.Client != tunnel.LocalAddr().String() || f.Path != "tailnet" || f.Source != "zone "+testnet.Zone || st.FlowsTotal != 1 {
		t.Errorf("flows: %+v", st.Flows)
	}
	if strings.Contains(body, testnet.AuthKey) {
		t.Error("the status shows the auth key")
	}
	if code, _ := r.admin(t, "/debug/pprof/heap"); code != 200 {
		t.Errorf("profiles: %d", code)
	}
	for _, profile := range []string{"cmdline", "goroutine?debug=1"} {
		if _, body := r.admin(t, "/debug/pprof/"+profile); strings.Contains(body, testnet.AuthKey) || strings.Contains(body, os.Args[0]) && profile == "cmdline" {
			t.Errorf("%s tells too much", profile)
		}
	}
	// Without the control server it stays ready, and says so.
	w.net.StopControl()
	eventually(t, "the control server to be missed", func() bool {
		code, body := r.admin(t, "/readyz?verbose")
		return code == 200 && strings.Contains(body, "[+]tailnet ok: the control server is away") && value(t, r, "pando_tailnet_control_connected") == 0
	})
	if err := w.net.StartControl(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); !w.cloud.Status().Control || value(t, r, "pando_tailnet_control_connected") == 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the nodes did not find the control server again")
		}
	}
	tunnel.Close()
	eventually(t, "no flow", func() bool { return value(t, r, `pando_flows_active{front="connect"}`) == 0 })
}

func logSample(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Log.Sample = 10
	})
	for i := range 30 {
		c := r.raw(t)
		fmt.Fprintf(c, "GET http://%s/status/204 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", originHost)
		io.Copy(io.Discard, c)
		if i%10 == 0 {
			c := r.raw(t)
			fmt.Fprint(c, "GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			io.Copy(io.Discard, c)
		}
	}
	eventually(t, "all flows to be counted", func() bool {
		m := scrape(t, r)
		return m[`pando_flows_total{class="ok",front="http"}`] == 30 && m[`pando_flows_total{class="denied",front="http"}`] == 3
	})
	if ok, denied := len(r.flows.matching(originHost)), len(r.flows.matching("127.0.0.1")); ok != 3 || denied != 3 {
		t.Errorf("%d good flows were logged and %d bad ones; want 3 and 3", ok, denied)
	}
}

// metricsMove: a scrape at work differs from one at rest in every metric of
// ours, but for those that other cases move, or that must not move here.
func metricsMove(t *testing.T, w *world) {
	countBytes(w, 7260)
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Limits.PerClient = 3
		c.Drain.Settle = config.Duration(2 * time.Second)
	})
	before := scrape(t, r)
	tunnel, _ := r.connectTo(t, testnet.APIName+":7260", "x")
	w.curl(t, "-x", "http://"+r.addr, "http://"+testnet.APIName+"/")
	w.curl(t, "-x", "socks5h://"+r.addr, "http://"+testnet.APIName+"/")
	eventually(t, "curl to be gone", func() bool { return value(t, r, "pando_connections") == 1 })
	r.connectTo(t, testnet.APIName+":7260", "x")
	r.connectTo(t, testnet.APIName+":7260", "x")
	refused := r.raw(t)
	io.WriteString(refused, "GET")
	io.Copy(io.Discard, refused)
	r.drain()
	eventually(t, "the drain", func() bool { return value(t, r, "pando_draining") == 1 })
	after := scrape(t, r)
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
			"pando_probes_failing", "pando_dials", "pando_tailnet_sessions_mended_total", // the cases reload, probe_targets, limits and the engine's own
			"pando_tailnet_up", "pando_tailnet_control_connected", "pando_tailnet_key_expiry_timestamp_seconds", "pando_tailnet_peers", "pando_tailnet_routes", "pando_tailnet_routers": // true from the start; the case status moves what the control server does
		default:
			if !moved[f] {
				t.Errorf("%s did not move", f)
			}
		}
	}
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
	tunnel.Close()
}

// drainMany holds 500 transfers through a drain: those that end within the
// time end well, the others are cut, and counted.
func drainMany(t *testing.T, w *world) {
	const good, late, size = 400, 100, 16 << 10
	port := uint16(7270)
	release := make(chan struct{})
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, port), func(c net.Conn) {
		defer c.Close()
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		if string(b) == "good" {
			<-release
			c.Write(make([]byte, size))
			return
		}
		io.Copy(io.Discard, c) // never answers
	})
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Drain.Settle, c.Drain.Timeout = config.Duration(100*time.Millisecond), config.Duration(3*time.Second)
	})
	var ok, cut atomic.Int32
	var started, all sync.WaitGroup
	for i := range good + late {
		what := "good"
		if i >= good {
			what = "late"
		}
		started.Add(1)
		all.Go(func() {
			c, br := r.connectTo(t, netip.AddrPortFrom(testnet.APIAddr, port).String(), what)
			started.Done()
			b, err := io.ReadAll(br)
			c.Close()
			switch {
			case what == "good" && err == nil && len(b) == size:
				ok.Add(1)
			case what == "late" && err != nil:
				cut.Add(1)
			default:
				t.Errorf("%s: %d bytes, %v", what, len(b), err)
			}
		})
	}
	started.Wait()
	begin := time.Now()
	r.drain()
	eventually(t, "the port to close", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(release)
	all.Wait()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	lines := map[string]int{}
	for _, f := range r.flows.matching(fmt.Sprint(":", port)) {
		lines[f["class"].(string)]++
	}
	t.Logf("drained in %v: %d transfers ended well, %d were cut; flow lines %v", time.Since(begin).Round(10*time.Millisecond), ok.Load(), cut.Load(), lines)
	if ok.Load() != good || cut.Load() != late || lines["ok"] != good || lines["cut"] != late {
		t.Errorf("%d ended well and %d were cut, want %d and %d; flow lines %v", ok.Load(), cut.Load(), good, late, lines)
	}
}
