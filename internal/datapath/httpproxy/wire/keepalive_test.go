package wire

import (
	"testing"
	"time"
)

// TestKeepAlive checks the spellings of hints.
func TestKeepAlive(t *testing.T) {
	for _, c := range []struct {
		name    string
		values  []string
		timeout time.Duration
		most    int
	}{
		{"none", nil, -1, -1},
		{"node", []string{"timeout=5"}, 5 * time.Second, -1},
		{"apache", []string{"timeout=5, max=100"}, 5 * time.Second, 100},
		{"spaces_and_case", []string{" Max = 3 ,TIMEOUT= 60 "}, time.Minute, 3},
		{"two_lines", []string{"timeout=5", "max=0"}, 5 * time.Second, 0},
		{"zero", []string{"timeout=0"}, 0, -1},
		{"quoted", []string{`timeout="15"`}, 15 * time.Second, -1},
		{"bare_number", []string{"300"}, -1, -1},
		{"not_a_number", []string{"timeout=soon, max=-1"}, -1, -1},
		{"too_large", []string{"timeout=99999999999999999999, max=4294967296"}, -1, -1},
		{"other_parameters", []string{"x=1,, timeout=5, y"}, 5 * time.Second, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if timeout, most := KeepAlive(c.values); timeout != c.timeout || most != c.most {
				t.Errorf("KeepAlive(%q) = %v, %d; want %v, %d", c.values, timeout, most, c.timeout, c.most)
			}
		})
	}
}
