package gateway

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/status"
)

// TestStatusIsOfOneMoment checks that a status does not contradict itself while
// the replica changes: what it says twice is the same in both places.
func TestStatusIsOfOneMoment(t *testing.T) {
	cfg := config.Default()
	cfg.Listen = config.Listen{Proxy: "127.0.0.1:0"}
	g, err := New(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.ports.close()
	var changes sync.WaitGroup
	defer changes.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	changes.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			g.draining.Store(n%2 == 0)
			g.reloads.mu.Lock()
			g.reloads.restart = []string{strconv.Itoa(n)}
			g.reloads.mu.Unlock()
			runtime.Gosched()
		}
	})
	configurations := map[string]bool{}
	for len(configurations) < 1000 {
		st := g.status(0)
		configurations[st.Configuration] = true
		if st.Ready != ready(st.Checks) {
			t.Fatalf("status: ready = %v with the checks %v", st.Ready, st.Checks)
		}
		for _, c := range st.Checks {
			if c.Name == "configuration" && c.Note != st.Configuration {
				t.Fatalf("status: the configuration is %q, and its check says %q", st.Configuration, c.Note)
			}
			if c.Name == status.OnTailnet && st.Tailnet.Up != (c.Err == nil) {
				t.Fatalf("status: up = %v, and its check says %v", st.Tailnet.Up, c.Err)
			}
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
		"expected-tailnet":                   "",
		"tunnels":                            "not warm yet",
		"not-draining":                       "",
		"state":                              "",
		"dials":                              "",
		"configuration":                      "",
		"memory":                             "",
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
