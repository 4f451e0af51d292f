//go:build abuse && linux

package abuse

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// arena is a tailnet with a replica in a cgroup, and what attacks need.
type arena struct {
	t       *testing.T
	box     *cgroup
	net     *testnet.Net
	cloud   *testnet.Cloud
	admin   string
	log     string // file of the replica's log
	roots   *x509.CertPool
	process *exec.Cmd
	ended   chan struct{} // closed when the process has ended
	site                  // what attackers know of it

	connections int // limits.connections
}

// site is what the process of an attacker knows.
type site struct {
	Proxy   string // address of the replica's proxy port, and of its other ports:
	SNI     string
	Web     string
	Forward string // leads to Endless
	DNS     string
	Endless netip.AddrPort // sends without an end
	Deaf    netip.AddrPort // reads nothing
	Idle    netip.AddrPort // does nothing
	Names   string         // address of the DNS server of their zones: see zones_test.go
	Scale   int            // attacks are divided by it
	Begin   time.Duration  // within which an attack has begun
}

// innocentAddr is the address of the innocent client. Attackers have others.
const innocentAddr = "127.0.0.1"

// newArena starts a tailnet, and a replica of that mode with a limit of memory in
// bytes.
func newArena(t *testing.T, mode tailnet.Mode, limit int64, connections int) *arena {
	t.Helper()
	a := &arena{t: t, box: newCgroup(t, limit), ended: make(chan struct{}), connections: connections}
	a.Scale = 1
	a.Begin = 15 * time.Second
	if testing.Short() {
		a.Scale = 8
		a.Begin = 2 * time.Second
	}
	ctx := testkit.Within(t, time.Minute)
	var err error
	a.net, err = testnet.Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.net.Close() })
	a.net.SetDNSRoutes(map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}})
	a.cloud, err = a.net.StartCloud(ctx, "cloud", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.cloud.Close() })
	a.Endless = a.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		b := make([]byte, 32<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	wait := func(c net.Conn) {
		<-t.Context().Done()
		c.Close()
	}
	a.roots = x509.NewCertPool()
	a.roots.AppendCertsFromPEM(a.cloud.CA)
	a.Deaf = a.cloud.Serve(wait)
	a.Idle = a.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		io.Copy(io.Discard, c)
	})
	a.Names = a.serveZones()
	a.start(mode)
	return a
}

// start starts the replica and waits until it is ready.
func (a *arena) start(mode tailnet.Mode) {
	a.t.Helper()
	dir := a.t.TempDir()
	for i, addr := range testkit.FreePorts(a.t, 6) {
		*[]*string{&a.Proxy, &a.SNI, &a.Web, &a.Forward, &a.DNS, &a.admin}[i] = addr
	}
	a.log = filepath.Join(dir, "log")
	file := filepath.Join(dir, "pando.yaml")
	conf := fmt.Sprintf(`listen: {proxy: %q, admin: %q, dns: %q, pprof: true}
sni: [{listen: %q}]
web: [{listen: %q}]
forward: [{listen: %q, target: %q}]
dns: {fleet: ["10.96.0.7"], zones: [{suffix: %s, answer: real}, {suffix: %s, answer: real}]}
`, a.Proxy, a.admin, a.DNS, a.SNI, a.Web, a.Forward, a.Endless, testnet.Zone, slowZone) +
		fmt.Sprintf(`tailnet: {mode: %s, controlURL: %q, authKey: %s, hostname: gateway}
log: {sample: 1000000}
limits: {connections: %d, perClient: %d}
resolve: {zones: [{suffix: %s, servers: [%q], direct: true}, {suffix: %s, servers: [%q], direct: true}]}
drain: {settle: 0s, timeout: 1s}
`, mode, a.net.URL(), testnet.AuthKey, a.connections, a.connections/4, largeZone, a.Names, slowZone, a.Names)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		a.t.Fatal(err)
	}
	log, err := os.Create(a.log)
	if err != nil {
		a.t.Fatal(err)
	}
	a.process = exec.Command("/proc/self/exe")
	a.process.Env = append(os.Environ(), envConfig+"="+file, envCgroup+"="+a.box.dir)
	a.process.Stdout = log
	a.process.Stderr = log
	a.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.process.Start(); err != nil {
		a.t.Fatal(err)
	}
	go func() {
		a.process.Wait()
		close(a.ended)
	}()
	a.t.Cleanup(func() {
		a.process.Process.Signal(syscall.SIGTERM)
		select {
		case <-a.ended:
		case <-time.After(20 * time.Second):
			a.t.Error("the replica did not stop within 20 s")
			a.process.Process.Kill()
			<-a.ended
		}
		log.Close()
		if a.t.Failed() {
			data, _ := os.ReadFile(a.log)
			a.t.Logf("the end of the replica's log:\n%s", data[max(0, len(data)-6000):])
		}
	})
	testkit.Eventually(a.t, "the replica to be ready", func() bool {
		resp, err := http.Get("http://" + a.admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
}

// attack runs an attack in a process of its own until ctx ends. Attackers have the
// lowest priority, so that the innocent client does not wait for their work.
func (a *arena) attack(ctx context.Context, name string) {
	data, err := json.Marshal(a.site)
	if err != nil {
		a.t.Error(err)
		return
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), envAttack+"="+name, envSite+"="+string(data))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		a.t.Errorf("attack %q: %v", name, err)
	}
}

// alive reports whether the replica's process runs.
func (a *arena) alive() bool {
	select {
	case <-a.ended:
		return false
	default:
		return true
	}
}

// readMetrics returns the metrics that begin with prefix, by their whole name.
func (a *arena) readMetrics(prefix string) map[string]float64 {
	m := map[string]float64{}
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + a.admin + "/metrics")
	if err != nil {
		return m
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	io.Copy(&b, resp.Body)
	for line := range strings.Lines(b.String()) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && strings.HasPrefix(name, prefix) {
			m[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return m
}

// dialFrom connects to a port of the replica from an address of loopback.
func dialFrom(ctx context.Context, from, port string) (*net.TCPConn, error) {
	d := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)},
		Timeout:   5 * time.Second,
	}
	c, err := d.DialContext(ctx, "tcp", port)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// hold keeps n connections of an attacker to a port open until ctx ends. open does to
// each what the attack does; then hold waits until the replica ends it, and opens it
// again 20 seconds later.
func (a *site) hold(ctx context.Context, n int, from, port string, open func(c *net.TCPConn) error) {
	var wg sync.WaitGroup
	n = max(n/a.Scale, 1)
	for i := range n {
		wg.Go(func() {
			flow.Sleep(ctx.Done(), time.Duration(i)*a.Begin/time.Duration(n)) // the pace of the attack
			for ctx.Err() == nil {
				c, err := dialFrom(ctx, from, port)
				if err == nil {
					c.SetDeadline(time.Now().Add(10 * time.Second))
					if open(c) == nil {
						c.SetDeadline(time.Time{})
						awaitEnd(ctx, c)
					}
					c.SetLinger(0)
					c.Close()
				}
				flow.Sleep(ctx.Done(), 20*time.Second) // the pace of the attack: refusing it must not be all that happens
			}
		})
	}
	wg.Wait()
}

// awaitEnd waits until c is reset, or ctx ends. It reads nothing.
func awaitEnd(ctx context.Context, c *net.TCPConn) {
	for ctx.Err() == nil && !hungUp(c) {
		flow.Sleep(ctx.Done(), 5*time.Second) // to wait for the event would take a thread for each connection
	}
}
