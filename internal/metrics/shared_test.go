package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// TestGatheredOncePerPeriod checks that many scrapes at the same time, and those soon
// after them, cause one gathering, and that the next period has another.
func TestGatheredOncePerPeriod(t *testing.T) {
	m := New("v1", State{
		Readiness:     func() (bool, int) { return true, 0 },
		Draining:      func() bool { return false },
		RestartNeeded: func() bool { return false },
		Tunnels:       func() int { return 0 },
		Connections:   func() (int, int) { return 0, 0 },
		Dials:         func() int { return 0 },
		Memory:        func() (int64, int64) { return 0, 0 },
		Flows:         func() map[string]int { return nil },
		Tailnet:       func() Tailnet { return Tailnet{} },
	})
	var gathered atomic.Int32
	engine := func() (string, error) {
		gathered.Add(1)
		time.Sleep(50 * time.Millisecond) // others come meanwhile
		return "", nil
	}
	scrape := func(h http.Handler) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if w.Code != 200 || !strings.Contains(w.Body.String(), "pando_tunnels 0") {
			t.Errorf("GET /metrics: %d %.100s, want the metrics", w.Code, w.Body)
		}
	}
	long := m.Handler(engine, time.Hour)
	var scrapes sync.WaitGroup
	for range 50 {
		scrapes.Go(func() { scrape(long) })
	}
	scrapes.Wait()
	scrape(long)
	if n := gathered.Load(); n != 1 {
		t.Errorf("gathered %d times within the period, want once", n)
	}
	short := m.Handler(engine, time.Millisecond)
	testkit.Eventually(t, "the next period", func() bool {
		scrape(short)
		return gathered.Load() == 3
	})
}
