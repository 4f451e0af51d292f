package relay

import (
	"errors"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

const (
	// tunnelCost is what a pair costs at least, in bytes: two goroutines, the
	// target's connection and the records. The client's connection counts
	// elsewhere.
	tunnelCost = 8 << 10
	// FirstHeld is what a new pair counts as. It is what the pair holds if its
	// client stops to read at once: without it, many pairs could begin before the
	// first of them is measured.
	FirstHeld = tunnelCost + bufferSize + 64<<10
	// young is how long a pair counts as FirstHeld at least.
	young = 250 * time.Millisecond
	// stalledBytes is from how many bytes on a pair over which nothing moves is
	// taken for stalled, and not for idle.
	stalledBytes = 16 << 10
)

// memory is what a pair holds. Measure alone uses the fields without a lock.
type memory struct {
	moved int64     // up and down together, as Measure last saw them
	since time.Time // when Measure first saw that
	quiet bool      // nothing has moved since a measurement that found little

	mu    sync.Mutex
	held  int64 // that Account knows of
	ended bool  // held is zero, and stays so
}

// account sets what the pair holds, in bytes, and tells the relay's Account. A
// negative number means that the pair has ended.
func (p *pair) account(held int64) {
	m := &p.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	if held < 0 {
		m.ended = true
		held = 0
	}
	delta := held - m.held
	m.held = held
	if delta != 0 && p.relay.Account != nil {
		p.relay.Account(p.Owner, delta)
	}
}

// Measure measures what each pair holds, and returns those that are stalled:
// nothing moves over them although data waits. Call it at regular times from one
// goroutine, with the current time as now. Pairs over which nothing moves cost
// it next to nothing.
func (r *Relay) Measure(now time.Time) (stalled []flow.Holder) {
	r.mu.Lock()
	var list []*pair
	for p := range r.pairs {
		if !p.memory.quiet || p.memory.moved != p.up.Load()+p.down.Load() {
			list = append(list, p)
		}
	}
	r.mu.Unlock()
	for _, p := range list {
		if held, ok := p.measure(now); ok {
			stalled = append(stalled, flow.Holder{
				Owner: p.Owner,
				Bytes: held,
				Since: p.memory.since,
				End:   p.overload,
			})
		}
	}
	return stalled
}

// measure measures what p holds, and reports whether it is stalled.
func (p *pair) measure(now time.Time) (held int64, stalled bool) {
	m := &p.memory
	moved := p.up.Load() + p.down.Load()
	moves := moved != m.moved || m.since.IsZero()
	if moves {
		m.moved = moved
		m.since = now
	}
	waiting := int64(socket.Held(p.Client) + socket.Held(p.Target))
	stalled = !moves && waiting >= stalledBytes
	held = tunnelCost + waiting
	if moves || stalled {
		held += bufferSize
	}
	if now.Sub(p.born) < young {
		held = max(held, FirstHeld)
	} else {
		m.quiet = !moves && !stalled
	}
	p.account(held)
	return held, stalled
}

// overload ends p because the memory that it holds is needed.
func (p *pair) overload() {
	p.fail(&flow.Error{
		Class: flow.Overloaded,
		Op:    "memory",
		Hint:  "the replica was short of memory, and this tunnel held some without making progress: read what the target sends, or raise the replicas' memory limit",
		Err:   errors.New("stalled while memory was short"),
	})
}
