package gateway

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
)

// TestCutLogsWork checks that a cut of work is logged, and that a cut without any
// work is not.
func TestCutLogsWork(t *testing.T) {
	for name, c := range map[string]struct {
		clients int
		want    bool
	}{
		"no_work":      {0, false},
		"a_connection": {1, true},
	} {
		var log testkit.Buffer
		cfg := config.Default()
		cfg.Listen = config.Listen{Proxy: "127.0.0.1:0"}
		g, err := New(t.Context(), cfg, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer g.ports.close()
		for range c.clients {
			if err := g.road.Limit.Enter(netip.MustParseAddr("10.244.1.7")); err != nil {
				t.Fatal(err)
			}
		}
		g.cut(t.Context(), true, func() {})
		if got := strings.Contains(log.String(), "work was cut"); got != c.want {
			t.Errorf("%s: the cut was logged: %v, want %v\n%s", name, got, c.want, log.String())
		}
	}
}
