// Package memory keeps a replica within the memory of its container. It sizes the
// budget for clients, measures four times a second what is held for them, and
// ends what holds most without progress when memory is short. It gives memory
// back to the system after a burst. It does not refuse: package limit does.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/pandoproxy/pando/internal/cgroup"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

const (
	// idleReserve is what a replica without clients needs, in bytes. Of the rest
	// of the container's memory three eighths are for the collector's garbage.
	idleReserve = 40 << 20
	leastBudget = 16 << 20
	// freeBudget is the budget where nothing limits the container's memory.
	freeBudget = 1 << 30
)

// Size returns the size of the budget for clients, in bytes. mib is what the
// configuration says, in MiB; zero takes it from the memory of the container.
func Size(mib int) int64 {
	if mib > 0 {
		return int64(mib) << 20
	}
	m := container()
	if m == nil {
		return freeBudget
	}
	return share(m.Limit)
}

// share returns the size of the budget in a container with that limit, in bytes.
func share(limit int64) int64 { return max((limit-idleReserve)*5/8, leastBudget) }

// container returns the memory of this process's container, and nil if nothing
// limits it.
func container() *cgroup.Memory {
	m, err := cgroup.Find(os.DirFS("/"))
	if err != nil {
		return nil
	}
	return m
}

const (
	measureEvery = 250 * time.Millisecond
	logGap       = 10 * time.Second // least time between two log lines about memory
	// A connection that makes no progress is ended after stalledTime if memory is
	// short, and after hardlyStalled if hardly any is left.
	stalledTime   = 2 * time.Second
	hardlyStalled = 500 * time.Millisecond
	// burst is how many connections make a burst. After it memory is given back
	// once, when no more than a quarter of them is left for quietTime.
	burst     = 500
	quietTime = 5 * time.Second
	// collectGap is the least time between two collections to find out how much
	// memory is really in use.
	collectGap = 2 * time.Second
)

// Keeper keeps a replica within its memory. Its fields must not change once it
// runs. All of them are required.
type Keeper struct {
	Gate *limit.Gate // with a Memory
	// Holders measure what is held for clients, at the given time, and return what
	// makes no progress.
	Holders []func(now time.Time) []flow.Holder
	Log     *slog.Logger

	container *cgroup.Memory // nil means no limit
	state     string         // as last logged
	ended     int            // connections that were ended since the last log line
	logged    time.Time      // when that was
	collected time.Time      // the last collection
	most      int            // connections at the last burst's height
	quiet     time.Time      // since when few of these are left; zero means that they are not
}

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	k.container = container()
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.step(time.Now())
		}
	}
}

// step measures once and does what has to be done.
func (k *Keeper) step(now time.Time) {
	var stalled []flow.Holder
	for _, measure := range k.Holders {
		stalled = append(stalled, measure(now)...)
	}
	k.press(now)
	use := k.Gate.Memory.Use()
	if use.Short() {
		k.shed(use, stalled, now)
	}
	k.report(use, now)
	k.giveBack(now)
}

// press notes in the budget how short the container's memory is. The collector
// leaves garbage until it must not, so what looks short is collected first.
func (k *Keeper) press(now time.Time) {
	if k.container == nil {
		return
	}
	pressure := k.pressure()
	if pressure > limit.Relaxed && now.Sub(k.collected) > collectGap {
		k.collected = now
		debug.FreeOSMemory()
		pressure = k.pressure()
	}
	k.Gate.Memory.Press(pressure)
}

// pressure returns how short the container's memory is.
func (k *Keeper) pressure() limit.Pressure {
	used, err := k.container.Used()
	whole := k.container.Limit
	switch {
	case err != nil:
		return limit.Relaxed
	case used > whole-whole/16:
		return limit.Critical
	case used > whole-whole/6:
		return limit.Tight
	}
	return limit.Relaxed
}

// shed ends connections without progress, those of the greatest holders first,
// until three eighths of the budget are free. Clients that hold little are left
// alone.
func (k *Keeper) shed(use limit.Use, stalled []flow.Holder, now time.Time) {
	least := stalledTime
	if use.Pressure == limit.Critical || use.Held > use.Whole-use.Whole/8 {
		least = hardlyStalled
	}
	holds := map[netip.Addr]int64{}
	stalled = slices.DeleteFunc(stalled, func(h flow.Holder) bool {
		held := k.Gate.Memory.Held(h.Owner)
		holds[h.Owner] = held
		return now.Sub(h.Since) < least || held <= use.Whole/32
	})
	slices.SortFunc(stalled, func(a, b flow.Holder) int {
		if byClient := cmp.Compare(holds[b.Owner], holds[a.Owner]); byClient != 0 {
			return byClient
		}
		return a.Since.Compare(b.Since)
	})
	excess := max(use.Held-use.Whole*5/8, 0)
	if use.Pressure > limit.Relaxed {
		excess = max(excess, use.Whole/16)
	}
	for _, h := range stalled {
		if excess <= 0 {
			break
		}
		h.End()
		excess -= h.Bytes
		k.ended++
		k.Gate.Memory.Count(limit.Stalled)
	}
}

// report logs a change, at a bounded rate.
func (k *Keeper) report(use limit.Use, now time.Time) {
	state := stateOf(use)
	if state == k.state && k.ended == 0 || now.Sub(k.logged) < logGap {
		return
	}
	ended := k.ended
	k.ended = 0
	k.state = state
	k.logged = now
	if state == "" {
		k.Log.Info("memory for clients is available again", "held_mib", use.Held>>20)
		return
	}
	k.Log.Warn("memory for clients is short",
		"state", state,
		"held_mib", use.Held>>20,
		"budget_mib", use.Whole>>20,
		"ended", ended,
		"hint", "pando_limit_refusals_total counts refusals; raise the memory limit or run more replicas")
}

// stateOf says in words what is refused, and "" while nothing is.
func stateOf(use limit.Use) string {
	switch {
	case use.Pressure == limit.Critical:
		return "the container has hardly any memory left: nothing new is accepted"
	case use.Pressure == limit.Tight:
		return "the container is short of memory: only clients that hold little get more"
	case use.Short():
		return "connections that make no progress are ended"
	case use.Scarce():
		return "clients that hold their share get no more"
	}
	return ""
}

// Check notes what is refused. It never fails: to send clients elsewhere
// would move the load to the next replica.
func Check(b *limit.Budget) status.Check {
	c := status.Check{Name: "memory"}
	use := b.Use()
	if state := stateOf(use); state != "" {
		c.Note = fmt.Sprintf("%d of %d MiB for clients are held; %s", use.Held>>20, use.Whole>>20, state)
	}
	return c
}

// giveBack returns memory to the system once after a burst of connections. The
// collector alone keeps it for the next burst.
func (k *Keeper) giveBack(now time.Time) {
	n, _ := k.Gate.Connections()
	if n >= k.most {
		k.most = n
		k.quiet = time.Time{}
		return
	}
	switch {
	case k.most < burst, n > k.most/4:
		k.quiet = time.Time{}
	case k.quiet.IsZero():
		k.quiet = now
	case now.Sub(k.quiet) > quietTime:
		debug.FreeOSMemory() // moves what pools hold to their victims
		debug.FreeOSMemory()
		k.most = n
		k.quiet = time.Time{}
	}
}
