// Package host reads the host that a client asks for. It decides one question:
// is the host an address or a name? All fronts, the resolver and the
// configuration use this one answer. If they disagreed, a client could pass the
// policy for names with an address, or the policy for addresses with a name.
//
// The rule is that of the URL standard (https://url.spec.whatwg.org/#host-parsing):
// a host that ends in a number is an IPv4 address in some spelling, or it is
// invalid. It is never a name. RFC 1123 section 2.1 allows this, because no
// top-level domain is a number. The package does not look up names.
package host

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/pandoproxy/pando/internal/flow"
)

// Host is an address or a name, never both.
type Host struct {
	Addr netip.Addr // invalid if the host is a name; never IPv4-mapped, never with a zone
	Name string     // empty if the host is an address; lower case, ASCII, no trailing dot
}

// The ways in which a host can look like an address and be invalid.
var (
	errZone    = errors.New("an address with a zone is valid on one host only")
	errNotIPv4 = errors.New("the host ends in a number but is not an IPv4 address")
)

// Parse reads a host as a client spelled it, without port and without the
// brackets of an IPv6 address. The error is a *flow.Error of class BadRequest.
func Parse(s string) (Host, error) {
	addr, ok, err := parseAddress(s)
	switch {
	case errors.Is(err, errZone):
		return Host{}, invalid(s, "leave out the zone: an interface of the client means nothing to Pando", err)
	case err != nil:
		return Host{}, invalid(s, "write the address in dotted form, such as 10.12.3.4", err)
	case ok:
		return Host{Addr: addr}, nil
	}
	name, err := normalize(s)
	if err != nil {
		return Host{}, invalid(s, "check the spelling of the host name", err)
	}
	if name != s {
		return Parse(name) // IDNA maps many other characters to digits and dots
	}
	return Host{Name: name}, nil
}

// Unbracket returns s without the brackets around an IPv6 address, as URLs have them
// (RFC 3986 section 3.2.2): some clients send them where they do not belong. Any other
// host is returned as it is.
func Unbracket(s string) string {
	inner, ok := strings.CutPrefix(s, "[")
	if !ok || !strings.HasSuffix(inner, "]") {
		return s
	}
	inner = strings.TrimSuffix(inner, "]")
	if addr, err := netip.ParseAddr(inner); err != nil || addr.Is4() {
		return s
	}
	return inner
}

// Under reports whether name is suffix, or below it. Both are in lower case and
// without trailing dot. Nothing is below an empty suffix.
func Under(name, suffix string) bool {
	return suffix != "" && (name == suffix || strings.HasSuffix(name, "."+suffix))
}

// IsAddress reports whether Parse reads s as an address, or rejects it because
// it looks like one.
func IsAddress(s string) bool {
	h, err := Parse(s)
	return h.Addr.IsValid() || errors.Is(err, errZone) || errors.Is(err, errNotIPv4)
}

// EndsInNumber reports whether the last label of s is a number: decimal or octal
// digits, or "0x" and any count of hexadecimal digits. A single trailing dot is
// ignored. Such a host is never a name, even if the number is too large for an
// address.
func EndsInNumber(s string) bool {
	s = strings.TrimSuffix(s, ".")
	last := s[strings.LastIndexByte(s, '.')+1:]
	if last == "" {
		return false
	}
	if hex, ok := cutHexPrefix(last); ok {
		return strings.Trim(hex, "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

func invalid(s, hint string, err error) error {
	return &flow.Error{
		Class:  flow.BadRequest,
		Op:     "host",
		Target: s,
		Hint:   hint,
		Err:    err,
	}
}

// parseAddress reads s as an address. In addition to the forms of
// netip.ParseAddr it reads the old forms that inet_aton(3) and browsers accept:
// 1 to 4 parts, each decimal, octal (leading 0) or hexadecimal (0x). If they were
// read as names here, a resolver or a dialer behind us could read them as
// addresses that no policy has judged. ok is false if s is not an address; err
// is set if s looks like an address and is invalid.
func parseAddress(s string) (addr netip.Addr, ok bool, err error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Addr{}, false, errZone
		}
		return a.Unmap(), true, nil
	}
	if !EndsInNumber(s) {
		return netip.Addr{}, false, nil
	}
	parts := strings.Split(strings.TrimSuffix(s, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false, errNotIPv4
	}
	var v uint64
	for i, part := range parts {
		n, err := parseNumber(part)
		if err != nil {
			return netip.Addr{}, false, errNotIPv4
		}
		size := 1 // bytes that this part fills: the last one fills the rest
		if i == len(parts)-1 {
			size = 4 - i
		}
		if n >= 1<<(8*size) {
			return netip.Addr{}, false, errNotIPv4
		}
		v = v<<(8*size) | n
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true, nil
}

// parseNumber reads one part of an IPv4 address. "0x" alone is 0, as in the URL
// standard.
func parseNumber(s string) (uint64, error) {
	if hex, ok := cutHexPrefix(s); ok {
		if hex == "" {
			return 0, nil
		}
		return strconv.ParseUint(hex, 16, 32)
	}
	if len(s) > 1 && s[0] == '0' {
		return strconv.ParseUint(s[1:], 8, 32)
	}
	return strconv.ParseUint(s, 10, 32)
}

// cutHexPrefix returns s without its prefix "0x" or "0X", and whether it has one.
func cutHexPrefix(s string) (string, bool) {
	if len(s) >= 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		return s[2:], true
	}
	return s, false
}

// normalize returns a host name in lower case, in ASCII (IDNA 2008) and without
// trailing dot. The error says what is wrong with the name.
func normalize(s string) (string, error) {
	name := strings.TrimSuffix(s, ".")
	if !isASCII(name) {
		if !utf8.ValidString(name) { // idna would turn it into another name
			return "", errors.New("invalid host name: not UTF-8")
		}
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("invalid host name: %w", err)
		}
		name = ascii
	}
	name = strings.ToLower(name)
	if name == "" || len(name) > 253 {
		return "", fmt.Errorf("invalid host name of %d bytes: it must have 1 to 253", len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("invalid label %q of %d bytes: it must have 1 to 63", label, len(label))
		}
		if i := strings.IndexFunc(label, isForbidden); i >= 0 {
			return "", fmt.Errorf("invalid character %q in a host name", label[i])
		}
	}
	return name, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// isForbidden reports whether c is not allowed in a label in lower case.
// Underscores are allowed: names of services have them (RFC 8552).
func isForbidden(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
}
