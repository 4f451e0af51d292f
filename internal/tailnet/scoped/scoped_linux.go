// Package scoped programs the kernel for the sockets of one tailnet node. It sets
// the node's addresses on the TUN device, the tailnet's routes in a routing table of
// their own, and two rules for each address. The first rule looks up that table for
// packets from the address. The second refuses them, because packets to an address
// that the tailnet does not route must not leave unencrypted through the host's own
// network.
//
// No other traffic of the host is affected, whatever routes are accepted: replies to
// clients, probes and cluster DNS work as before. The package needs NET_ADMIN, and
// neither a firewall nor a sysctl. It exists only on Linux.
package scoped

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"tailscale.com/net/tsaddr"
	"tailscale.com/wgengine/router"
)

// These are the numbers of Tailscale's own router, so that they look familiar to an
// administrator. If another node in the same network namespace has the table, the
// next free table is used.
const (
	firstTable     = 52
	tables         = 16
	lookupPriority = 5270
	refusePriority = lookupPriority + 1
)

// Router implements router.Router of the engine.
type Router struct {
	tun string // name of the TUN device

	mu     sync.Mutex
	table  int // set by Up
	addrs  map[netip.Prefix]bool
	routes map[netip.Prefix]bool
}

// New returns a router for the TUN device called tun, which must exist.
func New(tun string) *Router { return &Router{tun: tun} }

// Up brings the device up, reserves a routing table, and removes the rules of a
// killed predecessor. The engine calls it a second time, which changes nothing.
func (r *Router) Up() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.table != 0 {
		return nil
	}
	if err := dropOrphans(); err != nil {
		return err
	}
	link, err := netlink.LinkByName(r.tun)
	if err != nil {
		return fmt.Errorf("router: %s: %w", r.tun, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("router: %s: %w", r.tun, err)
	}
	// A route that every node has reserves a table. It disappears with the device,
	// however the process ends.
	own := netip.PrefixFrom(tsaddr.TailscaleServiceIP(), 32)
	for r.table = firstTable; r.table < firstTable+tables; r.table++ {
		if err = netlink.RouteAdd(r.route(link, own)); !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err != nil {
		r.table = 0
		return fmt.Errorf("router: no routing table from %d to %d is free: %w", firstTable, firstTable+tables-1, err)
	}
	return nil
}

// Set makes the kernel's addresses and routes equal to those of cfg. Nil removes all
// of them.
func (r *Router) Set(cfg *router.Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cfg == nil {
		cfg = new(router.Config)
	}
	link, err := netlink.LinkByName(r.tun)
	if err != nil {
		return fmt.Errorf("router: %s: %w", r.tun, err)
	}
	var errs []error
	r.addrs = change(r.addrs, cfg.LocalAddrs, &errs,
		func(p netip.Prefix) error { return r.addAddr(link, p) },
		func(p netip.Prefix) error { return r.delAddr(link, p) })
	r.routes = change(r.routes, cfg.Routes, &errs,
		func(p netip.Prefix) error { return netlink.RouteReplace(r.route(link, p)) },
		func(p netip.Prefix) error { return netlink.RouteDel(r.route(link, p)) })
	return errors.Join(errs...)
}

// Close removes the addresses and their rules. The routes disappear with the device.
func (r *Router) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	link, err := netlink.LinkByName(r.tun)
	if err != nil {
		return nil // the device and its addresses are gone; the next Up removes the rules
	}
	var errs []error
	r.addrs = change(r.addrs, nil, &errs, nil, func(p netip.Prefix) error { return r.delAddr(link, p) })
	return errors.Join(errs...)
}

// change calls add and del for the differences between have and want, appends their
// errors to errs, and returns what is there afterwards.
func change(have map[netip.Prefix]bool, want []netip.Prefix, errs *[]error, add, del func(netip.Prefix) error) map[netip.Prefix]bool {
	now := make(map[netip.Prefix]bool, len(want))
	for _, p := range want {
		if p.Addr().Is6() && !haveIPv6() {
			continue
		}
		if !have[p] {
			if err := add(p); err != nil {
				*errs = append(*errs, fmt.Errorf("router: cannot add %s: %w", p, err))
				continue
			}
		}
		now[p] = true
	}
	for p := range have {
		if !now[p] {
			if err := del(p); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EADDRNOTAVAIL) {
				*errs = append(*errs, fmt.Errorf("router: cannot remove %s: %w", p, err))
			}
		}
	}
	return now
}

// haveIPv6 reports whether this network namespace has IPv6. Pods of IPv4 clusters
// often do not.
func haveIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// addAddr adds the rules of p, and then the address p, so that no packet is sent
// from it without the rules.
func (r *Router) addAddr(link netlink.Link, p netip.Prefix) error {
	for _, rule := range r.rules(p) {
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD})
}

// delAddr removes the address p and its rules.
func (r *Router) delAddr(link netlink.Link, p netip.Prefix) error {
	errs := []error{netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(p)})}
	for _, rule := range r.rules(p) {
		if err := netlink.RuleDel(rule); !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// rules returns the two rules of the node's own address p.
func (r *Router) rules(p netip.Prefix) []*netlink.Rule {
	family := netlink.FAMILY_V4
	if p.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	lookup := netlink.NewRule()
	lookup.Family = family
	lookup.Src = ipNet(p)
	lookup.Priority = lookupPriority
	lookup.Table = r.table
	refuse := netlink.NewRule()
	refuse.Family = family
	refuse.Src = ipNet(p)
	refuse.Priority = refusePriority
	refuse.Type = unix.RTN_UNREACHABLE
	return []*netlink.Rule{lookup, refuse}
}

// dropOrphans removes rules of nodes whose address is no longer on an interface.
func dropOrphans() error {
	var errs []error
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("router: cannot list the addresses of this host: %w", err)
	}
	inUse := func(ip net.IP) bool {
		return slices.ContainsFunc(addrs, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.IP.Equal(ip) })
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			if family == netlink.FAMILY_V6 {
				continue // this host has no IPv6
			}
			errs = append(errs, fmt.Errorf("router: cannot list rules: %w", err))
		}
		for i := range rules {
			r := &rules[i]
			lookup := r.Priority == lookupPriority && r.Table >= firstTable && r.Table < firstTable+tables
			refuse := r.Priority == refusePriority && r.Table == unix.RT_TABLE_UNSPEC // a listed rule has no type
			if !lookup && !refuse || r.Src == nil || inUse(r.Src.IP) {
				continue
			}
			if refuse {
				r.Type = unix.RTN_UNREACHABLE
			}
			if ones, bits := r.Src.Mask.Size(); ones != bits {
				continue
			}
			if err := netlink.RuleDel(r); err != nil {
				errs = append(errs, fmt.Errorf("router: cannot remove rule %v: %w", rules[i], err))
			}
		}
	}
	return errors.Join(errs...)
}

// route returns the route to p through link, in the table of r.
func (r *Router) route(link netlink.Link, p netip.Prefix) *netlink.Route {
	return &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       ipNet(p),
		Table:     r.table,
		Scope:     netlink.SCOPE_LINK,
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
