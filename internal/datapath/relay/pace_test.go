package relay

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// TestPace checks that the bytes of a direction wait as its rate says, that they
// arrive whole, and that the other direction does not wait for them.
func TestPace(t *testing.T) {
	const size = 256 << 10
	var up atomic.Int64
	r := &Relay{Pace: func(netip.Addr) func(bool, int) time.Duration {
		return func(isUp bool, n int) time.Duration {
			if !isUp {
				return 0
			}
			up.Add(int64(n))
			return 20 * time.Millisecond
		}
	}}
	j := start(t, r, "early", "")
	begin := time.Now()
	sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	go func() {
		j.client.Write(sent)
		j.client.CloseWrite()
	}()
	say(t, j.target, "answer")
	hear(t, j.client, "answer")
	got, err := io.ReadAll(j.target)
	if err != nil || !bytes.Equal(got, append([]byte("early"), sent...)) {
		t.Fatalf("the target got %d bytes, error %v; want %d and no error", len(got), err, size+5)
	}
	if took := time.Since(begin); took < size/pacedChunk*20*time.Millisecond {
		t.Errorf("%d bytes took %v, want a wait for each chunk of %d", size, took, pacedChunk)
	}
	if up.Load() != size+5 {
		t.Errorf("%d bytes were taken from the rate, want %d", up.Load(), size+5)
	}
	j.target.Close()
	if res := j.end(t, r); res.Up != size+5 || res.Down != 6 || res.Err != nil {
		t.Errorf("result %+v, want %d up, 6 down and no error", res, size+5)
	}
}

// TestPaceEnds checks that a pair whose bytes wait for long ends at once if it is cut.
func TestPaceEnds(t *testing.T) {
	waits := make(chan struct{}, 8)
	r := &Relay{Pace: func(netip.Addr) func(bool, int) time.Duration {
		return func(bool, int) time.Duration {
			waits <- struct{}{}
			return time.Hour
		}
	}}
	j := start(t, r, "", "")
	say(t, j.client, "x")
	<-waits
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r.Cut(ctx, "the test ends")
	if res := j.end(t, r); res.Err == nil || res.Up != 0 {
		t.Errorf("result %+v, want an error and no byte", res)
	}
}

// TestNoPace checks that without a rate a direction writes to the connection itself.
func TestNoPace(t *testing.T) {
	_, conn := testkit.TCPPair(t)
	p := &pair{}
	p.Target = conn
	if w := p.writerTo(p.target()); w != io.Writer(conn) {
		t.Errorf("writerTo without a rate is a %T, want the connection", w)
	}
	p.pace = func(bool, int) time.Duration { return 0 }
	if _, ok := p.writerTo(p.target()).(*pacedWriter); !ok {
		t.Error("writerTo with a rate is not a paced writer")
	}
}
