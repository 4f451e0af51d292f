package control

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tailscale.com/health"
	"tailscale.com/util/eventbus"
)

// newLogin returns a Login without an engine that writes its log to out.
func newLogin(out *bytes.Buffer) *Login {
	l := NewLogin()
	l.Log = slog.New(slog.NewTextHandler(out, nil))
	return l
}

// TestRelogin checks when keys are asked for while none is to be had: at once,
// then less and less often, at last once a minute, by one goroutine alone.
func TestRelogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newLogin(&out)
		start := time.Now()
		var asked []time.Duration
		l.NextKey = func(context.Context) (string, error) {
			asked = append(asked, time.Since(start))
			return "", errors.New("the file of the key is empty")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		l.needsLogin(ctx, false)
		for range 3 { // the engine reports the need again and again
			l.needsLogin(ctx, true)
		}
		synctest.Wait()
		if got, want := l.WaitsFor(), "the file of the key is empty"; got != want {
			t.Errorf("WaitsFor() = %q, want %q", got, want)
		}
		l.relogins.Wait()
		var want []time.Duration
		for _, s := range []int{0, 1, 3, 7, 15, 31, 63, 123, 183} {
			want = append(want, time.Duration(s)*time.Second)
		}
		if !slices.Equal(asked, want) {
			t.Errorf("NextKey was called after %v, want %v", asked, want)
		}
		if got := strings.Count(out.String(), "login failed; will try again"); got != len(want) {
			t.Errorf("the log has %d failures, want %d:\n%s", got, len(want), &out)
		}
		if l.reloginOn.Load() {
			t.Error("after its end, relogin is still marked as running: no other login would start")
		}
	})
}

// TestReloginWithoutKeySource checks that nothing logs in by itself when a person
// has to.
func TestReloginWithoutKeySource(t *testing.T) {
	l := newLogin(new(bytes.Buffer))
	l.needsLogin(t.Context(), true)
	if l.reloginOn.Load() {
		t.Error("relogin runs without NextKey")
	}
}

// TestLogUntilUp checks how often the log says what a login waits for, and that
// it ends when the node is up.
func TestLogUntilUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newLogin(&out)
		why := "invalid key"
		l.err.Store(&why)
		done := make(chan struct{})
		go func() {
			l.LogUntilUp(t.Context())
			close(done)
		}()
		for _, step := range []struct {
			after   time.Duration // since the step before
			relogin bool          // runs now, and writes the log itself
			lines   int           // in the log so far
		}{
			{4 * time.Second, false, 0},
			{2 * time.Second, false, 1},   // at 5 s
			{10 * time.Second, false, 2},  // at 15 s
			{20 * time.Second, true, 2},   // at 35 s
			{40 * time.Second, false, 3},  // at 75 s
			{120 * time.Second, false, 5}, // at 135 s and 195 s
		} {
			l.reloginOn.Store(step.relogin)
			time.Sleep(step.after) // of synctest's clock
			synctest.Wait()
			if got := strings.Count(out.String(), `msg="not on the tailnet yet" err="invalid key"`); got != step.lines {
				t.Errorf("the log has %d lines, want %d:\n%s", got, step.lines, &out)
			}
		}
		if l.wasUp() {
			t.Error("wasUp() = true before the node was up")
		}
		close(l.up)
		<-done
		if !l.wasUp() {
			t.Error("wasUp() = false after the node was up")
		}
	})
}

// TestWaitsFor checks which reason is named: an error first, then the URL of a
// login, then what the engine reports.
func TestWaitsFor(t *testing.T) {
	bus := eventbus.New()
	defer bus.Close()
	l := newLogin(new(bytes.Buffer))
	l.Health = health.NewTracker(bus)
	l.Health.SetUnhealthy(health.LoginStateWarnable, health.Args{health.ArgError: "key expired"})
	check := func(want string) {
		t.Helper()
		if got := l.WaitsFor(); got != want {
			t.Errorf("WaitsFor() = %q, want %q", got, want)
		}
	}
	check("the last login attempt failed: key expired")
	url := "https://login.example.com/a/1"
	l.url.Store(&url)
	check("login required: set tailnet.authKey, or open the URL that the log and pando status show")
	if got := l.URL(); got != url {
		t.Errorf("URL() = %q, want %q", got, url)
	}
	why := "invalid key"
	l.err.Store(&why)
	check(why)
}
