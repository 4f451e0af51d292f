package relay

import (
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// TestEndIdle checks that EndIdle ends a pair over which nothing moves for the
// timeout, and no other.
func TestEndIdle(t *testing.T) {
	var r Relay
	idle := start(t, &r, "", "")
	busy := start(t, &r, "", "")
	now := time.Now()
	if n := r.EndIdle(time.Minute, now); n != 0 {
		t.Fatalf("the first EndIdle ended %d pairs, want 0", n)
	}
	now = now.Add(59 * time.Second)
	if n := r.EndIdle(time.Minute, now); n != 0 {
		t.Fatalf("EndIdle after 59 s ended %d pairs, want 0", n)
	}
	say(t, busy.client, "x")
	hear(t, busy.target, "x")
	now = now.Add(time.Second)
	if n := r.EndIdle(time.Minute, now); n != 1 {
		t.Fatalf("EndIdle after 60 s ended %d pairs, want 1", n)
	}
	if res := <-idle.result; flow.ClassOf(res.Err) != flow.Idle {
		t.Errorf("the idle pair ended with %v, want class %v", res.Err, flow.Idle)
	}
	if n := r.EndIdle(time.Minute, now.Add(time.Minute)); n != 1 {
		t.Errorf("EndIdle after another 60 s ended %d pairs, want the busy one", n)
	}
	<-busy.result
}
