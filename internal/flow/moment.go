package flow

import (
	"sync/atomic"
	"time"
)

// Moment is an instant that goroutines share. Unlike the Unix time it does not move when
// the clock is set. The zero value is the start of the process.
type Moment struct {
	sinceStart atomic.Int64 // nanoseconds
}

var start = time.Now()

// SetNow sets m to now.
func (m *Moment) SetNow() { m.sinceStart.Store(int64(time.Since(start))) }

// Elapsed returns the time since m.
func (m *Moment) Elapsed() time.Duration {
	return time.Since(start) - time.Duration(m.sinceStart.Load())
}
