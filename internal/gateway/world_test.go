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
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// world is what a test has: a tailnet whose cloud node has an HTTP origin, and
// often a replica on it.
type world struct {
	mode   tailnet.Mode // of its gateways
	net    *testnet.Net
	cloud  *testnet.Cloud
	origin *origin // the test's own
	dir    string  // the test's own; holds ca.pem
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

func (w *world) ca() string { return filepath.Join(w.dir, "ca.pem") }

// start runs a replica until the test ends. edit may change its configuration;
// nil leaves it as it is.
func (w *world) start(t *testing.T, edit func(*config.Config)) *replica {
	t.Helper()
	return w.startWith(t, edit, nil)
}

// startWith is start with options that opts may change. It gets the
// configuration, too.
func (w *world) startWith(t *testing.T, edit func(*config.Config), opts func(config.Config, *gateway.Options)) *replica {
	t.Helper()
	r := w.launch(t, t.Context(), edit, opts)
	t.Cleanup(func() {
		r.kill()
		if err := r.wait(); err != nil {
			t.Errorf("gateway: %v", err)
		}
	})
	if err := r.gw.Wait(testkit.Within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	return r
}

// launch starts a replica that runs until its kill is called. ctx lends it
// values alone.
func (w *world) launch(t *testing.T, ctx context.Context, edit func(*config.Config), opts func(config.Config, *gateway.Options)) *replica {
	t.Helper()
	cfg := config.Default()
	cfg.Listen.Proxy = "127.0.0.1:0"
	cfg.Listen.Admin = ""
	cfg.Tailnet.Mode = string(w.mode)
	cfg.Tailnet.Hostname = "gateway"
	cfg.Tailnet.ControlURL = w.net.URL()
	cfg.Tailnet.AuthKey = testnet.AuthKey
	// A busy machine must not reach these limits. Tests of the limits set their own.
	cfg.Dial.Timeout = config.Duration(20 * time.Second)
	cfg.Resolve.Timeout = config.Duration(15 * time.Second)
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
	base := context.WithoutCancel(ctx)
	gw, err := gateway.New(base, cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	run, drain := context.WithCancel(base)
	cut, kill := context.WithCancel(base)
	r.gw = gw
	r.addr = gw.Addr().String()
	r.drain = drain
	r.kill = kill
	go func() { r.ended <- gw.Run(run, cut) }()
	return r
}

// wait returns Run's error when it has ended.
func (r *replica) wait() error {
	select {
	case err := <-r.ended:
		r.ended <- err // for the next call
		return err
	case <-time.After(time.Minute):
		return fmt.Errorf("Run did not return within a minute")
	}
}

// flowLog collects the flow lines of a replica's log, as they are written.
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
	return l.findFront(t, "", what)
}

// findFront is find for flows of one front; empty means any.
func (l *flowLog) findFront(t *testing.T, front, what string) map[string]any {
	t.Helper()
	var got map[string]any
	testkit.Eventually(t, fmt.Sprintf("the %s flow line of %s", front, what), func() bool {
		for _, f := range l.matching(what) {
			if front == "" || f["front"] == front {
				got = f
				return true
			}
		}
		return false
	})
	return got
}

// fields are fields of a flow line.
type fields map[string]any

// checkFlow compares some fields of a flow line with those wanted. what names
// the flow. A nil value means that the line must not have the field.
func checkFlow(t *testing.T, what string, got map[string]any, want fields) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			t.Errorf("%s: %s = %v, want %v in flow line %v", what, key, got[key], want[key], got)
		}
	}
}

// says waits until the log holds what.
func (l *flowLog) says(t *testing.T, what string) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("the log to say %q", what), func() bool { return strings.Contains(l.text(), what) })
}

// text is the whole log so far.
func (l *flowLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
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

// raw opens a connection to the replica.
func (r *replica) raw(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(readTime))
	return c.(*net.TCPConn)
}

// readTime is how long a client waits for a byte that has to come.
const readTime = 45 * time.Second

// connectTo opens a tunnel to target by CONNECT. follow goes in the same packet.
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

// socksTo opens a tunnel to target, a name and a port, by SOCKS5. follow goes
// in the packet of the request.
func (r *replica) socksTo(t *testing.T, target, follow string) *net.TCPConn {
	t.Helper()
	host, number, err := net.SplitHostPort(target)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
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
	t.Skip("SKIPPED, NOT TESTED: this host has no IPv4 address but loopback; run as root, which makes one in a namespace")
	return ""
}
