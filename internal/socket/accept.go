package socket

import (
	"context"
	"log/slog"
	"time"
)

const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
	// acceptLogEvery is the shortest time between two log lines of one listener
	// about failures to accept. At the limit of descriptors every other accept
	// may fail, as clients come and go.
	acceptLogEvery = 250 * time.Millisecond
)

// AcceptFailures slows a listener down while it cannot accept, and logs the
// failures at a bounded rate. Use one per listener: call Wait after each
// failure and Over after each success. The zero value is ready.
type AcceptFailures struct {
	pause  time.Duration
	logged time.Time
}

// Wait logs err and pauses. The pause doubles with each failure, up to one
// second. Wait returns nil, or ctx's error if ctx ends first.
func (f *AcceptFailures) Wait(ctx context.Context, log *slog.Logger, err error) error {
	f.pause = min(max(2*f.pause, minAcceptPause), maxAcceptPause)
	if time.Since(f.logged) > acceptLogEvery {
		f.logged = time.Now()
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

// Over resets the pause: accepting works again.
func (f *AcceptFailures) Over() { f.pause = 0 }
