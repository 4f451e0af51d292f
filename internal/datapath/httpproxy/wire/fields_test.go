package wire

import (
	"encoding/base64"
	"maps"
	"net/http"
	"testing"
)

// TestHasVia checks where in a Via field the name counts.
func TestHasVia(t *testing.T) {
	for _, c := range []struct {
		name, field string
		want        bool
	}{
		{"alone", "1.1 pando", true},
		{"among_others", "1.0 fred, HTTP/1.1 PANDO (a comment), 1.1 joe", true},
		{"other", "1.1 pando-2", false},
		{"as_version", "pando fred", false},
		{"as_comment", "1.1 fred pando", false},
		{"empty", ",, ", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := HasVia([]string{c.field}, "pando"); got != c.want {
				t.Errorf("HasVia(%q) = %v, want %v", c.field, got, c.want)
			}
		})
	}
}

func TestConnectionOptions(t *testing.T) {
	fields := http.Header{"Connection": {"close, x-mine ,", "UPGRADE"}}
	want := Options{"Close": true, "X-Mine": true, "Upgrade": true}
	if got := ConnectionOptions(fields); !maps.Equal(got, want) {
		t.Errorf("ConnectionOptions(%v) = %v, want %v", fields, got, want)
	}
	if got := ConnectionOptions(http.Header{}); len(got) > 0 {
		t.Errorf("ConnectionOptions without a Connection field = %v, want none", got)
	}
}

// TestBasicAuth checks how credentials are parsed.
func TestBasicAuth(t *testing.T) {
	encode := base64.StdEncoding.EncodeToString
	for _, c := range []struct {
		name, field, user, password string
		ok                          bool
	}{
		{"valid", "Basic " + encode([]byte("ann:secret")), "ann", "secret", true},
		{"scheme_in_lower_case", "basic  " + encode([]byte("ann:secret")), "ann", "secret", true},
		{"password_with_colon", "Basic " + encode([]byte("ann:a:b")), "ann", "a:b", true},
		{"no_colon", "Basic " + encode([]byte("ann")), "ann", "", false},
		{"not_base64", "Basic ann:secret", "", "", false},
		{"other_scheme", "Bearer " + encode([]byte("ann:secret")), "", "", false},
		{"nothing", "", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if user, password, ok := BasicAuth(c.field); user != c.user || password != c.password || ok != c.ok {
				t.Errorf("BasicAuth(%q) = %q, %q, %v; want %q, %q, %v", c.field, user, password, ok, c.user, c.password, c.ok)
			}
		})
	}
}

// TestSFString checks that nothing but printable ASCII is left.
func TestSFString(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", `""`},
		{"plain", "denied: not on the tailnet", `"denied: not on the tailnet"`},
		{"escapes", `a "b" \c`, `"a \"b\" \\c"`},
		{"control_bytes", "a\r\nX: b\x00\x7f", `"a??X: b??"`},
		{"not_ascii", "naïve", `"na?ve"`},
		{"not_utf8", "a\xff", `"a?"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := SFString(c.in); got != c.want {
				t.Errorf("SFString(%q) = %s, want %s", c.in, got, c.want)
			}
		})
	}
}
