package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// Each list of cases runs in both modes, over a real tailnet.
func TestUserspace(t *testing.T) { bothModes(t, "userspace") }

func TestKernel(t *testing.T) {
	if nstest.Inside(t) {
		bothModes(t, "kernel")
	}
}

// originAddr is where the cloud's HTTP server for these tests listens.
var originAddr = netip.AddrPortFrom(testnet.APIAddr, 8080)

const originHost = testnet.APIName + ":8080"

// world is a tailnet whose cloud node has an HTTP origin, and a gateway on it.
type world struct {
	mode   string
	net    *testnet.Net
	cloud  *testnet.Cloud
	origin *origin
	dir    string // holds ca.pem
	*replica
}

// replica is a running gateway.
type replica struct {
	gw    *gateway.Gateway
	addr  string
	flows *flowLog
	drain context.CancelFunc
	kill  context.CancelFunc
	ended chan error // gets Run's error
}

// newWorld starts a tailnet with a cloud node, without an origin or a gateway, that
// ends with the test. more are split-DNS routes beside that of the private zone.
func newWorld(t *testing.T, mode string, more map[string][]string) *world {
	t.Helper()
	ctx := within(t, 60*time.Second)
	w := &world{mode: mode, dir: t.TempDir()}
	var err error
	if w.net, err = testnet.Start(ctx, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.net.Close() })
	routes := map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}}
	maps.Copy(routes, more)
	w.net.SetDNSRoutes(routes)
	if w.cloud, err = w.net.StartCloud(ctx, "cloud", nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cloud.Close() })
	if err := os.WriteFile(w.ca(), w.cloud.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

func bothModes(t *testing.T, mode string) {
	w := newWorld(t, mode, nil)
	w.origin = newOrigin(t, w.cloud.Listen(originAddr))
	t.Run("one_gateway", func(t *testing.T) {
		w.replica = w.start(t, nil)
		for _, c := range oneGateway {
			t.Run(c.name, func(t *testing.T) { c.run(t, w) })
		}
	})
	for _, c := range ownGateway {
		t.Run(c.name, func(t *testing.T) { c.run(t, w) })
	}
}

type testCase struct {
	name string
	run  func(*testing.T, *world)
}

func (w *world) ca() string { return filepath.Join(w.dir, "ca.pem") }

// start runs a gateway with a configuration that edit may change, until the
// test ends.
func (w *world) start(t *testing.T, edit func(*config.Config)) *replica {
	t.Helper()
	return w.startWith(t, edit, nil)
}

// startWith is start with options that opts may change; it gets the
// configuration, too.
func (w *world) startWith(t *testing.T, edit func(*config.Config), opts func(config.Config, *gateway.Options)) *replica {
	t.Helper()
	cfg := config.Default()
	cfg.Listen.Proxy, cfg.Listen.Admin = "127.0.0.1:0", ""
	cfg.Tailnet.Mode = w.mode
	cfg.Tailnet.Hostname = "gateway"
	cfg.Tailnet.ControlURL = w.net.URL()
	cfg.Tailnet.AuthKey = testnet.AuthKey
	cfg.Dial.Timeout = config.Duration(3 * time.Second)
	cfg.Drain = config.Drain{Timeout: config.Duration(5 * time.Second)}
	if edit != nil {
		edit(&cfg)
	}
	conf := filepath.Join(w.dir, "resolv.conf") // the pod's own resolver: one that never answers
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &replica{flows: newFlowLog(), ended: make(chan error, 1)}
	o := gateway.Options{Log: slog.New(r.flows), ResolvConf: conf}
	if opts != nil {
		opts(cfg, &o)
	}
	gw, err := gateway.New(t.Context(), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	r.gw, r.addr = gw, gw.Addr().String()
	base := context.WithoutCancel(t.Context())
	run, drain := context.WithCancel(base)
	cut, kill := context.WithCancel(base)
	r.drain, r.kill = drain, kill
	go func() { r.ended <- gw.Run(run, cut) }()
	t.Cleanup(func() {
		kill()
		if err := r.wait(); err != nil {
			t.Errorf("gateway: %v", err)
		}
	})
	if err := gw.Wait(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	return r
}

// wait returns Run's error when it has ended.
func (r *replica) wait() error {
	select {
	case err := <-r.ended:
		r.ended <- err // for those who ask again
		return err
	case <-time.After(20 * time.Second):
		return fmt.Errorf("Run did not return")
	}
}

// flowLog collects the flow lines of a gateway's log, as they are written.
type flowLog struct {
	mu    sync.Mutex
	lines []map[string]any
	all   bytes.Buffer
	slog.Handler
}

func newFlowLog() *flowLog {
	l := &flowLog{}
	l.Handler = slog.NewJSONHandler(lineWriter{l}, nil)
	return l
}

type lineWriter struct{ l *flowLog }

func (w lineWriter) Write(b []byte) (int, error) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.l.all.Write(b)
	var line struct {
		Msg  string
		Flow map[string]any
	}
	if json.Unmarshal(b, &line) == nil && line.Msg == "flow" {
		w.l.lines = append(w.l.lines, line.Flow)
	}
	return len(b), nil
}

// find waits for the first flow whose target holds what, and returns it.
func (l *flowLog) find(t *testing.T, what string) map[string]any {
	t.Helper()
	var got map[string]any
	eventually(t, "the flow line of "+what, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, f := range l.lines {
			if strings.Contains(f["target"].(string), what) {
				got = f
				return true
			}
		}
		return false
	})
	return got
}

// matching returns the flows so far whose target holds what.
func (l *flowLog) matching(what string) (list []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.lines {
		if strings.Contains(f["target"].(string), what) {
			list = append(list, f)
		}
	}
	return list
}

func (l *flowLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// origin is an HTTP server that tells what it was sent.
type origin struct {
	mu    sync.Mutex
	conns int
	hold  chan struct{} // /hold answers when it is closed
	held  chan struct{} // gets one for each request of /hold
	gate  chan struct{}
}

func newOrigin(t *testing.T, ln net.Listener) *origin {
	o := &origin{hold: make(chan struct{}), held: make(chan struct{}, 9), gate: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex() // else net/http drops what the answer overtakes
		io.Copy(w, r.Body)
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Host: %s\nURI: %s\n", r.Host, r.RequestURI)
		r.Header.Write(w)
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		n, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", fmt.Sprintf("%d %s", n, r.Trailer.Get("X-Request-Sum")))
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) { // without reading the body
		http.Error(w, "no thanks", http.StatusRequestEntityTooLarge)
	})
	mux.HandleFunc("/status/204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	mux.HandleFunc("/status/304", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(304)
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "tick %d\n", i)
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/gated", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "first")
		w.(http.Flusher).Flush()
		select {
		case <-o.gate:
		case <-time.After(15 * time.Second):
		}
		fmt.Fprintln(w, "second")
	})
	mux.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		o.held <- struct{}{}
		<-o.hold
		io.WriteString(w, "held")
	})
	s := &http.Server{Handler: mux, ConnState: func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			o.mu.Lock()
			o.conns++
			o.mu.Unlock()
		}
	}}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return o
}

