package admin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/admin"
	"github.com/pandoproxy/pando/internal/flow"
)

var update = flag.Bool("update", false, "write the golden files")

func exampleStatus() admin.Status {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	addr := netip.MustParseAddr("100.64.0.7")
	rec := flow.Record{Start: at, Source: "zone internal.example.com", Path: flow.Tailnet, Addr: netip.MustParseAddrPort("10.12.3.4:443"), Up: 3, Down: 5, Total: time.Second}
	rec.Front, rec.Client, rec.Host, rec.Port = flow.Connect, netip.MustParseAddrPort("10.244.1.7:40000"), "<api>.internal.example.com", 443
	return admin.Status{
		Version: "v1", Mode: "userspace", Started: at, Listen: []string{"[::]:1055"}, Ready: true,
		Checks:        []admin.Check{{Name: "tailnet", Note: "the control server is away"}, {Name: "tunnels", Err: errors.New("not warm yet")}},
		Configuration: "waiting for a restart: drain.settle",
		Tailnet:       admin.Tailnet{ID: "n1", Name: "pando-0.aspen.ts.net", Addrs: []netip.Addr{addr}, State: "Running", Up: true, KeyExpiry: &at, HomeRelay: "fra", Health: []string{"not well"}, SessionsMended: 1},
		Peers:         []admin.Peer{{Name: "router.aspen.ts.net", Addrs: []netip.Addr{addr}, Routes: []netip.Prefix{netip.MustParsePrefix("10.12.0.0/16")}, Online: true, Path: "direct 192.0.2.1:41641", LastHandshake: &at, Received: 1, Sent: 2}},
		Zones:         []admin.Zone{{Suffix: "internal.example.com", Resolvers: []string{"10.12.0.2"}}},
		Resolvers:     []admin.Resolver{{Server: "10.12.0.2:53", Answered: &at, Failed: &at, Err: "timed out"}},
		Limits:        []admin.Limit{{Name: "connections", Now: 1, Most: 100}},
		FlowsTotal:    2, Flows: []flow.Record{rec},
	}
}

// The JSON is what pando status and other programs read: its keys are held.
func TestStatusGolden(t *testing.T) {
	s := &admin.Server{Status: func(int) admin.Status { return exampleStatus() }, Metrics: http.NotFoundHandler(), Explain: http.NotFoundHandler(), Profiles: true}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	defer func() { ln.Close(); <-done }()
	get := func(path, accept string) string {
		req, _ := http.NewRequest(http.MethodGet, "http://"+ln.Addr().String()+path, nil)
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %s %v", path, resp.Status, err)
		}
		return string(b)
	}
	got := get("/status", "*/*")
	if *update {
		if err := os.WriteFile("testdata/status.golden.json", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/status.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if !json.Valid([]byte(got)) {
		t.Error("not JSON")
	}
	html := get("/", "text/html,*/*")
	for _, s := range []string{"pando-0.aspen.ts.net", "not warm yet", "10.12.0.0/16", "timed out", "&lt;api&gt;.internal.example.com", "2 flows in progress"} {
		if !strings.Contains(html, s) {
			t.Errorf("the page lacks %q:\n%s", s, html)
		}
	}
	if p := get("/debug/pprof/goroutine?debug=1", "*/*"); !bytes.Contains([]byte(p), []byte("goroutine profile")) {
		t.Errorf("the profile: %.200s", p)
	}
}
