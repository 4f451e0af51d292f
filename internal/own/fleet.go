package own

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/config"
)

// Fleet are the addresses where clients reach the fleet, from dns.fleet.
type Fleet struct {
	hosts  []config.FleetHost
	lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	log    *slog.Logger
	known  atomic.Pointer[knownFleet] // nil before the first lookup
}

// knownFleet is the outcome of a lookup of the fleet.
type knownFleet struct {
	addrs []netip.Addr
	err   error // why a part of the addresses is not known
}

// fleetEvery is how often the names of the fleet are looked up again.
const fleetEvery = 5 * time.Second

// NewFleet returns the addresses of hosts. It looks up nothing; lookup asks
// the cluster's DNS.
func NewFleet(hosts []config.FleetHost, lookup func(context.Context, string) ([]netip.Addr, error), log *slog.Logger) *Fleet {
	return &Fleet{
		hosts:  hosts,
		lookup: lookup,
		log:    log,
	}
}

// Follow looks up the fleet's addresses until ctx ends, or once if they cannot
// change.
func (f *Fleet) Follow(ctx context.Context) {
	for ctx.Err() == nil && f.update(ctx) {
		select {
		case <-ctx.Done():
		case <-time.After(fleetEvery):
		}
	}
}

// update looks up the fleet's addresses once and reports whether they can
// change. When a lookup fails, the last known addresses stay.
func (f *Fleet) update(ctx context.Context) (canChange bool) {
	var list []netip.Addr
	var errs []error
	for _, h := range f.hosts {
		if h.Addr.IsValid() {
			list = append(list, h.Addr)
			continue
		}
		canChange = true
		addrs, err := f.lookup(ctx, h.Name)
		list = append(list, addrs...)
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if old := f.known.Load(); err != nil && old != nil {
		if old.err == nil {
			f.log.Warn("cannot resolve dns.fleet; using the last addresses", "err", err)
		}
		list = old.addrs
	}
	f.known.Store(&knownFleet{addrs: list, err: err})
	return canChange
}

// Addrs returns the last known addresses, or why none are known.
func (f *Fleet) Addrs() ([]netip.Addr, error) {
	known := f.known.Load()
	switch {
	case known == nil:
		return nil, errors.New("dns.fleet has not been looked up yet")
	case len(known.addrs) > 0:
		return known.addrs, nil
	}
	return nil, known.err
}

// Contains reports whether a is one of the fleet's addresses: a target there
// would lead back to this replica.
func (f *Fleet) Contains(a netip.Addr) bool {
	known := f.known.Load()
	return known != nil && slices.Contains(known.addrs, a)
}