func (o *origin) connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.conns
}

// curl runs Debian's curl and returns what it wrote. Its own environment knows
// no proxy.
func (w *world) curl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.tryCurl(t, args...)
	if err != nil {
		t.Fatalf("curl %q: %v\n%s", args, err, out)
	}
	return out
}

func (w *world) tryCurl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path := "/usr/bin/curl" // PATH is empty in kernel mode's namespace
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath("curl"); err != nil {
			t.Fatal("curl is not installed: apt-get install curl")
		}
	}
	cmd := exec.CommandContext(within(t, 2*time.Minute), path, append([]string{"-sS", "--max-time", "100", "--cacert", w.ca()}, args...)...)
	cmd.Env = []string{"HOME=" + w.dir}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// raw opens a connection to the gateway.
func (r *replica) raw(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// connectTo opens a tunnel by CONNECT, with what follows in the same packet.
func (r *replica) connectTo(t *testing.T, target, follow string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	c := r.raw(t)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n%s", target, target, follow)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("CONNECT %s: %s\n%s", target, resp.Status, b)
	}
	return c, br
}

// socksTo opens a tunnel by SOCKS5 and name, with what follows in the packet
// of the request.
func (r *replica) socksTo(t *testing.T, host string, port uint16, follow string) *net.TCPConn {
	t.Helper()
	c := r.raw(t)
	c.Write([]byte{5, 1, 0})
	expect(t, c, []byte{5, 0})
	req := append([]byte{5, 1, 0, 3, byte(len(host))}, host...)
	req = append(req, byte(port>>8), byte(port))
	c.Write(append(req, follow...))
	expect(t, c, []byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	return c
}

func expect(t *testing.T, r io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got % x (%v), want % x", got[:n], err, want)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// hostAddr returns an address of this host that is neither loopback nor public
// nor routed by the tailnet. In nstest's namespace it makes one.
func hostAddr(t *testing.T, w *world) string {
	t.Helper()
	if nstest.InNamespace() {
		return addHostAddr(t)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Skip("this host has no address but loopback; kernel mode's namespace tests it")
	return ""
}
