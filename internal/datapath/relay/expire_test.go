package relay

import (
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// TestEndOld checks that pairs end within the last tenth of their lifetime, each at
// a time of its own.
func TestEndOld(t *testing.T) {
	var r Relay
	const life = time.Hour
	now := time.Now()
	for i := range 20 {
		p := &pair{relay: &r, born: now, share: float64(i) / 20}
		if r.pairs == nil {
			r.pairs = map[*pair]struct{}{}
		}
		p.ended = true // so that fail has nothing to close
		r.pairs[p] = struct{}{}
	}
	for _, tc := range []struct {
		after time.Duration
		want  int
	}{{life * 89 / 100, 0}, {life * 91 / 100, 2}, {life*95/100 + time.Second, 10}, {life, 20}} {
		if n := r.EndOld(life, now.Add(tc.after)); n != tc.want {
			t.Errorf("after %v: ended %d pairs, want %d", tc.after, n, tc.want)
		}
	}
}

// TestExpireOld checks that a tunnel whose bytes move is ended, as class cut.
func TestExpireOld(t *testing.T) {
	var r Relay
	j := start(t, &r, "", "")
	go r.Expire(t.Context(), 0, 200*time.Millisecond) // ends with the test
	if res := <-j.result; flow.ClassOf(res.Err) != flow.Cut {
		t.Errorf("an old tunnel ended with %v, want class cut", res.Err)
	}
}
