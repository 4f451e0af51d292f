package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
)

// drainParts are what Run has begun and drain ends.
type drainParts struct {
	stop         context.CancelFunc // ends work in progress
	stopStarting context.CancelFunc // ends what goes on beside it
	serving      *errgroup.Group
	closeAdmin   func()
	failed       bool // a part could not go on
}

// cutTime is how long work that was cut may take to end. The chart gives a pod
// 10 s beside settle and timeout.
const cutTime = 4 * time.Second

// progressEvery is how often a drain says how it goes.
const progressEvery = 5 * time.Second

// drain ends the replica in its order. It takes settle and timeout together at
// most, from which the chart computes the grace period. ctx lends its values
// alone; when cut ends, so does the patience.
func (g *Gateway) drain(ctx, cut context.Context, parts drainParts) error {
	begin, settle := time.Now(), time.Duration(g.cfg.Drain.Settle)
	longest := settle + time.Duration(g.cfg.Drain.Timeout)
	if parts.failed && !g.hasJoined() {
		settle = 0 // nobody was served
	}
	// 1. Settle: whoever sends us clients learns that we leave, HTTP clients
	//    are asked to close, and new connections are still served; for twice as
	//    long while they still come.
	g.draining.Store(true)
	fronts := append([]*httpproxy.Proxy{g.http}, g.web...)
	for _, f := range fronts {
		f.AnnounceClose()
	}
	g.log.Info("draining", "settle", settle.String(), "timeout", g.cfg.Drain.Timeout.String(), "tunnels", g.relay.Active())
	sleep(cut, settle)
	for time.Since(begin) < min(2*settle, longest) && g.mux.Quiet() < settle*2/5 && cut.Err() == nil {
		sleep(cut, settle/50)
	}
	// 2. Close the ports, and what has asked for nothing yet.
	parts.stopStarting()
	g.closePorts()
	serveErr := parts.serving.Wait()
	g.mux.Drain()
	for _, f := range fronts {
		f.Drain()
	}
	// 3. Let work finish.
	patience, cancel := context.WithDeadline(cut, begin.Add(longest))
	defer cancel()
	g.log.Info("port closed; letting work finish", "tunnels", g.relay.Active(), "patience", time.Until(begin.Add(longest)).Round(time.Millisecond).String())
	stopTelling := g.tellProgress(context.WithoutCancel(ctx), begin)
	waitErr := errors.Join(g.mux.Wait(patience), g.relay.Wait(patience))
	stopTelling()
	// 4. Cut what is left, and say why.
	end, cancelEnd := context.WithTimeout(context.WithoutCancel(ctx), cutTime)
	defer cancelEnd()
	if waitErr != nil {
		why := "the gateway is shutting down and the drain time is over"
		if cut.Err() != nil {
			why = "the gateway was told to stop at once"
		}
		connections, _ := g.limit.Connections()
		g.road.SetCutCause(why)
		tunnels := g.relay.Cut(end, why)
		requests := 0
		for _, f := range fronts {
			requests += f.Cut()
		}
		parts.stop()
		g.log.Warn("work was cut", "why", why, "connections", connections, "tunnels", tunnels, "requests", requests)
	}
	if waitErr = errors.Join(g.mux.Wait(end), g.relay.Wait(end)); waitErr != nil {
		connections, _ := g.limit.Connections()
		waitErr = fmt.Errorf("work that was cut had not ended %v later: %d connections are left, %d of them tunnels", cutTime, connections, g.relay.Active())
	}
	for _, f := range fronts {
		f.Close()
	}
	// 5. Leave the tailnet, and keep what it will be found by again.
	closeErr := g.leave(ctx)
	parts.closeAdmin()
	g.log.Info("stopped", "after", time.Since(begin).Round(time.Millisecond).String())
	return errors.Join(serveErr, waitErr, closeErr)
}

// tellProgress logs what is left of the work until stop is called.
func (g *Gateway) tellProgress(ctx context.Context, begin time.Time) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for {
			if sleep(ctx, progressEvery); ctx.Err() != nil {
				return
			}
			connections, _ := g.limit.Connections()
			g.log.Info("draining", "since", time.Since(begin).Round(time.Second).String(), "tunnels", g.relay.Active(), "connections", connections)
		}
	}()
	return func() { cancel(); <-done }
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
