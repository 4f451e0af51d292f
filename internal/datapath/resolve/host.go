package resolve

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

// Host is a target's host as read from a client: an address, or a name.
type Host struct {
	Addr netip.Addr // valid when the client gave an address, in any spelling
	Name string     // otherwise: lower case, ASCII, no trailing dot
}

// ParseHost reads host as a client spelled it, without brackets or port. The
// error is a *flow.Error of class BadRequest.
func ParseHost(host string) (Host, error) {
	if a, ok, err := parseLiteral(host); err != nil {
		hint := "write the address in dotted form, such as 10.12.3.4"
		if strings.Contains(host, "%") {
			hint = "an address with a zone is one of the client's own links; it can't be reached through the gateway"
		}
		return Host{}, fail(flow.BadRequest, host, hint, err)
	} else if ok {
		return Host{Addr: a}, nil
	}
	name, err := normalize(host)
	if err != nil {
		return Host{}, fail(flow.BadRequest, host, "check the spelling of the host name", err)
	}
	if name != host {
		return ParseHost(name) // IDNA makes digits and dots of many a character
	}
	return Host{Name: name}, nil
}

// normalize returns a host name in lower case, without a trailing dot, in
// ASCII (IDNA 2008), or says what is wrong with it.
func normalize(host string) (string, error) {
	name := strings.TrimSuffix(host, ".")
	ascii := true
	for i := range len(name) {
		ascii = ascii && name[i] < 0x80
	}
	if !ascii {
		if !utf8.ValidString(name) { // idna would make another name of it
			return "", errors.New("not a host name: not UTF-8")
		}
		a, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("not a host name: %w", err)
		}
		name = a
	}
	name = strings.ToLower(name)
	if name == "" || len(name) > 253 {
		return "", fmt.Errorf("a host name has 1 to 253 bytes, this has %d", len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("a label has 1 to 63 bytes, %q has %d", label, len(label))
		}
		if i := strings.IndexFunc(label, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}); i >= 0 {
			return "", fmt.Errorf("character %q can't be in a host name", label[i])
		}
	}
	return name, nil
}

// parseLiteral reads host as an address. Beside the forms of netip.ParseAddr it
// knows the old ones that inet_aton(3) and browsers accept: 1 to 4 parts, each
// decimal, octal (leading 0) or hexadecimal (0x). They must be read here, or a
// policy that judges addresses could be passed by a host "name" that some
// resolver further on reads as an address. ok is false for names; err says that
// host ends like an address (URL standard, "ends in a number") and is none.
func parseLiteral(host string) (a netip.Addr, ok bool, err error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return netip.Addr{}, false, errors.New("an address with a zone names a link of this host")
		}
		return a.Unmap(), true, nil
	}
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if last := parts[len(parts)-1]; !endsInNumber(last) {
		return netip.Addr{}, false, nil
	}
	notAddr := errors.New("ends in a number but is no IPv4 address")
	if len(parts) > 4 {
		return netip.Addr{}, false, notAddr
	}
	var v uint64
	for i, p := range parts {
		n, err := parseNumber(p)
		if err != nil {
			return netip.Addr{}, false, notAddr
		}
		rest := 4 - i // bytes that this part may fill if it is the last
		if i < len(parts)-1 {
			if n > 255 {
				return netip.Addr{}, false, notAddr
			}
			v = v<<8 | n
			continue
		}
		if n >= 1<<(8*rest) {
			return netip.Addr{}, false, notAddr
		}
		v = v<<(8*rest) | n
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true, nil
}

func endsInNumber(last string) bool {
	if last == "" {
		return false
	}
	if strings.Trim(last, "0123456789") == "" {
		return true
	}
	_, err := parseNumber(last)
	return err == nil
}

func parseNumber(s string) (uint64, error) {
	switch {
	case len(s) > 1 && (s[:2] == "0x" || s[:2] == "0X"):
		if len(s) == 2 {
			return 0, nil
		}
		return strconv.ParseUint(s[2:], 16, 32)
	case len(s) > 1 && s[0] == '0':
		return strconv.ParseUint(s[1:], 8, 32)
	}
	return strconv.ParseUint(s, 10, 32)
}
