// Package value has the types of the configuration's single values: durations,
// ports, targets, names. Each is read from one string, and says what is wrong with
// it. The package does not know the keys.
package value

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/config/names"
	"github.com/pandoproxy/pando/internal/config/strictyaml"
	"github.com/pandoproxy/pando/internal/host"
)

// Duration is a time.Duration that is written as "10s" or "2m30s".
type Duration time.Duration

// String writes d as time.Duration prints it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func parseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("invalid duration %q: write it with a unit, such as 10s", s)
	}
	return Duration(d), nil
}

// PortRange is a range of ports, First and Last included. It is written as
// "8000-8099", or as "443" if both are the same.
type PortRange struct{ First, Last uint16 }

// String writes r as the file does.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MarshalText returns String.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// ParsePorts reads "443" or "8000-8099". Port 0 is an error.
func ParsePorts(s string) (PortRange, error) {
	first, last, ranged := strings.Cut(s, "-")
	if !ranged {
		last = first
	}
	lo, err1 := strconv.ParseUint(first, 10, 16)
	hi, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || lo == 0 || hi < lo {
		return PortRange{}, fmt.Errorf("invalid port %q: write one such as 443, or a range such as 8000-8099", s)
	}
	return PortRange{First: uint16(lo), Last: uint16(hi)}, nil
}

// ParsePrefix reads a prefix, or a single address as the prefix of its full length.
// Host bits behind the length are an error, because they are a typing mistake.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Errorf("invalid prefix %q: write one such as 10.12.0.0/16, or a single address", s)
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q is an IPv4-mapped IPv6 prefix; write it as IPv4", s)
	case p.Masked() != p:
		return p, fmt.Errorf("%q has host bits set; did you mean %s?", s, p.Masked())
	}
	return p, nil
}

// parseAddr reads an address of the host table.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return a, fmt.Errorf("invalid IP address %q: write one such as 10.12.3.4", s)
	}
	return a.Unmap(), nil
}

// Target is a host, which is a name or an address, and a port.
type Target struct {
	Host string
	Port uint16
}

// String writes t as host:port, with brackets around an IPv6 address. The zero
// Target is the empty string.
func (t Target) String() string {
	if t == (Target{}) {
		return ""
	}
	return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}

// MarshalText returns String.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// ParseTarget reads host:port. Port 0 is an error.
func ParseTarget(s string) (Target, error) {
	const example = "write host:port, such as db.internal.example.com:5432"
	if s == "" {
		return Target{}, errors.New("missing: " + example)
	}
	name, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || name == "" {
		return Target{}, fmt.Errorf("invalid target %q: %s", s, example)
	}
	addr, err := netip.ParseAddr(name)
	if err != nil && !names.IsHost(name) {
		return Target{}, fmt.Errorf("invalid host %q in the target: %s", name, example)
	}
	if addr.Zone() != "" {
		return Target{}, fmt.Errorf("invalid host %q in the target: an address with a zone is valid on one host only; write a name, or another address", name)
	}
	return Target{Host: name, Port: uint16(n)}, nil
}

// FleetHost is an address of the fleet, or a name of it. One of the two fields is
// set.
type FleetHost struct {
	Addr netip.Addr
	Name string // lower case
}

// String returns the address or the name.
func (h FleetHost) String() string {
	if h.Addr.IsValid() {
		return h.Addr.String()
	}
	return h.Name
}

// MarshalText returns String.
func (h FleetHost) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

func parseFleetHost(s string) (FleetHost, error) {
	h, err := host.Parse(s)
	if err != nil || !h.Addr.IsValid() && (names.Check(s) != nil || strings.HasPrefix(s, "*.")) {
		return FleetHost{}, fmt.Errorf("invalid address or name %q: write one such as 10.96.0.7 or pando.pando.svc", s)
	}
	return FleetHost{Addr: h.Addr, Name: h.Name}, nil
}

// TextTypes are the types that a configuration writes as one string.
var TextTypes = map[reflect.Type]strictyaml.TextType{
	reflect.TypeFor[Duration]():     textType("a duration, such as 10s", parseDuration),
	reflect.TypeFor[netip.Addr]():   textType("an IP address in quotes", parseAddr),
	reflect.TypeFor[netip.Prefix](): textType("a prefix, such as 10.12.0.0/16", ParsePrefix),
	reflect.TypeFor[PortRange]():    textType(`a port in quotes, such as "443"`, ParsePorts),
	reflect.TypeFor[Target]():       textType("a target in quotes, host:port", ParseTarget),
	reflect.TypeFor[FleetHost]():    textType("an address or a name, in quotes", parseFleetHost),
}

func textType[T any](want string, parse func(string) (T, error)) strictyaml.TextType {
	return strictyaml.TextType{Want: want, Parse: func(s string, v reflect.Value) error {
		value, err := parse(s)
		if err != nil {
			return err
		}
		v.Set(reflect.ValueOf(value))
		return nil
	}}
}
