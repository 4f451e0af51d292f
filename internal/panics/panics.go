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

// logEvery is how often a panic is logged, at most. A client that has found a way
// to cause panics must not fill the log.
const logEvery = time.Second

// Log logs and counts panics.
type Log struct {
	log     *slog.Logger
	count   func()
	started time.Time
	next    atomic.Int64 // when a panic may be logged again, in nanoseconds since started
	held    atomic.Int64 // panics since the last one in the log
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
// panic. It logs one a second, with its stack and the number of those that it did not
// log since the one before.
func (p *Log) Caught(err error) {
	panicked, ok := errors.AsType[*flow.Panic](err)
	if !ok || !panicked.Unreported() {
		return
	}
	p.count()
	now := int64(time.Since(p.started))
	next := p.next.Load()
	if now < next || !p.next.CompareAndSwap(next, now+int64(logEvery)) {
		p.held.Add(1)
		return
	}
	p.log.Error("a panic was caught", "err", flow.Short(panicked.Error()), "before", p.held.Swap(0), "stack", panicked.Stack)
}
