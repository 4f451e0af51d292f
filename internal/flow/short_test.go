package flow

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestShort checks that a text is cut to 255 bytes and an ellipsis, between characters.
func TestShort(t *testing.T) {
	a := func(n int) string { return strings.Repeat("a", n) }
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", ""},
		{"longest", a(255), a(255)},
		{"too_long", a(256), a(255) + "…"},
		{"again", a(255) + "…", a(255) + "…"},
		{"before_a_character", a(254) + "é" + a(9), a(254) + "…"},
		{"before_a_long_character", a(252) + "😀" + a(9), a(252) + "…"},
		{"after_a_character", a(251) + "😀" + a(9), a(251) + "😀…"},
		{"not_utf8", a(200) + strings.Repeat("\x80", 100), a(200) + strings.Repeat("\x80", 55) + "…"},
	} {
		got := Short(c.text)
		if got != c.want || utf8.ValidString(c.text) && !utf8.ValidString(got) {
			t.Errorf("%s: Short(%q) = %q, want %q", c.name, c.text, got, c.want)
		}
	}
}

// TestLogLineIsBounded checks that no value of a flow makes its log line long, that the
// line still says what failed, and that its JSON can be read back.
func TestLogLineIsBounded(t *testing.T) {
	long := strings.Repeat("é", 30<<10)
	rec := NewRecord(Connect, netip.MustParseAddrPort("10.244.1.7:40122"))
	rec.Host = long
	rec.Port = 443
	rec.User = long
	rec.Method = long
	rec.Source = long
	rec.Rule = long
	rec.Report = long
	rec.Err = fmt.Errorf("road: %w", &Error{Class: Denied, Op: "policy", Target: long, Hint: long, Err: errors.New("rule no-databases denies it")})
	for _, a := range rec.LogValue().Group() {
		if s := a.Value.String(); len(s) > 255+len("…")+len(":443") || !utf8.ValidString(s) {
			t.Errorf("%s has %d bytes, want 255, an ellipsis and the port at most: %.20q", a.Key, len(s), s)
		}
		if a.Key == keyErr && !strings.Contains(a.Value.String(), "no-databases") {
			t.Errorf("err is %q, want the cause in it", a.Value)
		}
	}
	var line strings.Builder
	slog.New(slog.NewJSONHandler(&line, nil)).Info("flow", "flow", rec)
	if line.Len() > 3000 {
		t.Errorf("the log line has %d bytes, want 3000 at most", line.Len())
	}
	b, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, new(Record)); err != nil {
		t.Errorf("Unmarshal() = %v, want nil", err)
	}
}
