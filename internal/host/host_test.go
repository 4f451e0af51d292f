package host

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

// TestParseAddress checks that every spelling of an address that some program
// accepts is read as that address.
func TestParseAddress(t *testing.T) {
	for _, tc := range []struct{ name, host, want string }{
		{"dotted", "10.12.3.4", "10.12.3.4"},
		{"dotted_trailing_dot", "10.12.3.4.", "10.12.3.4"},
		{"one_part", "2130706433", "127.0.0.1"},
		{"one_part_max", "4294967295", "255.255.255.255"},
		{"one_part_hex", "0x7f000001", "127.0.0.1"},
		{"one_part_octal", "017700000001", "127.0.0.1"},
		{"two_parts", "127.1", "127.0.0.1"},
		{"two_parts_max", "1.16777215", "1.255.255.255"},
		{"three_parts", "10.1.770", "10.1.3.2"},
		{"octal", "0251.0376.0251.0376", "169.254.169.254"},
		{"hex_capital", "0XA9.0xFE.0xa9.0xfe", "169.254.169.254"},
		{"mixed", "0xa9.254.0251.254", "169.254.169.254"},
		{"zero", "0", "0.0.0.0"},
		{"hex_prefix_alone", "0x", "0.0.0.0"},
		{"ipv6", "FD00::4", "fd00::4"},
		{"ipv4_mapped", "::ffff:169.254.169.254", "169.254.169.254"},
		{"full_width_digits", "１６９.２５４.１６９.２５４", "169.254.169.254"},
		{"ideographic_dots", "127。0。0。1", "127.0.0.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, err := Parse(tc.host)
			if err != nil || h.Addr != netip.MustParseAddr(tc.want) || h.Name != "" {
				t.Errorf("Parse(%q) = %+v, %v, want %s", tc.host, h, err, tc.want)
			}
			if !IsAddress(tc.host) {
				t.Errorf("IsAddress(%q) = false, want true", tc.host)
			}
		})
	}
}

func TestUnbracket(t *testing.T) {
	for host, want := range map[string]string{
		"[fd00::4]":         "fd00::4",
		"[::ffff:10.0.0.1]": "::ffff:10.0.0.1",
		"[fe80::1%eth0]":    "fe80::1%eth0", // Parse says what is wrong with it
		"fd00::4":           "fd00::4",
		"[10.0.0.1]":        "[10.0.0.1]",
		"[api.example.com]": "[api.example.com]",
		"[fd00::4":          "[fd00::4",
		"fd00::4]":          "fd00::4]",
		"[]":                "[]",
		"[":                 "[",
		"":                  "",
		"[[fd00::4]]":       "[[fd00::4]]",
		"api.example.com":   "api.example.com",
	} {
		if got := Unbracket(host); got != want {
			t.Errorf("Unbracket(%q) = %q, want %q", host, got, want)
		}
	}
}

