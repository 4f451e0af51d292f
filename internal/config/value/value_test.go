package value

import (
	"testing"
	"time"
)

// TestDuration checks how durations are read and written.
func TestDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{"0s": 0, "10s": 10 * time.Second, "2m30s": 150 * time.Second, "-1s": -time.Second, "1.5h": 90 * time.Minute} {
		d, err := parseDuration(s)
		if err != nil || time.Duration(d) != want {
			t.Errorf("parseDuration(%q) = %v, %v, want %v", s, d, err, want)
		}
		text, _ := d.MarshalText()
		if back, err := parseDuration(string(text)); err != nil || back != d {
			t.Errorf("parseDuration(%q) = %v, %v, want %v", text, back, err, d)
		}
	}
	for _, s := range []string{"", "5", "10 s", "1d", "s"} {
		if _, err := parseDuration(s); err == nil {
			t.Errorf("parseDuration(%q) gives no error", s)
		}
	}
}
