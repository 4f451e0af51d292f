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

// Fleet are the addresses where clients reach the fleet, and those of its replicas.
type Fleet struct {
	service  addrList // of dns.fleet
	replicas addrList // of listen.replicas
}

// addrList are the addresses of some hosts. Only update changes it, and only one
// goroutine calls that.
type addrList struct {
	key    string // of the hosts in the configuration, for the log
	hosts  []config.FleetHost
	lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	log    *slog.Logger
	last   map[string][]netip.Addr    // the last known addresses of each name
	known  atomic.Pointer[knownFleet] // nil before the first lookup
}

// knownFleet is the outcome of a lookup of the fleet.
type knownFleet struct {
	addrs []netip.Addr
	err   error // why a part of the addresses is not known
}

// fleetEvery is how often the names of the fleet are looked up again.
const fleetEvery = 5 * time.Second

// NewFleet returns the addresses of dns.fleet and listen.replicas. It looks up
// nothing; lookup asks the cluster's DNS.
func NewFleet(service, replicas []config.FleetHost, lookup func(context.Context, string) ([]netip.Addr, error), log *slog.Logger) *Fleet {
	f := &Fleet{service: addrList{key: "dns.fleet", hosts: service}, replicas: addrList{key: "listen.replicas", hosts: replicas}}
	for _, l := range []*addrList{&f.service, &f.replicas} {
		l.lookup = lookup
		l.log = log
		l.last = map[string][]netip.Addr{}
	}
	return f
}

// Follow looks up the fleet's addresses until ctx ends, or once if they cannot
// change.
func (f *Fleet) Follow(ctx context.Context) {
	for {
		canChange := f.service.update(ctx)
		canChange = f.replicas.update(ctx) || canChange
		if !canChange {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(fleetEvery):
		}
	}
}

// Addrs returns the last known addresses of dns.fleet, or why none are known.
func (f *Fleet) Addrs() ([]netip.Addr, error) { return f.service.addrs() }

// Contains reports whether a is one of the fleet's addresses: a target there would
// lead back to this replica, or to another one.
func (f *Fleet) Contains(a netip.Addr) bool {
	return f.service.contains(a) || f.replicas.contains(a)
}

// update looks up the fleet's addresses once and reports whether they can
// change. When the lookup of a name fails, its last known addresses stay.
func (f *addrList) update(ctx context.Context) (canChange bool) {
	var list []netip.Addr
	var errs []error
	for _, h := range f.hosts {
		if h.Addr.IsValid() {
			list = append(list, h.Addr)
			continue
		}
		canChange = true
		addrs, err := f.lookup(ctx, h.Name)
		if err == nil {
			f.last[h.Name] = addrs
		}
		list = append(list, f.last[h.Name]...)
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if old := f.known.Load(); err != nil && (old == nil || old.err == nil) {
		f.log.Warn("cannot resolve the fleet; using the last addresses", "key", f.key, "err", err)
	}
	f.known.Store(&knownFleet{addrs: list, err: err})
	return canChange
}

// addrs returns the last known addresses, or why none are known.
func (f *addrList) addrs() ([]netip.Addr, error) {
	known := f.known.Load()
	switch {
	case known == nil:
		return nil, errors.New(f.key + " has not been looked up yet")
	case len(known.addrs) > 0:
		return known.addrs, nil
	}
	return nil, known.err
}

// contains reports whether a is one of the last known addresses.
func (f *addrList) contains(a netip.Addr) bool {
	known := f.known.Load()
	return known != nil && slices.Contains(known.addrs, a)
}
