package panics

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// TestPanicsAreReportedOnce checks that a panic is counted and logged once, that an
// error without one is not, and that one panic a second is logged at most, with its
// stack and the number of the others.
func TestPanicsAreReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		count := 0
		p := New(slog.New(slog.NewTextHandler(&out, nil)), func() { count++ })
		boom := func() (err error) {
			defer flow.Catch(&err)
			panic("boom")
		}
		p.Caught(errors.New("no panic"))
		p.Caught(nil)
		first := boom()
		p.Caught(first)
		p.Caught(first)
		p.Caught(boom())
		time.Sleep(logEvery)
		p.Caught(boom())
		if lines := strings.Count(out.String(), "a panic was caught"); count != 3 || lines != 2 {
			t.Errorf("%d panics counted and %d logged, want 3 and 2", count, lines)
		}
		if stacks := strings.Count(out.String(), "stack="); stacks != 2 || !strings.Contains(out.String(), "before=1") {
			t.Errorf("%d stacks logged, want 2, and before=1:\n%s", stacks, out.String())
		}
	})
}
