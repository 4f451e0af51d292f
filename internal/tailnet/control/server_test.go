package control

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"tailscale.com/control/controlclient"
	"tailscale.com/health"
	"tailscale.com/util/eventbus"
)

// TestCompareClocks checks the difference of the clocks, and that a time which no
// real server sends is ignored.
func TestCompareClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(serverEpoch.AddDate(3, 0, 0))) // the clock of synctest begins in 2000
		var s Server
		if got := s.ClockAhead(); got != nil {
			t.Errorf("ClockAhead() = %v before the server sent a time, want nil", *got)
		}
		s.CompareClocks(controlclient.ControlTime{Value: serverEpoch.Add(-time.Second)})
		if got := s.ClockAhead(); got != nil {
			t.Errorf("ClockAhead() = %v for a time before %v, want nil", *got, serverEpoch)
		}
		for _, want := range []time.Duration{90 * time.Second, 0, -time.Hour} {
			s.CompareClocks(controlclient.ControlTime{Value: time.Now().Add(want)})
			if got := s.ClockAhead(); got == nil || *got != want {
				t.Errorf("ClockAhead() = %v, want %v", got, want)
			}
		}
	})
}

// TestServerReturns checks that only a connection after an outage is a return.
func TestServerReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := eventbus.New()
		defer bus.Close()
		tracker := health.NewTracker(bus)
		ctx, cancel := context.WithCancel(t.Context())
		var s Server
		done := make(chan struct{})
		go func() {
			s.Watch(ctx, tracker)
			close(done)
		}()
		check := func(when string, connected bool, returned time.Time) {
			t.Helper()
			time.Sleep(watchEvery) // of synctest's clock
			synctest.Wait()
			if got := s.Connected(); got != connected {
				t.Errorf("%s: Connected() = %v, want %v", when, got, connected)
			}
			// Watch looks once in watchEvery.
			if got := s.Returned(); got.IsZero() != returned.IsZero() || got.Sub(returned).Abs() > watchEvery {
				t.Errorf("%s: Returned() = %v, want %v", when, got, returned)
			}
		}
		check("before the first connection", false, time.Time{})
		tracker.GotStreamedMapResponse()
		check("connected for the first time", true, time.Time{})
		tracker.SetOutOfPollNetMap()
		check("in an outage", false, time.Time{})
		tracker.GotStreamedMapResponse()
		first := time.Now()
		check("after the outage", true, first)
		time.Sleep(time.Hour) // of synctest's clock
		check("an hour later", true, first)
		tracker.SetOutOfPollNetMap()
		check("in another outage", false, first)
		tracker.GotStreamedMapResponse()
		check("after the other outage", true, time.Now())
		cancel()
		<-done
	})
}
