package probe

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/status"
)

// logLines collects the messages that a Prober logs.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logLines) count(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), message)
}

const (
	fails   = "probe target does not answer; replica not ready"
	answers = "probe target answers"
)

// check returns the condition of target.
func check(t *testing.T, p *Prober, target string) status.Check {
	t.Helper()
	for _, c := range p.Checks() {
		if c.Name == "probe "+target {
			return c
		}
	}
	t.Fatalf("Checks() has no condition for %q", target)
	return status.Check{}
}

// TestThresholds checks that a target changes sides only after the configured
// number of consecutive outcomes, and that each change is logged once.
func TestThresholds(t *testing.T) {
	refused := errors.New("refused")
	for _, c := range []struct {
		name                string
		failures, successes int
		outcomes            string // one letter a probe: o is ok, x is a failure
		good                bool
		err, note           string // of the condition, in part
		logFails, logOK     int
	}{
		{"first_success", 3, 1, "o", true, "", "", 0, 1},
		{"successes_missing", 3, 3, "oo", false, "needs 3 successes in a row", "", 0, 0},
		{"successes_interrupted", 3, 2, "oxo", false, "needs 2 successes in a row", "", 0, 0},
		{"enough_successes", 3, 3, "ooo", true, "", "", 0, 1},
		{"never_answered", 3, 1, "xx", false, "refused", "", 0, 0},
		{"never_answered_is_logged_once", 3, 1, "xxxxx", false, "refused", "", 1, 0},
		{"one_failure_is_a_note", 3, 1, "ox", true, "", "the last probe failed: refused", 0, 1},
		{"failures_interrupted", 3, 1, "oxxoxx", true, "", "the last probe failed: refused", 0, 1},
		{"enough_failures", 3, 1, "oxxx", false, "refused", "", 1, 1},
		{"back_again", 3, 2, "ooxxxoo", true, "", "", 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &logLines{}
			p := &Prober{
				Targets:   []string{"db:5432"},
				Failures:  c.failures,
				Successes: c.successes,
				Log:       slog.New(slog.NewTextHandler(log, nil)),
			}
			for _, o := range c.outcomes {
				var err error
				if o == 'x' {
					err = refused
				}
				p.record("db:5432", err)
			}
			got := check(t, p, "db:5432")
			if (got.Err == nil) != c.good {
				t.Errorf("after %q: err = %v, want good = %v", c.outcomes, got.Err, c.good)
			}
			if c.err != "" && (got.Err == nil || !strings.Contains(got.Err.Error(), c.err)) {
				t.Errorf("after %q: err = %v, want %q in it", c.outcomes, got.Err, c.err)
			}
			if got.Note != c.note {
				t.Errorf("after %q: note = %q, want %q", c.outcomes, got.Note, c.note)
			}
			if n := log.count(fails); n != c.logFails {
				t.Errorf("after %q: logged %q %d times, want %d", c.outcomes, fails, n, c.logFails)
			}
			if n := log.count(answers); n != c.logOK {
				t.Errorf("after %q: logged %q %d times, want %d", c.outcomes, answers, n, c.logOK)
			}
			wantFailing := 1
			if c.good {
				wantFailing = 0
			}
			checks := append(p.Checks(), status.Check{Name: "tailnet", Err: refused})
			if n := Failing(checks); n != wantFailing {
				t.Errorf("after %q: Failing(checks) = %d, want %d", c.outcomes, n, wantFailing)
			}
		})
	}
}

// TestRun checks that Run probes every target once an interval, each target by
// itself, and ends with its context.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var mu sync.Mutex
		probed := map[string][]time.Duration{}
		down := false
		p := &Prober{
			Targets:   []string{"b:1", "a:1", "b:1", "slow:1"}, // b:1 twice
			Interval:  10 * time.Second,
			Failures:  2,
			Successes: 1,
			Log:       slog.New(slog.DiscardHandler),
		}
		p.Ready = func(context.Context) error {
			time.Sleep(3 * time.Second)
			begin = time.Now()
			return nil
		}
		p.Connect = func(ctx context.Context, target string) error {
			if target == "slow:1" { // does not delay the others
				<-ctx.Done()
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			probed[target] = append(probed[target], time.Since(begin))
			if down {
				return errors.New("refused")
			}
			return nil
		}
		if got := check(t, p, "a:1"); got.Err == nil || got.Err.Error() != "not tried yet" {
			t.Errorf("before Run: err = %v, want not tried yet", got.Err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			p.Run(ctx)
			close(ended)
		}()

		time.Sleep(2 * time.Second)
		if got := check(t, p, "a:1"); got.Err == nil || got.Err.Error() != "not tried yet" {
			t.Errorf("before Ready: err = %v, want not tried yet", got.Err)
		}
		time.Sleep(5 * time.Second)
		if got := check(t, p, "a:1"); got.Err != nil {
			t.Errorf("after the first probe: err = %v, want nil", got.Err)
		}
		mu.Lock()
		down = true
		mu.Unlock()
		time.Sleep(10 * time.Second) // the first failure
		if got := check(t, p, "a:1"); got.Err != nil || got.Note == "" {
			t.Errorf("after one failure: err = %v, note = %q; want a note and no error", got.Err, got.Note)
		}
		time.Sleep(10 * time.Second) // the second failure
		if got := check(t, p, "a:1"); got.Err == nil {
			t.Error("after two failures: err = nil, want refused")
		}
		if n := Failing(p.Checks()); n != 3 {
			t.Errorf("Failing(checks) = %d, want 3", n)
		}
		stop()
		<-ended
		mu.Lock()
		defer mu.Unlock()
		for _, target := range []string{"a:1", "b:1"} {
			want := []time.Duration{0, 10 * time.Second, 20 * time.Second}
			if got := probed[target]; len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
				t.Errorf("%s was probed at %v, want %v", target, got, want)
			}
		}
		if got := check(t, p, "slow:1"); got.Err == nil || got.Err.Error() != "not tried yet" {
			t.Errorf("a probe that the end of Run interrupted counts: err = %v, want not tried yet", got.Err)
		}
	})
}

// TestNeverReady checks that Run ends when its context ends before Ready.
func TestNeverReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := &Prober{
			Targets: []string{"a:1"},
			Ready: func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			},
			Connect: func(context.Context, string) error {
				t.Error("a target was probed before Ready")
				return nil
			},
			Log: slog.New(slog.DiscardHandler),
		}
		p.Run(ctx)
	})
}

// TestNoTargets checks that a Prober without targets ends at once and makes no
// conditions.
func TestNoTargets(t *testing.T) {
	p := &Prober{Log: slog.New(slog.DiscardHandler)}
	p.Run(t.Context())
	if got := p.Checks(); len(got) != 0 {
		t.Errorf("Checks() = %v, want none", got)
	}
}
