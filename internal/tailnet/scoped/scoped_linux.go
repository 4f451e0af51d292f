// Package scoped programs the kernel for a tailnet node's own sockets alone: its
// addresses on the TUN device, the tailnet's routes in a table of their own,
// and two rules for each address: "from it, look up that table", and "from it,
// else unreachable", for what the tailnet does not route any more must not go
// out in clear by the host's own network. Nothing else of the host is captured:
// replies to clients, probes and cluster DNS stay as they were, whatever routes
// are accepted. It needs NET_ADMIN, and neither a firewall nor a sysctl.
//
// Without Linux there is none.
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

// The numbers that Tailscale's own router uses, so that a person who looks
// finds what they expect. Where another one runs in the same network namespace
// and has the table, the next free one is taken.
const (
	firstTable     = 52
	tables         = 16
	lookupPriority = 5270
	refusePriority = lookupPriority + 1
)

// Router is the engine's router.Router.
type Router struct {
	tun string // name of the device

	mu     sync.Mutex
	table  int // set by Up
	addrs  map[netip.Prefix]bool
	routes map[netip.Prefix]bool
}

// New returns a router for the TUN device called tun, which is there already.
func New(tun string) *Router { return &Router{tun: tun} }

// Up brings the device up, takes a table, and removes rules that a killed
// predecessor left. The engine calls it once more, which changes nothing.
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
	// A table is taken by a route that every node has, and that goes with its
	// device, however the process ends.
	own := netip.PrefixFrom(tsaddr.TailscaleServiceIP(), 32)
	for r.table = firstTable; r.table < firstTable+tables; r.table++ {
		if err = netlink.RouteAdd(r.route(link, own)); !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err != nil {
		r.table = 0
		return fmt.Errorf("router: no routing table of %d to %d can be had: %w", firstTable, firstTable+tables-1, err)
	}
	return nil
}

// Set makes the kernel's state equal to cfg; nil means nothing at all.
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

// Close removes the addresses and their rules. The routes go with the device.
func (r *Router) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	link, err := netlink.LinkByName(r.tun)
	if err != nil {
		return nil // and with it all that was on it; rules go at the next Up
	}
	var errs []error
	r.addrs = change(r.addrs, nil, &errs, nil, func(p netip.Prefix) error { return r.delAddr(link, p) })
	return errors.Join(errs...)
}

// change brings have to want and returns what is there afterwards.
func change(have map[netip.Prefix]bool, want []netip.Prefix, errs *[]error, add, del func(netip.Prefix) error) map[netip.Prefix]bool {
	now := make(map[netip.Prefix]bool, len(want))
	for _, p := range want {
		if p.Addr().Is6() && !haveIPv6() {
			continue
		}
		if !have[p] {
			if err := add(p); err != nil {
				*errs = append(*errs, fmt.Errorf("router: add %s: %w", p, err))
				continue
			}
		}
		now[p] = true
	}
	for p := range have {
		if !now[p] {
			if err := del(p); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EADDRNOTAVAIL) {
				*errs = append(*errs, fmt.Errorf("router: remove %s: %w", p, err))
			}
		}
	}
	return now
}

// haveIPv6 reports whether this network namespace speaks IPv6 at all; pods of
// IPv4 clusters often don't.
func haveIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func (r *Router) addAddr(link netlink.Link, p netip.Prefix) error {
	for _, rule := range r.rules(p) { // before there is an address to send from
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD})
}

func (r *Router) delAddr(link netlink.Link, p netip.Prefix) error {
	errs := []error{netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(p)})}
	for _, rule := range r.rules(p) {
		if err := netlink.RuleDel(rule); !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// rules are those of the node's own address p.
func (r *Router) rules(p netip.Prefix) []*netlink.Rule {
	family := netlink.FAMILY_V4
	if p.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	lookup, refuse := netlink.NewRule(), netlink.NewRule()
	lookup.Family, lookup.Src, lookup.Priority, lookup.Table = family, ipNet(p), lookupPriority, r.table
	refuse.Family, refuse.Src, refuse.Priority, refuse.Type = family, ipNet(p), refusePriority, unix.RTN_UNREACHABLE
	return []*netlink.Rule{lookup, refuse}
}

// dropOrphans removes rules of ours whose address is on no interface any more.
func dropOrphans() error {
	var errs []error
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("router: addresses of this host: %w", err)
	}
	lives := func(ip net.IP) bool {
		return slices.ContainsFunc(addrs, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.IP.Equal(ip) })
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			if family == netlink.FAMILY_V6 {
				continue // no IPv6 here
			}
			errs = append(errs, fmt.Errorf("router: list rules: %w", err))
		}
		for i := range rules {
			r := &rules[i]
			lookup := r.Priority == lookupPriority && r.Table >= firstTable && r.Table < firstTable+tables
			refuse := r.Priority == refusePriority && r.Table == unix.RT_TABLE_UNSPEC // the list is without types
			if !lookup && !refuse || r.Src == nil || lives(r.Src.IP) {
				continue
			}
			if refuse {
				r.Type = unix.RTN_UNREACHABLE
			}
			if ones, bits := r.Src.Mask.Size(); ones != bits {
				continue
			}
			if err := netlink.RuleDel(r); err != nil {
				errs = append(errs, fmt.Errorf("router: remove rule %v: %w", rules[i], err))
			}
		}
	}
	return errors.Join(errs...)
}

func (r *Router) route(link netlink.Link, p netip.Prefix) *netlink.Route {
	return &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(p), Table: r.table, Scope: netlink.SCOPE_LINK}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
