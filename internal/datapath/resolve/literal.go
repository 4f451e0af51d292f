package resolve

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

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
