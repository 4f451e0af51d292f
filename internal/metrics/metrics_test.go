package metrics

import (
	"io"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// Names and labels are an interface: dashboards break when they change.
func TestGolden(t *testing.T) {
	ready := false
	m := New("v1", State{
		Ready: func() bool { return ready }, Up: func() bool { return true },
		Draining: func() bool { return false }, Tunnels: func() int { return 7 },
	})
	rec := &flow.Record{Resolve: time.Millisecond, Dial: 2 * time.Millisecond, Total: time.Second, Up: 3, Down: 5}
	rec.Front = flow.Connect
	m.Observe(rec)
	rec.Err = &flow.Error{Class: flow.Refused}
	m.Observe(rec)
	text := scrape(t, m)
	want, err := os.ReadFile("testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "pando_") && !strings.Contains(line, "_bucket{") {
			got = append(got, regexp.MustCompile(`tailscale="[^"]*"`).ReplaceAllString(line, `tailscale="…"`))
		}
	}
	slices.Sort(got)
	if all := strings.Join(got, ""); all != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", all, want)
	}
	for _, other := range []string{"go_goroutines", "process_open_fds"} {
		if !strings.Contains(text, "\n"+other+" ") {
			t.Errorf("%s is missing", other)
		}
	}
	ready = true
	if !strings.Contains(scrape(t, m), "\npando_ready 1\n") {
		t.Error("pando_ready does not follow")
	}
}

func scrape(t *testing.T, m *Metrics) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
