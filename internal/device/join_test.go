package device

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// TestKeys checks which auth key the engine gets first, and what it gets for the
// next login, after the file of the key has changed.
func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "authkey")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		config config.Tailnet
		before string // content of the file when the device starts; empty means that it is missing
		after  string // content of the file at the next login; empty means that it is missing
		first  string
		next   string
		err    string // of the next login, in part
		none   bool   // there is no next key: a person logs in
	}{
		{name: "none", none: true},
		{name: "in_the_configuration", config: config.Tailnet{AuthKey: "tskey-auth-a"}, first: "tskey-auth-a", next: "tskey-auth-a"},
		{name: "file_is_renewed", config: config.Tailnet{AuthKeyFile: file}, before: "tskey-auth-a", after: "tskey-auth-b", first: "tskey-auth-a", next: "tskey-auth-b"},
		{name: "white_space_in_the_configuration", config: config.Tailnet{AuthKey: " tskey-auth-a\n"}, first: "tskey-auth-a", next: "tskey-auth-a"},
		{name: "white_space_in_the_file", config: config.Tailnet{AuthKeyFile: file}, before: "tskey-auth-a\r\n", after: "\ttskey-auth-b\n", first: "tskey-auth-a", next: "tskey-auth-b"},
		{name: "nothing_but_white_space", config: config.Tailnet{AuthKey: " \n"}, none: true},
		{name: "file_appears", config: config.Tailnet{AuthKeyFile: file}, after: "tskey-auth-b", next: "tskey-auth-b"},
		{name: "file_disappears", config: config.Tailnet{AuthKeyFile: file}, before: "tskey-auth-a", first: "tskey-auth-a", err: "tailnet.authKeyFile: "},
		{name: "file_is_missing", config: config.Tailnet{AuthKeyFile: file}, err: "tailnet.authKeyFile: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			os.Remove(file)
			if c.before != "" {
				write(c.before)
			}
			var o tailnet.Options
			if err := New(Options{Config: c.config}).setKeys(t.Context(), &o); err != nil {
				t.Fatalf("setKeys() = %v, want nil", err)
			}
			if o.AuthKey != c.first {
				t.Errorf("first key = %q, want %q", o.AuthKey, c.first)
			}
			if (o.NextKey == nil) != c.none {
				t.Fatalf("NextKey is nil: %v, want %v", o.NextKey == nil, c.none)
			}
			if c.none {
				return
			}
			os.Remove(file)
			if c.after != "" {
				write(c.after)
			}
			next, err := o.NextKey(t.Context())
			if next != c.next || (err == nil) != (c.err == "") {
				t.Errorf("next key = %q, %v; want %q, %q", next, err, c.next, c.err)
			}
			if err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error of the next key = %v, want %q in it", err, c.err)
			}
		})
	}
}

// TestFirstUnrouted checks that the unrouted resolver that is reported does not
// change from one call to the next, although the zones are in a map.
func TestFirstUnrouted(t *testing.T) {
	zones := map[string][]string{
		"a.example": {"10.0.0.9", "10.0.0.5"},
		"b.example": {"10.0.0.7", "10.0.0.1"},
		"c.example": {"10.0.0.3"},
		"public":    {"9.9.9.9", "https://10.0.0.2/dns-query"},
	}
	routed := func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.1") }
	for range 20 {
		if got, want := firstUnrouted(zones, routed), netip.MustParseAddr("10.0.0.3"); got != want {
			t.Fatalf("firstUnrouted() = %v, want %v", got, want)
		}
	}
	if got := firstUnrouted(zones, func(netip.Addr) bool { return true }); got.IsValid() {
		t.Errorf("firstUnrouted() = %v with all resolvers routed, want none", got)
	}
}
