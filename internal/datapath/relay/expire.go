package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// expireEvery is how often pairs are looked at, at most.
const expireEvery = time.Minute

// Expire ends idle and old pairs until ctx ends: see EndIdle and EndOld. Zero means
// no bound.
func (r *Relay) Expire(ctx context.Context, idle, life time.Duration) {
	every := expireEvery
	if idle > 0 {
		every = min(every, idle/4)
	}
	if life > 0 {
		every = min(every, life/20)
	}
	t := time.NewTicker(max(every, 10*time.Millisecond))
	defer t.Stop()
	for idle > 0 || life > 0 {
		if idle > 0 {
			r.EndIdle(idle, time.Now())
		}
		if life > 0 {
			r.EndOld(life, time.Now())
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// lifeJitter is the part of a lifetime by which lifetimes differ, so that tunnels
// that began together do not end together.
const lifeJitter = 0.1

// EndOld ends the pairs that are older than life, which lifeJitter shortens for
// each pair on its own, and returns how many it ended. Call it at regular times,
// with the current time as now.
func (r *Relay) EndOld(life time.Duration, now time.Time) int {
	return r.endEach(func(p *pair) bool {
		return now.Sub(p.born) >= life-time.Duration(p.share*lifeJitter*float64(life))
	}, flow.Error{
		Class: flow.Cut,
		Op:    "relay",
		Hint:  "the tunnel was older than tunnel.maxLife allows; connect again",
		Err:   fmt.Errorf("older than %v", life),
	})
}
