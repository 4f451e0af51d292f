package socket

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAcceptFailures checks that pauses double up to one second, that a success
// resets them, and that log lines are at least acceptLogEvery apart.
func TestAcceptFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		var f AcceptFailures
		wait := func() time.Duration {
			t.Helper()
			start := time.Now()
			if err := f.Wait(t.Context(), log, errors.New("too many open files")); err != nil {
				t.Fatalf("Wait = %v, want nil", err)
			}
			return time.Since(start)
		}
		for _, ms := range []int{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
			if got, want := wait(), time.Duration(ms)*time.Millisecond; got != want {
				t.Errorf("Wait paused for %v, want %v", got, want)
			}
		}
		// Failures begin at 0, 5, 15, 35, 75, 155, 315, 635, 1275 and 2275 ms.
		if got, want := strings.Count(out.String(), "accept failed"), 5; got != want {
			t.Errorf("logged %d of 10 failures, want %d:\n%s", got, want, &out)
		}
		f.Over()
		if got, want := wait(), minAcceptPause; got != want {
			t.Errorf("Wait after Over paused for %v, want %v", got, want)
		}

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := f.Wait(ctx, log, errors.New("too many open files")); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait with an ended context = %v, want %v", err, context.Canceled)
		}
	})
}
