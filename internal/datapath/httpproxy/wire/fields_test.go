package wire

import (
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
