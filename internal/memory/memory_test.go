package memory

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pandoproxy/pando/internal/cgroup"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/flow"
)

var (
	greedy   = netip.MustParseAddr("10.0.0.1")
	modest   = netip.MustParseAddr("10.0.0.2")
	innocent = netip.MustParseAddr("10.0.0.3")
)

// keeper returns a keeper of a budget of 1000 KiB, what it ended, and its log.
func keeper(holders ...flow.Holder) (*Keeper, *[]string, *bytes.Buffer) {
	var ended []string
	var log bytes.Buffer
	k := &Keeper{
		Gate: &limit.Gate{Memory: &limit.Budget{}},
		Log:  slog.New(slog.NewTextHandler(&log, nil)),
	}
	k.Gate.Memory.Set(1000 << 10)
	for i := range holders {
		h := &holders[i]
		h.End = func() { ended = append(ended, fmt.Sprintf("%v %d", h.Owner, h.Bytes>>10)) }
		k.Gate.Memory.Add(h.Owner, h.Bytes)
	}
	k.Holders = append(k.Holders, func(time.Time) []flow.Holder { return slices.Clone(holders) })
	return k, &ended, &log
}

// TestShed checks what is ended when memory is short: of the greatest holders, what
// has made no progress for longest, and no more than needed.
func TestShed(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	holders := []flow.Holder{
		{Owner: modest, Bytes: 100 << 10, Since: ago(time.Hour)},
		{Owner: greedy, Bytes: 200 << 10, Since: ago(3 * time.Second)},
		{Owner: greedy, Bytes: 150 << 10, Since: ago(9 * time.Second)},
		{Owner: greedy, Bytes: 300 << 10, Since: ago(time.Second)}, // too young
		{Owner: innocent, Bytes: 10 << 10, Since: ago(time.Hour)},  // holds little
	}
	k, ended, log := keeper(holders...)
	k.step(now)
	if want := []string{"10.0.0.1 150"}; !slices.Equal(*ended, want) { // 760 of 1000 KiB are held, and 625 may be
		t.Errorf("ended %q, want %q", *ended, want)
	}
	if !strings.Contains(log.String(), "memory for clients is short") || !strings.Contains(log.String(), "ended=1") {
		t.Errorf("the log does not have it:\n%s", log)
	}
	if c := Check(k.Gate.Memory); c.Err != nil || !strings.Contains(c.Note, "no progress") {
		t.Errorf("Check = %+v, want a note and no error", c)
	}
	k, ended, log = keeper(holders[:3]...)
	k.step(now)
	if len(*ended) != 0 || log.Len() != 0 {
		t.Errorf("with 450 of 1000 KiB held: ended %q and logged %q, want nothing", *ended, log)
	}
	if c := Check(k.Gate.Memory); c.Note != "" {
		t.Errorf("Check notes %q with enough memory", c.Note)
	}
}

// TestPress checks what the use of the container's memory means for clients.
func TestPress(t *testing.T) {
	for _, c := range []struct {
		used int
		want limit.Pressure
	}{{800, limit.Relaxed}, {900, limit.Tight}, {950, limit.Critical}} {
		m, err := cgroup.Find(fstest.MapFS{
			"proc/self/cgroup":             {Data: []byte("0::/\n")},
			"proc/self/mountinfo":          {Data: []byte("30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n")},
			"sys/fs/cgroup/memory.max":     {Data: []byte("1000\n")},
			"sys/fs/cgroup/memory.current": {Data: fmt.Appendln(nil, c.used)},
		})
		if err != nil {
			t.Fatal(err)
		}
		k, _, log := keeper()
		k.container = m
		k.step(time.Now())
		if got := k.Gate.Memory.Use().Pressure; got != c.want {
			t.Errorf("with %d of 1000 used: pressure %d, want %d", c.used, got, c.want)
		}
		if logged := log.Len() > 0; logged != (c.want > limit.Relaxed) {
			t.Errorf("with %d of 1000 used: logged %q", c.used, log)
		}
	}
}

// TestLogRate checks that a state that comes and goes is not logged each time, and
// that its end is logged.
func TestLogRate(t *testing.T) {
	k, _, log := keeper()
	now := time.Now()
	for i := range 100 {
		k.Gate.Memory.Add(greedy, int64(1-i%2*2)*(600<<10))
		now = now.Add(measureEvery)
		k.step(now)
	}
	k.step(now.Add(logGap))
	if n := strings.Count(log.String(), "\n"); n < 2 || n > 4 {
		t.Errorf("%d lines in 35 s, want 2 to 4:\n%s", n, log)
	}
	if !strings.Contains(log.String(), "available again") {
		t.Errorf("the log does not have the end:\n%s", log)
	}
}

// TestGiveBack checks that memory goes back once after a burst, and not after a few
// connections.
func TestGiveBack(t *testing.T) {
	k, _, _ := keeper()
	k.Gate.Memory.Set(0)
	now := time.Now()
	enter := func(n int) {
		for range n {
			k.Gate.Enter(greedy)
		}
	}
	leave := func(n int) {
		for range n {
			k.Gate.Leave(greedy)
		}
	}
	pass := func(d time.Duration) (gaveBack bool) {
		before := k.most
		for end := now.Add(d); now.Before(end); now = now.Add(measureEvery) {
			k.step(now)
		}
		return k.most < before
	}
	enter(burst - 1)
	pass(time.Second)
	leave(burst - 1)
	if pass(time.Minute) {
		t.Error("memory was given back after less than a burst")
	}
	enter(burst)
	pass(time.Second)
	leave(burst)
	if !pass(2 * quietTime) {
		t.Error("memory was not given back after a burst")
	}
	if pass(time.Minute) {
		t.Error("memory was given back twice")
	}
}

// TestSize checks the size of the budget: what the configuration says, or else what
// docs/configuration.md says of the container's limit.
func TestSize(t *testing.T) {
	for limit, want := range map[int64]int64{512: 295, 128: 55, 64: 16, 1: 16} {
		if got := share(limit << 20); got != want<<20 {
			t.Errorf("share(%d MiB) = %d MiB, want %d MiB", limit, got>>20, want)
		}
	}
	if got := Size(300); got != 300<<20 {
		t.Errorf("Size(300) = %d, want 300 MiB", got)
	}
	if got := Size(0); got < leastBudget {
		t.Errorf("Size(0) = %d, want at least %d", got, leastBudget)
	}
}
