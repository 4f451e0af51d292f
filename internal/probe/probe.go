// Package probe connects to configured targets at intervals and reports those
// that do not answer as failed conditions of readiness. It does not know how a
// connection is made: Connect does that.
package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/status"
)

// Prober probes targets. Its exported fields must not change once Run or
// Checks is called.
type Prober struct {
	// Targets are the names of the targets. A target that is listed twice is
	// probed once. Empty means that nothing is probed.
	Targets []string
	// Interval is the time between two probes of one target.
	Interval time.Duration
	// Failures is the number of consecutive failures, at least 1, after which a
	// target is no longer good.
	Failures int
	// Successes is the number of consecutive successes, at least 1, after which
	// a target is good.
	Successes int
	// Ready returns nil as soon as the targets can be probed, or an error when ctx
	// ends before.
	Ready func(ctx context.Context) error
	// Connect connects to a target, closes the connection and returns nil, or
	// returns why it could not connect.
	Connect func(ctx context.Context, target string) error
	Log     *slog.Logger

	mu    sync.Mutex
	state map[string]state // by target; a target that was not tried yet has none
}

// state is what the probes of one target have shown.
type state struct {
	good      bool
	failures  int   // consecutive, up to the last probe
	successes int   // consecutive, up to the last probe
	err       error // of the last probe
}

// Run waits for Ready, probes each target at once and then at every interval,
// until ctx ends.
func (p *Prober) Run(ctx context.Context) {
	if len(p.Targets) == 0 || p.Ready(ctx) != nil {
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, target := range p.targets() {
		all.Go(func() { p.watch(ctx, target) })
	}
}

// watch probes one target until ctx ends.
func (p *Prober) watch(ctx context.Context, target string) {
	for ctx.Err() == nil {
		err := p.Connect(ctx, target)
		if ctx.Err() != nil {
			return // err may be that of ctx, which says nothing about the target
		}
		p.record(target, err)
		select {
		case <-ctx.Done():
		case <-time.After(p.Interval):
		}
	}
}

// record adds the outcome of one probe. It logs when the target starts to answer,
// and when it no longer does.
func (p *Prober) record(target string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state[target]
	s.err = err
	if err == nil {
		s.successes++
		s.failures = 0
	} else {
		s.successes = 0
		s.failures++
	}
	switch {
	case s.failures == p.Failures: // also for a target that was never good
		s.good = false
		p.Log.Warn("probe target does not answer; replica not ready", "target", target, "err", err)
	case s.successes >= p.Successes && !s.good:
		s.good = true
		p.Log.Info("probe target answers", "target", target)
	}
	if p.state == nil {
		p.state = map[string]state{}
	}
	p.state[target] = s
}

// checkPrefix begins the names of the conditions.
const checkPrefix = "probe "

// Checks returns one condition of readiness for each target, in the order of
// their names. The condition of a target fails until the target is good.
func (p *Prober) Checks() []status.Check {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []status.Check
	for _, target := range p.targets() {
		c := status.Check{Name: checkPrefix + target}
		s, tried := p.state[target]
		switch {
		case !tried:
			c.Err = errors.New("not tried yet")
		case !s.good && s.err != nil:
			c.Err = s.err
		case !s.good:
			c.Err = fmt.Errorf("the last probe succeeded; needs %d successes in a row", p.Successes)
		case s.err != nil:
			c.Note = "the last probe failed: " + s.err.Error()
		}
		list = append(list, c)
	}
	return list
}

// Failing returns how many of checks are failed conditions of a probe target.
func Failing(checks []status.Check) int {
	n := 0
	for _, c := range checks {
		if strings.HasPrefix(c.Name, checkPrefix) && c.Err != nil {
			n++
		}
	}
	return n
}

// targets returns the targets in order, each once.
func (p *Prober) targets() []string {
	return slices.Compact(slices.Sorted(slices.Values(p.Targets)))
}
