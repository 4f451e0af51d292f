package relay

import (
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// A pair over which nothing moves for the timeout is ended, and no other.
func TestEndIdle(t *testing.T) {
	var r Relay
	idle, busy := start(t, &r, "", ""), start(t, &r, "", "")
	now := time.Now()
	if n := r.EndIdle(time.Minute, now); n != 0 {
		t.Fatalf("ended %d that it has just seen", n)
	}
	now = now.Add(59 * time.Second)
	if n := r.EndIdle(time.Minute, now); n != 0 {
		t.Fatalf("ended %d before their time", n)
	}
	say(t, busy.client, "x")
	hear(t, busy.target, "x")
	now = now.Add(time.Second)
	if n := r.EndIdle(time.Minute, now); n != 1 {
		t.Fatalf("ended %d, want the idle one", n)
	}
	if res := <-idle.result; flow.ClassOf(res.Err) != flow.Idle {
		t.Errorf("it ended with %v", res.Err)
	}
	if n := r.EndIdle(time.Minute, now.Add(time.Minute)); n != 1 {
		t.Errorf("ended %d, want the busy one in its turn", n)
	}
	<-busy.result
}
