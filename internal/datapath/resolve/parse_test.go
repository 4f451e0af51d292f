package resolve

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

func TestParseHostAddress(t *testing.T) {
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
			h, err := ParseHost(tc.host)
			if err != nil || h.Addr != netip.MustParseAddr(tc.want) || h.Name != "" {
				t.Errorf("ParseHost(%q) = %+v, %v; want %s", tc.host, h, err, tc.want)
			}
		})
	}
}

func TestParseHostName(t *testing.T) {
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
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, err := ParseHost(tc.host)
			if err != nil || h != (Host{Name: tc.want}) {
				t.Errorf("ParseHost(%q) = %+v, %v; want %s", tc.host, h, err, tc.want)
			}
		})
	}
}

func TestParseHostErrors(t *testing.T) {
	for name, host := range map[string]string{
		"five_parts": "1.2.3.4.5", "part_too_big": "256.1.1.1", "last_part_too_big": "1.2.65536", "one_part_too_big": "4294967296",
		"last_of_four_too_big": "1.2.3.256", "bad_octal": "1.2.3.08", "bad_octal_first": "09.2.3.4", "name_with_number": "foo.1", "name_with_hex": "foo.0x1",
		"empty_part": "1..2", "digits_run_over": "99999999999999999999", "negative": "1.2.3.-4.5", "full_width_five_parts": "1.2.3.4.５",
		"zone": "fe80::1%eth0", "zone_of_mapped": "::ffff:1.2.3.4%1", "brackets": "[::1]",
		"empty": "", "dot": ".", "two_dots": "a..", "leading_dot": ".a", "space": "a b", "nul": "a\x00b", "slash": "a/b", "at": "user@a", "colon": "a:80",
		"newline": "a\nb", "not_utf8": "a\xff", "long_label": strings.Repeat("a", 64) + ".com", "long_name": strings.Repeat("a.", 128),
	} {
		t.Run(name, func(t *testing.T) {
			h, err := ParseHost(host)
			if flow.ClassOf(err) != flow.BadRequest || flow.HintOf(err) == "" || h != (Host{}) {
				t.Errorf("ParseHost(%q) = %+v, %v; want a bad_request with a hint", host, h, err)
			}
		})
	}
}

func TestHostTable(t *testing.T) {
	r := New(Options{Hosts: map[string][]netip.Addr{
		"api.example.com": addrs("10.0.0.1"), "*.example.com": addrs("10.0.0.2"), "*.eu.example.com": addrs("10.0.0.3"), "*.empty.example.com": nil,
	}})
	for name, want := range map[string]string{
		"api.example.com": "10.0.0.1", "x.api.example.com": "10.0.0.2", "b.example.com": "10.0.0.2", "a.b.example.com": "10.0.0.2",
		"b.eu.example.com": "10.0.0.3", "a.b.eu.example.com": "10.0.0.3", "eu.example.com": "10.0.0.2", "x.empty.example.com": "10.0.0.2",
	} {
		if a, err := r.Lookup(t.Context(), Host{Name: name}); err != nil || a.Source != SourceHosts || a.Addrs[0] != netip.MustParseAddr(want) {
			t.Errorf("%s gives %+v, %v; want %s", name, a, err, want)
		}
	}
	for _, name := range []string{"example.com", "com", "badexample.com", "api.example.org"} {
		if a := lookupHosts(*r.hosts.Load(), name); a != nil {
			t.Errorf("%s gives %v; the table says nothing of it", name, a)
		}
	}
	r.SetHosts(map[string][]netip.Addr{"api.example.com": addrs("10.0.0.9")})
	if a, err := r.Lookup(t.Context(), Host{Name: "api.example.com"}); err != nil || a.Addrs[0] != netip.MustParseAddr("10.0.0.9") {
		t.Errorf("after SetHosts: %+v, %v", a, err)
	}
}

func FuzzParseHost(f *testing.F) {
	for _, s := range []string{"api.example.com", "API.Example.com.", "1.2.3.4.5", "0x7f.1", "０x7f.1", "fe80::1%eth0", "Bücher.example", "例え。jp", "a..", "xn--a", "1.2.3.4。", "foo.0x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHost(s)
		if err != nil {
			if flow.ClassOf(err) != flow.BadRequest || h != (Host{}) {
				t.Fatalf("%q: %+v, %v", s, h, err)
			}
			return
		}
		if h.Addr.IsValid() {
			if h.Name != "" || h.Addr.Is4In6() || h.Addr.Zone() != "" {
				t.Fatalf("%q: address %+v", s, h)
			}
			if again, err := ParseHost(h.Addr.String()); err != nil || again != h {
				t.Fatalf("%q: %+v is read again as %+v, %v", s, h, again, err)
			}
			return
		}
		n := h.Name
		if n == "" || n != strings.ToLower(n) || strings.HasSuffix(n, ".") || strings.ContainsFunc(n, func(c rune) bool { return c >= 0x80 || c <= ' ' }) {
			t.Fatalf("%q: name %q", s, n)
		}
		if again, err := ParseHost(n); err != nil || again != h {
			t.Fatalf("%q: %q is read again as %+v, %v", s, n, again, err)
		}
		if last := n[strings.LastIndexByte(n, '.')+1:]; strings.Trim(last, "0123456789") == "" {
			t.Fatalf("%q: name %q ends in a number", s, n)
		}
	})
}
