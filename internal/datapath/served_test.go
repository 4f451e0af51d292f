package datapath

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/flow"
)

// TestServed checks which targets a port for clients without a proxy setting leads to.
func TestServed(t *testing.T) {
	zone := []string{"corp.example", "*.corp.example"}
	for _, tc := range []struct {
		name, host string
		port       uint16
		names      []string
		anyPort    bool
		served     bool
		words      string // in the hint
	}{
		{name: "name_of_the_zone", host: "api.corp.example", names: zone, served: true},
		{name: "mixed_case_and_dot", host: "API.Corp.example.", names: zone, served: true},
		{name: "name_outside", host: "www.example", names: zone, words: "dns.zones"},
		{name: "like_the_zone", host: "evilcorp.example", names: zone, words: "dns.zones"},
		{name: "another_port", host: "api.corp.example", port: 8105, names: zone, words: "port 443"},
		{name: "another_port_allowed", host: "api.corp.example", port: 8105, names: zone, anyPort: true, served: true},
		{name: "address", host: "10.0.0.1", names: zone, words: "serves"},
		{name: "address_in_hex", host: "0x0a000001", names: zone, words: "serves"},
		{name: "address_and_port", host: "10.0.0.1", port: 8105, names: zone, words: "serves"},
		{name: "without_zones", host: "api.corp.example", served: true},
		{name: "without_zones_another_port", host: "api.corp.example", port: 8105, words: "port 443"},
		{name: "without_zones_address", host: "10.0.0.1", words: "serves"},
		{name: "everything", host: "api.corp.example", names: []string{"*"}, served: true},
		{name: "everything_address", host: "10.0.0.1", names: []string{"*"}, served: true},
		{name: "everything_on_one_port", host: "10.0.0.1", port: 8105, names: []string{"*"}, words: "port 443"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := &outside{addrs: map[string][]string{"api.corp.example": {"10.0.0.1"}}}
			s := &Served{Road: newRoad(t, o, policy.Policy{}), Names: tc.names, Port: 443}
			if tc.anyPort {
				s.Port = 0
			}
			rec := record(tc.host)
			if tc.port != 0 {
				rec.Port = tc.port
			}
			_, judged := s.Judge(t.Context(), rec)
			conn, err := s.Connect(t.Context(), rec)
			if conn != nil {
				conn.Close()
			}
			if tc.served {
				if err != nil || judged != nil {
					t.Errorf("Connect: %v, Judge: %v, want no error", err, judged)
				}
				return
			}
			for _, err := range []error{err, judged} {
				if flow.ClassOf(err) != flow.Denied || !strings.Contains(flow.HintOf(err), tc.words) {
					t.Errorf("got %v with hint %q, want denied, and %q in the hint", err, flow.HintOf(err), tc.words)
				}
			}
			lookups, dialled := o.seen()
			if len(slices.Concat(lookups, dialled)) > 0 {
				t.Errorf("looked up %q and dialled %q, want nothing", lookups, dialled)
			}
		})
	}
}

// servedNames are the lists of names that FuzzServed chooses from.
var servedNames = [][]string{
	nil,
	{"corp.example", "*.corp.example"},
	{"api.corp.example"},
	{"*"},
	{"*.example", "xn--bcher-kva.test"},
	{"localhost", "*.0x.test"},
}

// FuzzServed checks that a port for clients without a proxy setting lets through what a
// simple model does, and nothing else, in whatever spelling.
func FuzzServed(f *testing.F) {
	for i := range servedNames {
		for _, s := range []string{
			"api.corp.example", "API.Corp.Example.", "corp.example", "corp.example..", ".corp.example", "evilcorp.example", "corp.example.evil",
			"api.corp.example:443", "[::1]", "::ffff:10.0.0.1", "10.0.0.1", "0x0a000001", "012.1", "10.0.0.1.", "1.2.3.4.corp.example", "fe80::1%eth0",
			"ａｐｉ.corp.example", "api。corp。example", "Bücher.test", "xn--bcher-kva.test", "①.0.0.1", "localhost", "a.0x.test", "api.corp.example\x00.evil", "api.corp.example%00", "0\xd10", "",
		} {
			f.Add(s, uint16(443), uint8(i))
			f.Add(s, uint16(80), uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, host string, port uint16, which uint8) {
		names := servedNames[int(which)%len(servedNames)]
		passes := func(spelling string, only uint16) bool {
			rec := record(spelling)
			rec.Port = port
			return (&Served{Names: names, Port: only}).check(rec) == nil
		}
		served := passes(host, 0)
		if want := modelServes(names, host); served != want {
			t.Fatalf("%q passes a port that serves %q: %v, want %v", host, names, served, want)
		}
		if got, want := passes(host, 443), served && port == 443; got != want {
			t.Fatalf("%q, port %d, passes a port for port 443 that serves %q: %v, want %v", host, port, names, got, want)
		}
		for _, spelling := range []string{asciiCase(host, strings.ToUpper), asciiCase(host, strings.ToLower)} {
			if passes(spelling, 0) != served {
				t.Fatalf("%q passes: %v, but %q: %v", host, served, spelling, !served)
			}
		}
	})
}

// asciiCase applies change to the ASCII characters of s.
func asciiCase(s string, change func(string) string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 {
			return rune(change(string(r))[0])
		}
		return r
	}, s)
}

// modelServes says by the words of the documentation whether a port that serves names
// lets host through: label by label, an address only with "*".
func modelServes(names []string, host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return slices.Contains(names, "*") && !strings.Contains(host, "%")
	}
	host = strings.TrimSuffix(host, ".")
	if utf8.ValidString(host) && strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }) && !endsInNumber(strings.Split(strings.ToLower(host), ".")) {
		ascii, err := idna.Lookup.ToASCII(host)
		if err != nil {
			return false
		}
		host = ascii
	}
	labels := strings.Split(strings.ToLower(host), ".")
	if len(host) > 253 || !utf8.ValidString(host) {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	if endsInNumber(labels) {
		return slices.Contains(names, "*") && isNumericAddress(labels)
	}
	return len(names) == 0 || slices.ContainsFunc(names, func(pattern string) bool {
		want := strings.Split(pattern, ".")
		if want[0] == "*" {
			tail := want[1:]
			return len(labels) > len(tail) && slices.Equal(labels[len(labels)-len(tail):], tail)
		}
		return slices.Equal(labels, want)
	})
}

// endsInNumber reports whether the last of labels is a number: they are not a name then.
func endsInNumber(labels []string) bool {
	last := labels[len(labels)-1]
	hex, ok := strings.CutPrefix(last, "0x")
	return last != "" && strings.Trim(last, "0123456789") == "" || ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// isNumericAddress reports whether labels are an IPv4 address as inet_aton(3) reads it.
func isNumericAddress(labels []string) bool {
	for i, l := range labels {
		base := 10
		if hex, ok := strings.CutPrefix(l, "0x"); ok {
			base = 16
			l = "0" + hex
		} else if len(l) > 1 && l[0] == '0' {
			base = 8
		}
		bits := 8
		if i == len(labels)-1 {
			bits = 8 * (4 - i)
		}
		v, err := strconv.ParseUint(l, base, 32)
		if err != nil || bits < 8 || v>>bits != 0 {
			return false
		}
	}
	return true
}
