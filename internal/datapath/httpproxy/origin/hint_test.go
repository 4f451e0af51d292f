package origin

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// TestHintOfTime checks how long a connection is idle at most: less than its origin
// keeps it.
func TestHintOfTime(t *testing.T) {
	for _, c := range []struct {
		name     string
		timeouts []time.Duration // of the responses, in order; -1 means that one has none
		idle     time.Duration   // of the pool
		want     time.Duration
	}{
		{"none", []time.Duration{-1}, time.Minute, time.Minute},
		{"node", []time.Duration{5 * time.Second}, time.Minute, 4 * time.Second},
		{"short", []time.Duration{time.Second}, time.Minute, 500 * time.Millisecond},
		{"long", []time.Duration{time.Hour}, time.Minute, time.Minute},
		{"a_response_without", []time.Duration{5 * time.Second, -1}, time.Minute, 4 * time.Second},
		{"another_one", []time.Duration{5 * time.Second, 20 * time.Second}, time.Minute, 19 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, _ := newOrigin(t, here)
			synctest.Test(t, func(t *testing.T) {
				p := &Pool{}
				defer p.Close()
				for _, timeout := range c.timeouts {
					if !o.Hint(timeout, -1) {
						t.Errorf("Hint(%v, -1) = false, want that the origin takes more", timeout)
					}
				}
				p.Put(o, ann, Terms{Idle: c.idle})
				time.Sleep(c.want - time.Nanosecond) // the clock of the test
				if got := p.Take(ann, []flow.Target{here}, ""); got != o {
					t.Fatalf("Take just before %v = %p, want the connection", c.want, got)
				}
				p.Put(o, ann, Terms{Idle: c.idle})
				time.Sleep(c.want) // the clock of the test
				synctest.Wait()
				if got := p.Take(ann, []flow.Target{here}, ""); got != nil || size(p) != 0 {
					t.Errorf("Take after %v = %p with %d left, want none", c.want, got, size(p))
				}
			})
		})
	}
}

// TestLateTimer checks that a connection is not taken when its time is over, although its
// timer has not fired yet.
func TestLateTimer(t *testing.T) {
	o, server := newOrigin(t, here)
	p := &Pool{}
	defer p.Close()
	p.Put(o, ann, Terms{Idle: time.Hour})
	o.pooled.until = time.Now()
	if got := p.Take(ann, []flow.Target{here}, ""); got != nil {
		t.Errorf("Take = %p, want nil", got)
	}
	ended(t, server)
}

// TestHintOfNumber checks after how many responses a connection takes no other request.
func TestHintOfNumber(t *testing.T) {
	for _, c := range []struct {
		name string
		most []int // of the responses, in order; -1 means that one has none
		want int   // responses after which it is closed; 0 means none of these
	}{
		{"none", []int{-1, -1, -1}, 0},
		{"counted_down", []int{2, 1, 0}, 3},
		{"repeated", []int{2, 2, 2}, 3},
		{"said_once", []int{1, -1, -1}, 2},
		{"none_at_once", []int{0}, 1},
		{"said_late", []int{-1, -1, 1, -1}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, _ := newOrigin(t, here)
			got := 0
			for i, most := range c.most {
				if !o.Hint(-1, most) {
					got = i + 1
					break
				}
			}
			if got != c.want {
				t.Errorf("the connection takes no more after response %d, want %d", got, c.want)
			}
		})
	}
	o, _ := newOrigin(t, here)
	if o.Hint(0, 100) {
		t.Error("Hint of no time = true, want that the connection is closed")
	}
}

// TestReplace checks that a connection with Replace takes the place of the one that has
// been idle for longest, of the same client to the same target.
func TestReplace(t *testing.T) {
	p := &Pool{}
	defer p.Close()
	longest, server := newOrigin(t, here)
	again, _ := newOrigin(t, here)
	elsewhere, _ := newOrigin(t, there)
	others, _ := newOrigin(t, here)
	p.Put(longest, ann, Terms{Idle: time.Hour})
	p.Put(again, ann, Terms{Idle: time.Hour})
	p.Put(elsewhere, ann, Terms{Idle: time.Hour})
	p.Put(others, bob, Terms{Idle: time.Hour})
	next, _ := newOrigin(t, here)
	if !p.Put(next, ann, Terms{Idle: time.Hour, Replace: true}) {
		t.Error("Put = false, want that the connection is kept")
	}
	ended(t, server)
	for _, want := range []*Conn{next, again, nil} {
		if got := p.Take(ann, []flow.Target{here}, ""); got != want {
			t.Errorf("Take = %p, want %p", got, want)
		}
	}
	if n := size(p); n != 2 {
		t.Errorf("%d connections are left, want 2", n)
	}
}
