package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/flow"
)

// drainParts are what Run has started and drain ends.
type drainParts struct {
	stop            context.CancelFunc // ends work in progress
	stopBeforeDrain context.CancelFunc // ends what the replica does besides serving clients
	serving         *errgroup.Group
	closeAdmin      func()
	failed          bool // a part has ended with an error
}

// cutTime is how long work that was cut may take to end. The chart adds 10 s to
// settle and timeout for a pod's grace period.
const cutTime = 4 * time.Second

// progressEvery is how often a drain logs its progress.
const progressEvery = 5 * time.Second

// drain ends the replica in order. Steps 1 to 3 take at most settle and timeout
// together, from which the chart computes the grace period. Only ctx's values
// are used; cancelling cut ends these steps at once.
func (g *Gateway) drain(ctx, cut context.Context, parts drainParts) error {
	begin := time.Now()
	settle := time.Duration(g.cfg.Drain.Settle)
	longest := settle + time.Duration(g.cfg.Drain.Timeout)
	if parts.failed && !g.device.Warm() {
		settle = 0 // the replica never served clients
	}
	relay := g.road.Relay
	// 1. Settle: the readiness probe fails, so that no more clients are sent here,
	//    and HTTP clients are asked to close. New connections are still served,
	//    up to twice as long while they keep coming.
	g.draining.Store(true)
	for _, p := range g.proxies {
		p.AnnounceClose()
	}
	g.log.Info("draining",
		"settle", settle.String(),
		"timeout", g.cfg.Drain.Timeout.String(),
		"tunnels", relay.Active())
	flow.Sleep(cut.Done(), settle)
	for time.Since(begin) < min(2*settle, longest) && g.mux.Quiet() < settle*2/5 && cut.Err() == nil {
		flow.Sleep(cut.Done(), settle/50)
	}
	// 2. Close the ports, and the connections without a request.
	parts.stopBeforeDrain()
	g.ports.closeFronts()
	serveErr := parts.serving.Wait()
	g.mux.Drain()
	for _, p := range g.proxies {
		p.Drain()
	}
	// 3. Let work finish.
	finish, cancel := context.WithDeadline(cut, begin.Add(longest))
	defer cancel()
	g.log.Info("ports closed; waiting for work to finish",
		"tunnels", relay.Active(),
		"at_most", time.Until(begin.Add(longest)).Round(time.Millisecond).String())
	stopProgress := logProgress(context.WithoutCancel(ctx), g.log, g.road, begin)
	waitErr := errors.Join(g.mux.Wait(finish), relay.Wait(finish))
	stopProgress()
	// 4. Cut what is left, and log why.
	end, cancelEnd := context.WithTimeout(context.WithoutCancel(ctx), cutTime)
	defer cancelEnd()
	if waitErr != nil {
		g.cut(end, cut.Err() != nil, parts.stop)
	}
	waitErr = errors.Join(g.mux.Wait(end), relay.Wait(end))
	if waitErr != nil {
		connections, _ := g.road.Limit.Connections()
		waitErr = fmt.Errorf("work was cut and has not ended %v later: %d connections are left, %d of them tunnels", cutTime, connections, relay.Active())
	}
	for _, p := range g.proxies {
		p.Close()
	}
	// 5. Leave the tailnet, and save the state that its successor starts from.
	closeErr := g.device.Close(ctx)
	parts.closeAdmin()
	g.log.Info("stopped", "after", time.Since(begin).Round(time.Millisecond).String())
	return errors.Join(serveErr, waitErr, closeErr)
}

// cut ends the work that is left and logs how much that was, if any. atOnce reports
// whether cutting was requested before the drain time was over. stop ends the
// work's context. cut returns when end does, even if work is still left then.
func (g *Gateway) cut(end context.Context, atOnce bool, stop context.CancelFunc) {
	why := "the replica is shutting down and the drain time is over"
	if atOnce {
		why = "the replica is shutting down at once, as requested"
	}
	connections, _ := g.road.Limit.Connections()
	g.road.SetCutCause(why)
	tunnels := g.road.Relay.Cut(end, why)
	requests := 0
	for _, p := range g.proxies {
		requests += p.Cut()
	}
	stop()
	if connections+tunnels+requests == 0 {
		return // the work ended by itself just now
	}
	g.log.Warn("work was cut",
		"why", why,
		"connections", connections,
		"tunnels", tunnels,
		"requests", requests)
}

// logProgress logs how much work is left until stop is called.
func logProgress(ctx context.Context, log *slog.Logger, road *datapath.Road, begin time.Time) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for {
			flow.Sleep(ctx.Done(), progressEvery)
			if ctx.Err() != nil {
				return
			}
			connections, _ := road.Limit.Connections()
			log.Info("still draining",
				"since", time.Since(begin).Round(time.Second).String(),
				"tunnels", road.Relay.Active(),
				"connections", connections)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
