package datapath

import (
	"slices"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/flow"
)

// liveFlows holds the flows in progress, as they were at their latest stage. A
// record belongs to the goroutine of its flow, so liveFlows keeps copies.
type liveFlows struct {
	mu sync.Mutex
	m  map[*flow.Record]*liveFlow
}

type liveFlow struct {
	flow.Record
	moved func() (up, down int64) // the bytes of the tunnel; nil before it exists

	query  policy.Query   // that was judged
	judged *policy.Policy // by which; nil before
	end    func(error)    // ends the flow because of a *flow.Error; nil before it has its target
}

// update stores a copy of rec. The goroutine of the flow calls it.
func (l *liveFlows) update(rec *flow.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = map[*flow.Record]*liveFlow{}
	}
	f := l.m[rec]
	if f == nil {
		f = &liveFlow{}
		l.m[rec] = f
	}
	f.Record = *rec
}

// edit changes what is known of a flow, unless it has ended already.
func (l *liveFlows) edit(rec *flow.Record, change func(*liveFlow)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.m[rec]; f != nil {
		change(f)
	}
}

func (l *liveFlows) remove(rec *flow.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.m, rec)
	if len(l.m) == 0 {
		l.m = nil // a map keeps its size
	}
}

// Active returns the number of flows in progress for each front.
func (r *Road) Active() map[string]int {
	r.live.mu.Lock()
	defer r.live.mu.Unlock()
	n := map[string]int{}
	for _, f := range r.live.m {
		n[string(f.Front)]++
	}
	return n
}

// Flows returns the flows in progress, oldest first, at most limit of them, with
// the bytes that their tunnels have moved so far. total is the number of all
// flows in progress.
func (r *Road) Flows(limit int) (list []flow.Record, total int) {
	r.live.mu.Lock()
	all := make([]liveFlow, 0, len(r.live.m))
	for _, f := range r.live.m {
		all = append(all, *f)
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
