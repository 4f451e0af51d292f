package own

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/config"
)

// TestFleetAddrs checks that the fleet's addresses follow its names, and that
// the last known ones stay when a lookup fails.
func TestFleetAddrs(t *testing.T) {
	one := netip.MustParseAddr("10.0.0.1")
	two := netip.MustParseAddr("10.0.0.2")
	fixed := netip.MustParseAddr("10.0.0.9")
	answer := map[string][]netip.Addr{"pando.pando.svc": {one}}
	var lookupErr error
	lookup := func(_ context.Context, name string) ([]netip.Addr, error) { return answer[name], lookupErr }
	var log bytes.Buffer
	f := NewFleet([]config.FleetHost{{Addr: fixed}, {Name: "pando.pando.svc"}}, nil, lookup, slog.New(slog.NewTextHandler(&log, nil)))

	if got, err := f.Addrs(); err == nil || got != nil {
		t.Errorf("before the first lookup: Addrs() = %v, %v; want an error", got, err)
	}
	if f.Contains(fixed) {
		t.Error("before the first lookup: Contains(10.0.0.9) = true, want false")
	}
	for _, c := range []struct {
		name   string
		answer netip.Addr
		err    error
		want   netip.Addr
	}{
		{"first", one, nil, one},
		{"changed", two, nil, two},
		{"failed", one, errors.New("timeout"), two},
		{"failed_again", one, errors.New("timeout"), two},
		{"back", one, nil, one},
	} {
		answer["pando.pando.svc"] = []netip.Addr{c.answer}
		lookupErr = c.err
		if !f.service.update(t.Context()) {
			t.Errorf("%s: update() = false, want true: a name can change", c.name)
		}
		got, err := f.Addrs()
		if want := []netip.Addr{fixed, c.want}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: Addrs() = %v, %v; want %v", c.name, got, err, want)
		}
		if !f.Contains(c.want) || f.Contains(netip.MustParseAddr("10.0.0.3")) {
			t.Errorf("%s: Contains(%v) = %v and Contains(10.0.0.3) = %v, want true and false",
				c.name, c.want, f.Contains(c.want), f.Contains(netip.MustParseAddr("10.0.0.3")))
		}
	}
	if n := strings.Count(log.String(), "cannot resolve the fleet; using the last addresses"); n != 1 {
		t.Errorf("the failure was logged %d times, want once:\n%s", n, log.String())
	}
}

// TestFleetNeverResolved checks that a name which was never resolved gives its
// error.
func TestFleetNeverResolved(t *testing.T) {
	refused := errors.New("refused")
	f := NewFleet([]config.FleetHost{{Name: "pando.pando.svc"}}, nil, func(context.Context, string) ([]netip.Addr, error) { return nil, refused }, slog.New(slog.DiscardHandler))
	f.service.update(t.Context())
	if got, err := f.Addrs(); !errors.Is(err, refused) {
		t.Errorf("Addrs() = %v, %v; want %v", got, err, refused)
	}
}

// TestFleetPartlyResolved checks that a name that never has an answer does not keep the
// others from changing.
func TestFleetPartlyResolved(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	lookup := func(_ context.Context, name string) ([]netip.Addr, error) {
		if name == "gone.pando.svc" {
			return nil, errors.New("refused")
		}
		return []netip.Addr{addr}, nil
	}
	f := NewFleet([]config.FleetHost{{Name: "gone.pando.svc"}, {Name: "pando.pando.svc"}}, nil, lookup, slog.New(slog.DiscardHandler))
	for range 3 {
		addr = addr.Next()
		f.service.update(t.Context())
		if got, err := f.Addrs(); err != nil || !slices.Equal(got, []netip.Addr{addr}) {
			t.Errorf("Addrs() = %v, %v; want %v", got, err, addr)
		}
	}
}

// TestFleetFollow checks that names are looked up every five seconds, and that
// addresses alone are looked at once.
func TestFleetFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lookups := 0
		lookup := func(context.Context, string) ([]netip.Addr, error) {
			lookups++
			return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		NewFleet([]config.FleetHost{{Name: "pando.pando.svc"}}, nil, lookup, slog.New(slog.DiscardHandler)).Follow(ctx)
		if lookups != 3 {
			t.Errorf("%d lookups in 12 s, want 3", lookups)
		}
		begin := time.Now()
		NewFleet([]config.FleetHost{{Addr: netip.MustParseAddr("10.0.0.1")}}, nil, lookup, slog.New(slog.DiscardHandler)).Follow(t.Context())
		if d := time.Since(begin); d != 0 || lookups != 3 {
			t.Errorf("an address was followed for %v with %d lookups, want 0 and none", d, lookups-3)
		}
	})
}

// TestReplicas checks that the replicas are part of the fleet, and are not among the
// addresses that clients are given.
func TestReplicas(t *testing.T) {
	service := netip.MustParseAddr("10.96.0.7")
	pod := netip.MustParseAddr("10.244.1.9")
	lookup := func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{pod}, nil }
	f := NewFleet([]config.FleetHost{{Addr: service}}, []config.FleetHost{{Name: "pando-replicas.pando.svc"}}, lookup, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	f.Follow(ctx)
	if list, err := f.Addrs(); err != nil || !slices.Equal(list, []netip.Addr{service}) || !f.Contains(service) || !f.Contains(pod) {
		t.Errorf("Addrs() = %v, %v, Contains: %v and %v; want %v, and true for both", list, err, f.Contains(service), f.Contains(pod), service)
	}
}
