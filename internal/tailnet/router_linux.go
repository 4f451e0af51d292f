package tailnet

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"tailscale.com/wgengine/router"
)

// The numbers that Tailscale's own router uses, so that a person who looks
// finds what they expect.
const (
	routeTable   = 52
	rulePriority = 5270
)

// scopedRouter programs the kernel for this node's own sockets alone: its
// addresses on the TUN device, the tailnet's routes in a table of their own,
// and one rule for each address, "from it, look up that table". Nothing else
// of the host is captured: replies to clients, probes and cluster DNS stay as
// they were, whatever routes are accepted. It needs NET_ADMIN, and neither a
// firewall nor a sysctl.
type scopedRouter struct {
	tun string
	log *slog.Logger

	mu     sync.Mutex
	addrs  map[netip.Prefix]bool
	routes map[netip.Prefix]bool
}

// Up brings the device up and removes rules that a killed predecessor left.
func (r *scopedRouter) Up() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.dropRules(); err != nil {
		return err
	}
	link, err := netlink.LinkByName(r.tun)
	if err != nil {
		return fmt.Errorf("router: %s: %w", r.tun, err)
	}
	return netlink.LinkSetUp(link)
}

// Set makes the kernel's state equal to cfg; nil means nothing at all.
func (r *scopedRouter) Set(cfg *router.Config) error {
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
		func(p netip.Prefix) error { return netlink.RouteReplace(route(link, p)) },
		func(p netip.Prefix) error { return netlink.RouteDel(route(link, p)) })
	return errors.Join(errs...)
}

// Close removes the rules. Addresses and routes go with the device.
func (r *scopedRouter) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropRules()
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

func (r *scopedRouter) addAddr(link netlink.Link, p netip.Prefix) error {
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}); err != nil {
		return err
	}
	if err := netlink.RuleAdd(rule(p)); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func (r *scopedRouter) delAddr(link netlink.Link, p netip.Prefix) error {
	return errors.Join(
		netlink.RuleDel(rule(p)),
		netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(p)}))
}

// dropRules removes every rule with our priority and table.
func (r *scopedRouter) dropRules() error {
	var errs []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := netlink.RuleListFiltered(family, &netlink.Rule{Priority: rulePriority, Table: routeTable},
			netlink.RT_FILTER_PRIORITY|netlink.RT_FILTER_TABLE)
		if err != nil {
			if family == netlink.FAMILY_V6 {
				continue // no IPv6 here
			}
			errs = append(errs, fmt.Errorf("router: list rules: %w", err))
		}
		for i := range rules {
			if err := netlink.RuleDel(&rules[i]); err != nil {
				errs = append(errs, fmt.Errorf("router: remove rule %v: %w", rules[i], err))
			}
		}
	}
	return errors.Join(errs...)
}

func rule(p netip.Prefix) *netlink.Rule {
	r := netlink.NewRule()
	r.Priority, r.Table, r.Src = rulePriority, routeTable, ipNet(p)
	r.Family = netlink.FAMILY_V4
	if p.Addr().Is6() {
		r.Family = netlink.FAMILY_V6
	}
	return r
}

func route(link netlink.Link, p netip.Prefix) *netlink.Route {
	return &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(p), Table: routeTable, Scope: netlink.SCOPE_LINK}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
