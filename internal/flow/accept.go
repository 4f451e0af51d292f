package flow

import (
	"context"
	"log/slog"
	"time"
)

const (
	leastPause = 5 * time.Millisecond
	mostPause  = time.Second
	// tellEvery is how often a port says at most that accepting fails: with clients
	// that come and go at the limit of descriptors, every other accept may.
	tellEvery = 250 * time.Millisecond
)

// AcceptFailures is what a port does while it can't accept: it neither ends nor
// spins, and says so now and then. The zero value has seen none.
type AcceptFailures struct {
	pause time.Duration
	told  time.Time
}

// Wait pauses after a failure, longer each time and a second at most, or until
// ctx ends, and then returns its error.
func (f *AcceptFailures) Wait(ctx context.Context, log *slog.Logger, err error) error {
	f.pause = min(max(2*f.pause, leastPause), mostPause)
	if time.Since(f.told) > tellEvery {
		f.told = time.Now()
		log.Warn("accept failed", "err", err, "retry_in", f.pause.String())
	}
	t := time.NewTimer(f.pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// Over says that accepting has worked again.
func (f *AcceptFailures) Over() { f.pause = 0 }
