package gateway

import (
	"errors"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/status"
)

// TestStatusIsOfOneMoment checks that a status never says ready with a failed
// check: its readiness and its checks are computed from the same conditions, once,
// even when a condition changes with each look at it.
func TestStatusIsOfOneMoment(t *testing.T) {
	cfg := config.Default()
	cfg.Listen = config.Listen{Proxy: "127.0.0.1:0"}
	g, err := New(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.ports.close()
	looks := 0
	g.conditions = []func() status.Check{func() status.Check {
		looks++
		c := status.Check{Name: "changes"}
		if looks%2 == 0 {
			c.Err = errors.New("failed")
		}
		return c
	}}
	for i := range 4 {
		looks = i
		st := g.status(0)
		if len(st.Checks) != 1 || st.Ready != (st.Checks[0].Err == nil) {
			t.Errorf("status: ready = %v with the checks %v", st.Ready, st.Checks)
		}
		if looks != i+1 {
			t.Errorf("status looked at the condition %d times, want once", looks-i)
		}
		looks = i
		g.metricsState().Readiness()
		if looks != i+1 {
			t.Errorf("a scrape looked at the condition %d times, want once", looks-i)
		}
	}
}

// TestConditions checks the conditions of a replica that has not joined its
// tailnet, and that the start of a drain makes it unready.
func TestConditions(t *testing.T) {
	cfg := config.Default()
	cfg.Listen = config.Listen{Proxy: "127.0.0.1:0"}
	cfg.Probe.Targets = []config.Target{{Host: "db.internal.example.com", Port: 5432}}
	g, err := New(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.ports.close()
	failed := func() map[string]string {
		m := map[string]string{}
		for _, c := range g.checks() {
			m[c.Name] = ""
			if c.Err != nil {
				m[c.Name] = c.Err.Error()
			}
		}
		return m
	}
	want := map[string]string{
		"tailnet":                            "the tailnet is not up: reading the device's state",
		"tunnels":                            "not warm yet",
		"not-draining":                       "",
		"configuration":                      "",
		"routes":                             "",
		"probe db.internal.example.com:5432": "not tried yet",
	}
	got := failed()
	for name, text := range want {
		if have, ok := got[name]; !ok || have != text {
			t.Errorf("condition %s: err = %q (present: %v), want %q", name, have, ok, text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("conditions: %v, want %d of them", got, len(want))
	}
	g.draining.Store(true)
	if text := failed()["not-draining"]; text != "the replica is shutting down" {
		t.Errorf("condition not-draining in a drain: err = %q, want that the replica is shutting down", text)
	}
}
