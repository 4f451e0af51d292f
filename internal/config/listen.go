package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// listeners checks every address on which the replica is to listen, and that no two
// of them conflict.
func (v *validator) listeners(c *Config) {
	type listener struct{ path, addr string }
	list := []listener{{"listen.proxy", c.Listen.Proxy}}
	add := func(addr, path string, args ...any) {
		list = append(list, listener{fmt.Sprintf(path, args...), addr})
	}
	for i, a := range c.Listen.Also {
		add(a, "listen.also[%d]", i)
	}
	if c.Listen.Admin != "" {
		add(c.Listen.Admin, "listen.admin")
	}
	for i, a := range c.Listen.AdminAlso {
		if c.Listen.Admin != "" {
			add(a, "listen.adminAlso[%d]", i)
		} else { // it is not used, so it cannot conflict
			v.listen(fmt.Sprintf("listen.adminAlso[%d]", i), a)
		}
	}
	if c.Listen.DNS != "" {
		add(c.Listen.DNS, "listen.dns")
	}
	for i, p := range c.SNI {
		add(p.Listen, "sni[%d].listen", i)
	}
	for i, p := range c.Web {
		add(p.Listen, "web[%d].listen", i)
	}
	for i, p := range c.Forward {
		add(p.Listen, "forward[%d].listen", i)
	}
	for i, l := range list {
		v.listen(l.path, l.addr)
		j := slices.IndexFunc(list[:i], func(o listener) bool { return conflict(o.addr, l.addr) })
		if j >= 0 {
			v.add(l.path, "%q is taken by %s, %q; choose another port", l.addr, list[j].path, list[j].addr)
		}
	}
}

// conflict reports whether two listeners cannot have these addresses at the same
// time. A listener on all addresses takes those of IPv4 and IPv6.
func conflict(a, b string) bool {
	x := ParseListen(a)
	y := ParseListen(b)
	if x.Port() == 0 || x.Port() != y.Port() {
		return false
	}
	return x.Addr() == y.Addr() || x.Addr().IsUnspecified() || y.Addr().IsUnspecified()
}

// ParseListen reads a listen address, host:port, as the listeners do. Every spelling
// of all addresses becomes "::". If s is not a listen address, the result is not
// valid and has port 0.
func ParseListen(s string) netip.AddrPort {
	host, port, _ := net.SplitHostPort(s)
	switch host {
	case "":
		host = "::"
	case "localhost":
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil {
		return netip.AddrPort{}
	}
	ip = ip.Unmap()
	if ip.IsUnspecified() {
		ip = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(ip, uint16(n))
}

func (v *validator) listen(path, addr string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		v.add(path, "invalid listen address %q: write host:port or :port, such as :1055", addr)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		v.add(path, "port %q is not between 1 and 65535", port)
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			v.add(path, "invalid IP address %q: leave the host empty to listen on all addresses", host)
		}
	}
}
