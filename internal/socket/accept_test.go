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
			want := time.Duration(ms) * time.Millisecond
			if got := wait(); got != want {
				t.Errorf("Wait paused for %v, want %v", got, want)
			}
		}
		// Failures begin at 0, 5, 15, 35, 75, 155, 315, 635, 1275 and 2275 ms.
		if got := strings.Count(out.String(), "accept failed"); got != 5 {
			t.Errorf("logged %d of 10 failures, want 5:\n%s", got, &out)
		}
		f.Over()
		if got := wait(); got != minAcceptPause {
			t.Errorf("Wait after Over paused for %v, want %v", got, minAcceptPause)
		}

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := f.Wait(ctx, log, errors.New("too many open files")); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait with an ended context = %v, want %v", err, context.Canceled)
		}
	})
}
