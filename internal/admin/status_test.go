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
	"github.com/pandoproxy/pando/internal/status"
)

var update = flag.Bool("update", false, "write the golden files")

func exampleStatus() status.Replica {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	addr := netip.MustParseAddr("100.64.0.7")
	rec := flow.Record{
		Request: flow.Request{
			Front:  flow.Connect,
			Client: netip.MustParseAddrPort("10.244.1.7:40000"),
			Host:   "<api>.internal.example.com",
			Port:   443,
		},
		Start:  at,
		Source: "zone internal.example.com",
		Path:   flow.Tailnet,
		Addr:   netip.MustParseAddrPort("10.12.3.4:443"),
		Up:     3,
		Down:   5,
		Total:  time.Second,
	}
	return status.Replica{
		Version: "v1",
		Mode:    "userspace",
		Started: at,
		Listen:  []string{"[::]:1055"},
		Ready:   true,
		Checks: []status.Check{
			{Name: "tailnet", Note: "the control server is away"},
			{Name: "tunnels", Err: errors.New("not warm yet")},
		},
		Configuration: "waiting for a restart: drain.settle",
		Tailnet: status.Device{
			ID:             "n1",
			Name:           "pando-0.aspen.ts.net",
			Addrs:          []netip.Addr{addr},
			State:          "Running",
			Up:             true,
			LoginURL:       "https://login.example.com/a/1",
			KeyExpiry:      &at,
			HomeRelay:      "fra",
			Health:         []string{"not well"},
			SessionsMended: 1,
		},
		Peers: []status.Peer{{
			Name:          "router.aspen.ts.net",
			Addrs:         []netip.Addr{addr},
			Routes:        []netip.Prefix{netip.MustParsePrefix("10.12.0.0/16")},
			Online:        true,
			Path:          "direct 192.0.2.1:41641",
			LastHandshake: &at,
			Received:      1,
			Sent:          2,
		}},
		Zones:      []status.Zone{{Suffix: "internal.example.com", Resolvers: []string{"10.12.0.2"}}},
		Resolvers:  []status.Resolver{{Server: "10.12.0.2:53", Answered: &at, Failed: &at, Err: "timed out"}},
		Limits:     []status.Limit{{Name: "connections", Now: 1, Most: 100}},
		FlowsTotal: 2,
		Flows:      []flow.Record{rec},
	}
}

// TestStatusGolden checks the JSON of GET /status, whose keys pando status and
// other programs read, and the page that a browser gets.
func TestStatusGolden(t *testing.T) {
	s := &admin.Server{
		Status:   func(int) status.Replica { return exampleStatus() },
		Metrics:  http.NotFoundHandler(),
		Explain:  http.NotFoundHandler(),
		Profiles: true,
	}
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
			t.Fatalf("GET %s: %s, %v; want 200", path, resp.Status, err)
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
		t.Errorf("GET /status changed; if that is meant, run: go test ./internal/admin -update\ngot:\n%s\nwant:\n%s", got, want)
	}
	if !json.Valid([]byte(got)) {
		t.Errorf("GET /status = %s, want JSON", got)
	}
	html := get("/", "text/html,*/*")
	for _, s := range []string{"pando-0.aspen.ts.net", "not warm yet", "10.12.0.0/16", "timed out", "&lt;api&gt;.internal.example.com", "2 flows in progress"} {
		if !strings.Contains(html, s) {
			t.Errorf("the page does not contain %q:\n%s", s, html)
		}
	}
	if p := get("/debug/pprof/goroutine?debug=1", "*/*"); !bytes.Contains([]byte(p), []byte("goroutine profile")) {
		t.Errorf("GET /debug/pprof/goroutine = %.200s, want a goroutine profile", p)
	}
}
