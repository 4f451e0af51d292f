package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

// probes are the targets that a ready replica can connect to.
type probes struct {
	mu    sync.Mutex
	state map[string]probeState
}

// probeState is how one target fares. It changes sides only after so many
// outcomes in a row as the configuration says.
type probeState struct {
	good                bool
	failures, successes int   // in a row
	err                 error // of the last attempt
}

// probe connects to the targets again and again until ctx ends.
func (g *Gateway) probe(ctx context.Context) {
	c := g.cfg.Probe
	if len(c.Targets) == 0 || g.Wait(ctx) != nil {
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, target := range slices.Compact(slices.Sorted(slices.Values(c.Targets))) {
		all.Go(func() {
			host, port, _ := net.SplitHostPort(target)
			n, _ := strconv.ParseUint(port, 10, 16)
			for ctx.Err() == nil {
				err := g.reaches(ctx, host, uint16(n))
				if ctx.Err() == nil {
					g.probed(target, err)
				}
				sleep(ctx, time.Duration(c.Interval))
			}
		})
	}
}

// reaches connects to a target by the road that clients take.
func (g *Gateway) reaches(ctx context.Context, host string, port uint16) error {
	rec := &flow.Record{Start: time.Now()}
	rec.Client, rec.Host, rec.Port = netip.AddrPortFrom(localhost, 0), host, port
	c, err := g.road.Probe(ctx, rec, nil)
	if err != nil {
		return err
	}
	return c.Close()
}

// localhost is the client that probes stand for.
var localhost = netip.MustParseAddr("127.0.0.1")

// probed notes an outcome.
func (g *Gateway) probed(target string, err error) {
	g.probes.mu.Lock()
	defer g.probes.mu.Unlock()
	s := g.probes.state[target]
	if s.err = err; err == nil {
		s.successes, s.failures = s.successes+1, 0
	} else {
		s.successes, s.failures = 0, s.failures+1
	}
	switch {
	case s.failures == g.cfg.Probe.Failures: // one that never answered, too
		s.good = false
		g.log.Warn("probe target does not answer: the replica is not ready", "target", target, "err", err)
	case s.successes >= g.cfg.Probe.Successes && !s.good:
		s.good = true
		g.log.Info("probe target answers", "target", target)
	}
	if g.probes.state == nil {
		g.probes.state = map[string]probeState{}
	}
	g.probes.state[target] = s
}

// probeChecks are the conditions of readiness that the targets make. One that
// was not tried yet has not answered.
func (g *Gateway) probeChecks() []status.Check {
	g.probes.mu.Lock()
	defer g.probes.mu.Unlock()
	var list []status.Check
	for _, target := range slices.Compact(slices.Sorted(slices.Values(g.cfg.Probe.Targets))) {
		c := status.Check{Name: "probe " + target}
		switch s, tried := g.probes.state[target]; {
		case !tried:
			c.Err = errors.New("not tried yet")
		case !s.good && s.err != nil:
			c.Err = s.err
		case !s.good:
			c.Err = fmt.Errorf("answers, but not %d times in a row yet", g.cfg.Probe.Successes)
		case s.err != nil:
			c.Note = "failed last: " + s.err.Error()
		}
		list = append(list, c)
	}
	return list
}

// probesFailing counts the targets that keep the replica from being ready.
func (g *Gateway) probesFailing() int {
	n := 0
	for _, c := range g.probeChecks() {
		if c.Err != nil {
			n++
		}
	}
	return n
}