func TestParseName(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := strings.Repeat(label+".", 3) + label[:61] // 253 bytes
	for _, tc := range []struct{ name, host, want string }{
		{"lower_case", "API.Example.COM", "api.example.com"},
		{"trailing_dot", "api.example.com.", "api.example.com"},
		{"short", "api", "api"},
		{"underscore", "_sip._tcp.example.com", "_sip._tcp.example.com"},
		{"idna", "Bücher.example", "xn--bcher-kva.example"},
		{"idna_ideographic_dot", "例え。jp", "xn--r8jz45g.jp"},
		{"longest_label", label + ".com", label + ".com"},
		{"longest_name", long + ".", long},
		{"number_first", "1.2.3.4.com", "1.2.3.4.com"},
		{"number_like", "1.2.3.0xg", "1.2.3.0xg"},
		{"hex_prefix_and_letters", "a.0xzz", "a.0xzz"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, err := Parse(tc.host)
			if err != nil || h != (Host{Name: tc.want}) {
				t.Errorf("Parse(%q) = %+v, %v, want the name %s", tc.host, h, err, tc.want)
			}
			if IsAddress(tc.host) {
				t.Errorf("IsAddress(%q) = true, want false", tc.host)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	likeAddress := map[string]string{
		"five_parts": "1.2.3.4.5", "part_too_big": "256.1.1.1", "last_part_too_big": "1.2.65536", "one_part_too_big": "4294967296",
		"last_of_four_too_big": "1.2.3.256", "bad_octal": "1.2.3.08", "bad_octal_first": "09.2.3.4", "name_with_number": "foo.1", "name_with_hex": "foo.0x1",
		"empty_part": "1..2", "digits_run_over": "99999999999999999999", "negative": "1.2.3.-4.5", "full_width_five_parts": "1.2.3.4.５",
		"hex_runs_over": "0x123456789", "name_with_hex_that_runs_over": "foo.0x123456789abcdef01",
		"zone": "fe80::1%eth0", "zone_of_mapped": "::ffff:1.2.3.4%1",
	}
	likeName := map[string]string{
		"brackets": "[::1]", "empty": "", "dot": ".", "two_dots": "a..", "leading_dot": ".a", "space": "a b", "nul": "a\x00b", "slash": "a/b", "at": "user@a", "colon": "a:80",
		"newline": "a\nb", "not_utf8": "a\xff", "long_label": strings.Repeat("a", 64) + ".com", "long_name": strings.Repeat("a.", 128),
	}
	check := func(hosts map[string]string, isAddress bool) {
		for name, host := range hosts {
			t.Run(name, func(t *testing.T) {
				h, err := Parse(host)
				if flow.ClassOf(err) != flow.BadRequest || flow.HintOf(err) == "" || h != (Host{}) {
					t.Errorf("Parse(%q) = %+v, %v, want class bad_request with a hint", host, h, err)
				}
				if got := IsAddress(host); got != isAddress {
					t.Errorf("IsAddress(%q) = %v, want %v", host, got, isAddress)
				}
			})
		}
	}
	check(likeAddress, true)
	check(likeName, false)
}

func TestEndsInNumber(t *testing.T) {
	for host, want := range map[string]bool{
		"1": true, "1.": true, "a.1": true, "*.1": true, "a.08": true, "a.0x": true, "a.0x7f": true, "a.0XFF": true,
		"10.0.0.1": true, "a.99999999999999999999": true, "a.0x99999999999999999999": true,
		"": false, ".": false, "1..": false, "a": false, "1.a": false, "a1": false, "a.1a": false, "a.0xzz": false, "x0": false, "a.-1": false,
		"::1": false, // an address, but not by this rule
	} {
		if got := EndsInNumber(host); got != want {
			t.Errorf("EndsInNumber(%q) = %v, want %v", host, got, want)
		}
	}
}

// FuzzParse checks that what Parse returns is in its one form: read again, it is
// the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"api.example.com", "API.Example.com.", "1.2.3.4.5", "0x7f.1", "０x7f.1", "fe80::1%eth0", "Bücher.example", "例え。jp", "a..", "xn--a", "1.2.3.4。", "foo.0x", "a.0xzz", "a.0x123456789"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := Parse(s)
		if err != nil {
			if flow.ClassOf(err) != flow.BadRequest || h != (Host{}) {
				t.Fatalf("Parse(%q) = %+v, %v, want class bad_request and no host", s, h, err)
			}
			return
		}
		if h.Addr.IsValid() {
			if h.Name != "" || h.Addr.Is4In6() || h.Addr.Zone() != "" {
				t.Fatalf("Parse(%q) = %+v, want an address alone, not mapped, without a zone", s, h)
			}
			if again, err := Parse(h.Addr.String()); err != nil || again != h {
				t.Fatalf("Parse(%q) = %+v, but Parse(%q) = %+v, %v", s, h, h.Addr, again, err)
			}
			return
		}
		n := h.Name
		if n == "" || n != strings.ToLower(n) || strings.HasSuffix(n, ".") || strings.ContainsFunc(n, func(c rune) bool { return c >= 0x80 || c <= ' ' }) {
			t.Fatalf("Parse(%q) = name %q, want lower case, ASCII, no trailing dot", s, n)
		}
		if again, err := Parse(n); err != nil || again != h {
			t.Fatalf("Parse(%q) = %+v, but Parse(%q) = %+v, %v", s, h, n, again, err)
		}
		if EndsInNumber(n) {
			t.Fatalf("Parse(%q) = name %q, which ends in a number", s, n)
		}
	})
}
