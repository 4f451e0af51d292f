package metrics

import (
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/flow"
)

var update = flag.Bool("update", false, "write the golden files")

// example returns metrics that all have a value.
func example() *Metrics {
	m := New("v1", State{
		Readiness:     func() (bool, int) { return false, 3 },
		Draining:      func() bool { return false },
		RestartNeeded: func() bool { return true },
		Tunnels:       func() int { return 7 },
		Connections:   func() (int, int) { return 9, 4 },
		Dials:         func() int { return 2 },
		Memory:        func() (int64, int64) { return 5 << 20, 64 << 20 },
		Flows:         func() map[string]int { return map[string]int{"connect": 6, "http": 1} },
		Tailnet: func() Tailnet {
			return Tailnet{
				Up:             true,
				Control:        true,
				KeyExpiry:      time.Unix(1800000000, 0),
				SessionsMended: 5,
				Peers:          8,
				Routes:         11,
				Direct:         1,
				Relayed:        2,
				Unused:         3,
				HandshakeAge:   90 * time.Second,
			}
		},
	})
	m.Looked("zone", flow.OK, true)
	m.Looked("", flow.NotReady, false)
	m.Refused(limit.PerClient)
	m.OriginReleased(origin.OddBody)
	m.TrailersDropped(3)
	m.Panicked()
	m.Reloaded(true)
	m.Reloaded(false)
	m.reloadAt.Set(1700000000)
	rec := &flow.Record{
		Resolve: time.Millisecond,
		Dial:    2 * time.Millisecond,
		Total:   time.Second,
		Up:      3,
		Down:    5,
	}
	rec.Front = flow.Connect
	m.Observe(rec)
	rec.Err = &flow.Error{Class: flow.Refused}
	m.Observe(rec)
	return m
}

// TestGolden checks the names, labels and values of all metrics. Dashboards
// break when a name or a label changes.
func TestGolden(t *testing.T) {
	text := scrape(t, example())
	var got []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "pando_") && !strings.Contains(line, "_bucket{") {
			got = append(got, regexp.MustCompile(`tailscale="[^"]*"`).ReplaceAllString(line, `tailscale="…"`))
		}
	}
	slices.Sort(got)
	if *update {
		if err := os.WriteFile("testdata/metrics.golden", []byte(strings.Join(got, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(got, ""); all != string(want) {
		t.Errorf("the metrics changed; if that is meant, run: go test ./internal/metrics -update\ngot:\n%s\nwant:\n%s", all, want)
	}
	for _, other := range []string{"go_goroutines ", "process_open_fds ", `tailscaled_test_total{path="derp"} 7`} {
		if !strings.Contains(text, "\n"+other) {
			t.Errorf("the answer does not contain %q", other)
		}
	}
}

// TestStateIsPresent checks that a scrape reads the state of its moment.
func TestStateIsPresent(t *testing.T) {
	ready := false
	none := func() int { return 0 }
	m := New("v1", State{
		Readiness:     func() (bool, int) { return ready, 0 },
		Draining:      func() bool { return false },
		RestartNeeded: func() bool { return false },
		Tunnels:       none,
		Connections:   func() (int, int) { return 0, 0 },
		Dials:         none,
		Memory:        func() (int64, int64) { return 5 << 20, 64 << 20 },
		Flows:         func() map[string]int { return nil },
		Tailnet:       func() Tailnet { return Tailnet{} },
	})
	for _, want := range []bool{false, true} {
		ready = want
		line := fmt.Sprintf("\npando_ready %v\n", oneIf(want))
		if !strings.Contains(scrape(t, m), line) {
			t.Errorf("with ready = %v, the answer does not contain %q", want, line)
		}
	}
}

// scrape returns what GET /metrics answers.
func scrape(t *testing.T, m *Metrics) string {
	w := httptest.NewRecorder()
	m.Handler(func() (string, error) {
		return "# TYPE tailscaled_test_total counter\ntailscaled_test_total{path=\"derp\"} 7\n", nil
	}, 0).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
