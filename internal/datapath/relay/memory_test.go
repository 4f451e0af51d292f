package relay

import (
	"io"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// TestEarlyBytesAreReleased checks that a pair does not keep the bytes that were read
// before it, once they are passed on.
func TestEarlyBytesAreReleased(t *testing.T) {
	_, clientSide := testkit.TCPPair(t)
	target, targetSide := testkit.TCPPair(t)
	early := make([]byte, 32<<10)
	kept := weak.Make(&early[0])
	r := &Relay{}
	done := make(chan Result, 1)
	r.Start(flow.Pair{Client: clientSide, Target: targetSide, ClientEarly: early}, func(res Result) { done <- res })
	early = nil
	if _, err := io.ReadFull(target, make([]byte, 32<<10)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the bytes to be collected", func() bool {
		runtime.GC()
		return kept.Value() == nil
	})
	select {
	case <-done:
		t.Fatal("the pair has ended, want it open")
	default:
	}
	clientSide.Close()
	<-done
}

// TestMeasure checks what a pair counts as: at first, while it is idle, while its
// client reads nothing, and when it has ended.
func TestMeasure(t *testing.T) {
	_, clientSide := testkit.TCPPair(t)
	target, targetSide := testkit.TCPPair(t)
	var held atomic.Int64
	owner := netip.MustParseAddr("10.0.0.1")
	r := &Relay{Account: func(a netip.Addr, delta int64) {
		if a != owner {
			t.Errorf("memory of %v, want %v", a, owner)
		}
		held.Add(delta)
	}}
	done := make(chan Result, 1)
	now := time.Now()
	r.Start(flow.Pair{Client: clientSide, Target: targetSide, Owner: owner}, func(res Result) { done <- res })
	later := func(d time.Duration) []flow.Holder {
		now = now.Add(d)
		return r.Measure(now)
	}
	later(0)
	if held.Load() != FirstHeld {
		t.Errorf("a new pair holds %d, want %d", held.Load(), FirstHeld)
	}
	later(2 * young)
	if held.Load() > tunnelCost+stalledBytes {
		t.Errorf("an idle pair holds %d, want about %d", held.Load(), tunnelCost)
	}
	go func() { // ends with the pair
		b := make([]byte, 64<<10)
		for {
			if _, err := target.Write(b); err != nil {
				return
			}
		}
	}()
	var stalled []flow.Holder
	testkit.Eventually(t, "the pair to be stalled", func() bool {
		stalled = later(time.Second)
		return len(stalled) == 1
	})
	if s := stalled[0]; s.Owner != owner || s.Bytes != held.Load() || s.Bytes < bufferSize {
		t.Errorf("stalled: %+v with %d held, want all that is held by %v", s, held.Load(), owner)
	}
	stalled[0].End()
	if res := <-done; flow.ClassOf(res.Err) != flow.Overloaded {
		t.Errorf("the pair ended with %v, want class overloaded", res.Err)
	}
	later(0)
	if held.Load() != 0 {
		t.Errorf("a pair that has ended holds %d, want nothing", held.Load())
	}
}
