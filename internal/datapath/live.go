package datapath

import (
	"slices"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// liveFlows are the flows in progress, as they were when they came to a stage:
// a record belongs to the flow's own goroutine, so what others read is a copy.
type liveFlows struct {
	mu sync.Mutex
	m  map[*flow.Record]liveFlow
}

type liveFlow struct {
	flow.Record
	moved func() (up, down int64) // nil before the tunnel stands
}

// note takes a copy of rec, whose goroutine calls it.
func (l *liveFlows) note(rec *flow.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = map[*flow.Record]liveFlow{}
	}
	l.m[rec] = liveFlow{Record: *rec}
}

// count has moved tell the bytes of rec's tunnel, if it has not ended by now.
func (l *liveFlows) count(rec *flow.Record, moved func() (up, down int64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.m[rec]; ok {
		f.moved = moved
		l.m[rec] = f
	}
}

func (l *liveFlows) forget(rec *flow.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.m, rec)
}

// Active counts the flows in progress by front end.
func (r *Road) Active() map[string]int {
	r.live.mu.Lock()
	defer r.live.mu.Unlock()
	n := map[string]int{}
	for _, f := range r.live.m {
		n[string(f.Front)]++
	}
	return n
}

// Flows returns the flows in progress, the oldest first, with the bytes that
// have moved in tunnels so far; at most limit of them, and how many there are.
func (r *Road) Flows(limit int) (list []flow.Record, total int) {
	r.live.mu.Lock()
	all := make([]liveFlow, 0, len(r.live.m))
	for _, f := range r.live.m {
		all = append(all, f)
	}
	r.live.mu.Unlock()
	slices.SortFunc(all, func(a, b liveFlow) int { return a.Start.Compare(b.Start) })
	for _, f := range all[:min(limit, len(all))] {
		if f.moved != nil {
			f.Up, f.Down = f.moved()
		}
		f.Total = time.Since(f.Start)
		list = append(list, f.Record)
	}
	return list, len(all)
}
