package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestDrain(t *testing.T) { eachMode(t, sharedTailnet, drain) }

func drain(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Drain.Settle = config.Duration(100 * time.Millisecond)
		c.Drain.Timeout = config.Duration(time.Minute)
	})
	target := w.countBytes()
	tunnel, br := r.connectTo(t, target, "")
	busy := r.raw(t)
	fmt.Fprintf(busy, "GET http://%s/hold HTTP/1.1\r\nHost: x\r\n\r\n", w.origin.host)
	<-w.origin.held
	silent := r.raw(t)
	idle := r.raw(t) // accepted in order: once it has its answer, silent is in too
	fmt.Fprintf(idle, "GET http://%s/echo HTTP/1.1\r\nHost: x\r\n\r\n", w.origin.host)
	if resp, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil || resp.Close {
		t.Fatalf("the idle client got %v, %v; want an answer that keeps the connection", resp, err)
	}

	r.drain()
	testkit.Eventually(t, "the port to close", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	for what, c := range map[string]net.Conn{"idle": idle, "silent": silent} {
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("the %s connection: %q, %v; want it closed", what, b, err)
		}
	}
	select {
	case err := <-r.ended:
		t.Fatalf("Run returned %v, with work left", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(w.origin.hold)
	resp, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil || resp.StatusCode != 200 || !resp.Close {
		t.Errorf("the busy request: %v, %v; want 200 and Connection: close", resp, err)
	}
	tunnel.Write(make([]byte, someBytes))
	tunnel.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || string(b) != fmt.Sprint("got ", someBytes) {
		t.Errorf("the tunnel: the target answered %q, %v; want got %d", b, err, someBytes)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestDrainSettles(t *testing.T) { eachMode(t, sharedTailnet, drainSettles) }

// drainSettles checks that new connections are served while a drain settles: a
// client may not know yet that the replica is leaving.
func drainSettles(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) { c.Drain.Settle = config.Duration(time.Hour) })
	target := w.countBytes()
	r.drain()
	r.flows.says(t, `"msg":"draining`)
	c, br := r.connectTo(t, target, "late")
	c.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || string(b) != "got 4" {
		t.Errorf("a late tunnel: the target answered %q, %v; want got 4", b, err)
	}
	// A second signal ends the drain. The test's cleanup sends it.
}

func TestDrainCutsLateWork(t *testing.T) { eachMode(t, sharedTailnet, drainCuts) }

func drainCuts(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) { c.Drain.Timeout = config.Duration(200 * time.Millisecond) })
	target := w.countBytes()
	_, br := r.connectTo(t, target, "x")
	// A request that its origin does not answer, half a head, and a client that goes
	// silent in its handshake, are cut too.
	head := r.raw(t)
	io.WriteString(head, "GET http://half.example.com/ HTTP/1.1\r\nHo")
	asked := make(chan bool)
	silent := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		asked <- true
		io.Copy(io.Discard, c)
		c.Close()
	}))
	request := r.raw(t)
	fmt.Fprintf(request, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", silent)
	<-asked
	socks := r.raw(t)
	socks.Write([]byte{5, 1, 0})
	if _, err := io.ReadFull(socks, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	r.drain()
	if _, err := io.ReadAll(br); err == nil {
		t.Error("a tunnel that was cut ended cleanly")
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	r.flows.mu.Lock()
	for _, f := range r.flows.lines {
		if f["class"] != "cut" {
			t.Errorf("a flow that the drain ended has class %v, want cut: %v", f["class"], f)
		}
		if f["status"] == 400.0 {
			t.Errorf("a flow has status 400, which no client was sent: %v", f)
		}
	}
	if n := len(r.flows.lines); n != 4 || !strings.Contains(r.flows.all.String(), `"connections":4,"tunnels":1,"requests":2`) {
		t.Errorf("%d flow lines, want 4 and the same in the log's summary: %s", n, r.flows.all.String())
	}
	r.flows.mu.Unlock()
	checkFlow(t, "the silent origin", r.flows.find(t, silent), fields{"class": "cut"})
	if f := r.flows.find(t, target); f["class"] != "cut" || !strings.Contains(f["err"].(string), "drain time is over") {
		t.Errorf("the tunnel: flow line %v, want class cut and that the drain time is over", f)
	}
}

// TestDrain500Transfers runs alone: beside 500 transfers, other tests would wait too long.
func TestDrain500Transfers(t *testing.T) {
	nstest.EachModeAlone(t, func(t *testing.T, mode tailnet.Mode) { drainMany(t, sharedTailnet(t, mode)) })
}

// drainMany checks transfers that are open when a drain begins: those that end
// before its end are whole, and then the others are cut and counted. 500 of them
// show it with a second signal, which comes when the good ones have ended, however
// long that takes. 30 show it with a drain time, within which the good ones must end:
// with 500 of them a slow machine would need a longer time, and the test would last
// as long everywhere.
func drainMany(t *testing.T, w *world) {
	for _, c := range []transfers{
		{name: "time_ends", good: 20, late: 10, timeout: 6 * time.Second, why: "the drain time is over"},
		{name: "second_signal", good: 400, late: 100, timeout: 5 * time.Minute, signal: true, why: "shutting down at once"},
	} {
		t.Run(c.name, func(t *testing.T) { c.drain(t, w) })
	}
}

// transfers are those that are open when a drain begins.
type transfers struct {
	name    string
	good    int // transfers that end before the drain does
	late    int // transfers that would never end
	timeout time.Duration
	signal  bool   // a second signal ends the drain
	why     string // why the late ones are cut, as their flow lines say
}

// transferSize is what a good transfer gets, in bytes.
const transferSize = 16 << 10

// drain checks the transfers c.
func (c transfers) drain(t *testing.T, w *world) {
	release := make(chan struct{})
	target := w.cloud.Serve(func(conn net.Conn) { answerTransfer(conn, release) })
	r := w.start(t, func(cfg *config.Config) {
		withAdmin(cfg)
		cfg.Drain.Settle = config.Duration(100 * time.Millisecond)
		cfg.Drain.Timeout = config.Duration(c.timeout)
		cfg.Dial.Timeout = config.Duration(30 * time.Second)
	})
	var run transferRun
	run.start(t, r, target.String(), c)
	begin := time.Now()
	r.drain()
	testkit.Eventually(t, "the port to close", func() bool {
		conn, err := net.Dial("tcp", r.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(release)
	run.good.Wait()
	took := time.Since(begin)
	if c.signal {
		testkit.Eventually(t, "the good ones to be booked", func() bool { return value(t, r, "pando_tunnels") == float64(c.late) })
		r.kill()
	}
	run.all.Wait()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	lines := map[string]int{}
	for _, f := range r.flows.matching(target.String()) {
		lines[f["class"].(string)]++
		if f["class"] == "cut" && !strings.Contains(fmt.Sprint(f["err"]), c.why) {
			t.Errorf("flow line %v, want %q", f, c.why)
		}
	}
	t.Logf("%d transfers ended well within %v; after %v %d were cut; flow lines %v", run.ok.Load(), took.Round(10*time.Millisecond), time.Since(begin).Round(10*time.Millisecond), run.cut.Load(), lines)
	if n := int(run.ok.Load()); n != c.good || lines["ok"] != n {
		t.Errorf("%d of %d ended well; flow lines %v", n, c.good, lines)
	}
	if n := int(run.cut.Load()); n != c.late || lines["cut"] != n || !strings.Contains(r.flows.all.String(), fmt.Sprintf(`"tunnels":%d,"requests":0`, n)) {
		t.Errorf("%d of %d were cut; flow lines %v", n, c.late, lines)
	}
}

// answerTransfer answers a good transfer once release is closed, and a late one never.
func answerTransfer(conn net.Conn, release <-chan struct{}) {
	defer conn.Close()
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err != nil {
		return
	}
	if string(b) == "good" {
		<-release
		conn.Write(make([]byte, transferSize))
		return
	}
	io.Copy(io.Discard, conn)
}

// transferRun is the run of transfers.
type transferRun struct {
	ok, cut   atomic.Int32 // good ones that ended well; late ones that were cut
	good, all sync.WaitGroup
}

// start begins the transfers c, and returns when all are open.
func (run *transferRun) start(t *testing.T, r *replica, target string, c transfers) {
	var started sync.WaitGroup
	opening := make(chan struct{}, 50) // a slow machine has its limits
	open := func(what string) (*net.TCPConn, *bufio.Reader) {
		defer started.Done() // a failed one, too, or the test would hang
		defer func() { <-opening }()
		return r.connectTo(t, target, what)
	}
	begin := func(group *sync.WaitGroup, what string) {
		started.Add(1)
		opening <- struct{}{}
		group.Add(1)
		run.all.Go(func() {
			defer group.Done()
			conn, br := open(what)
			conn.SetDeadline(time.Now().Add(2 * time.Minute))
			b, err := io.ReadAll(br)
			conn.Close()
			switch {
			case what == "good" && err == nil && len(b) == transferSize:
				run.ok.Add(1)
			case what == "late" && err != nil:
				run.cut.Add(1)
			default:
				t.Errorf("a %s transfer got %d bytes, %v", what, len(b), err)
			}
		})
	}
	for range c.good {
		begin(&run.good, "good")
	}
	for range c.late {
		begin(new(sync.WaitGroup), "late")
	}
	started.Wait()
}

func TestCloudGone(t *testing.T) { eachMode(t, ownTailnet, cloudGone) }

// cloudGone takes the cloud away, and with it the names and the API, which exist
// nowhere else: connections and lookups time out.
func cloudGone(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Dial.Timeout = config.Duration(2 * time.Second)
		c.Resolve.Timeout = config.Duration(2 * time.Second)
	})
	w.curl(t, "-x", "http://"+r.addr, "http://"+testnet.APIName+"/")
	w.cloud.Close()
	for target, class := range map[string]string{"http://fresh." + testnet.Zone + "/": "timeout", "http://" + testnet.APIAddr.String() + ":9999/": "timeout"} {
		out := w.curl(t, "-i", "-x", "http://"+r.addr, target)
		if !strings.Contains(out, "HTTP/1.1 504") || !strings.Contains(out, "("+class+")") {
			t.Errorf("%s: got\n%s\nwant 504 and class %s", target, out, class)
		}
	}
}

func TestAdminPort(t *testing.T) { userspace(t, sharedTailnet, adminPort) }

// adminPort checks that a replica is ready once its sessions are warm, and that
// it is not ready when a drain begins, while it still serves.
func adminPort(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Listen.Admin = "127.0.0.1:0"
		c.Listen.Also = []string{"127.0.0.1:0"}
		c.Drain.Settle = config.Duration(time.Hour) // until the test has looked at it
	})
	base := "http://" + r.gw.AdminAddr().String()
	get := func(path string) (int, string) {
		resp, err := http.Get(base + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		if code, body := get(path); code != 200 {
			t.Errorf("%s = %d %s, want 200", path, code, body)
		}
	}
	w.curl(t, "-x", "http://"+r.addr, "http://"+testnet.APIName+"/")
	r.flows.find(t, testnet.APIName)
	if _, body := get("/metrics"); !strings.Contains(body, `pando_flows_total{class="ok",front="http"} 1`) || !strings.Contains(body, "pando_ready 1") {
		t.Errorf("metrics:\n%s", body)
	}
	// No client reaches the admin port through the proxy.
	if out := w.curl(t, "-i", "-x", "http://"+r.addr, base+"/metrics"); !strings.Contains(out, "HTTP/1.1 403") {
		t.Errorf("the admin port through the proxy:\n%s", out)
	}
	r.drain()
	testkit.Eventually(t, "not ready", func() bool { code, _ := get("/readyz"); return code == 503 })
	if code, body := get("/readyz?verbose"); code != 503 || !strings.Contains(body, "[-]not-draining failed") || !strings.Contains(body, "[+]tunnels ok") {
		t.Errorf("while it settles: %d %s", code, body)
	}
	w.curl(t, "-x", "http://"+r.addr, "http://"+testnet.APIName+"/") // still served
	r.kill()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	if code, _ := get("/livez"); code != 0 {
		t.Errorf("the admin port outlived the replica: %d", code)
	}
}
