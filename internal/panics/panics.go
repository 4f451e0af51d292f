// Package panics logs and counts the panics that the goroutines of flows, DNS answers
// and the admin port have caught. Package flow catches them.
package panics

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// stackEvery is how often a stack is logged, at most. A client that has found a way
// to cause panics must not fill the log.
const stackEvery = time.Second

// Log logs and counts panics.
type Log struct {
	log     *slog.Logger
	count   func()
	started time.Time
	next    atomic.Int64 // when a stack may be logged again, in nanoseconds since started
}

// New returns a Log that calls count for each panic.
func New(log *slog.Logger, count func()) *Log {
	return &Log{
		log:     log,
		count:   count,
		started: time.Now(),
	}
}

// Caught logs and counts err, the first time that it gets it, if its cause is a
// panic.
func (p *Log) Caught(err error) {
	panicked, ok := errors.AsType[*flow.Panic](err)
	if !ok || !panicked.Unreported() {
		return
	}
	p.count()
	now := int64(time.Since(p.started))
	next := p.next.Load()
	if now < next || !p.next.CompareAndSwap(next, now+int64(stackEvery)) {
		p.log.Error("a panic was caught", "err", panicked)
		return
	}
	p.log.Error("a panic was caught", "err", panicked, "stack", panicked.Stack)
}
