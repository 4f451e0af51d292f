package watch

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestNoFileToReadWith checks that a file has not changed when there is no file
// descriptor to read it with. A process of its own has none.
func TestNoFileToReadWith(t *testing.T) {
	if os.Getenv("WATCH_NO_FILES") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoFileToReadWith$", "-test.v")
		cmd.Env = append(os.Environ(), "WATCH_NO_FILES=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil || !strings.Contains(string(out), "--- PASS: TestNoFileToReadWith") {
			t.Fatalf("the process without file descriptors: err = %v, want PASS", err)
		}
		return
	}
	files := []string{"watch.go", "missing"}
	if _, err := fingerprint(files); err != nil {
		t.Fatalf("fingerprint(%q): err = %v, want nil", files, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1, Max: 1}); err != nil {
		t.Fatal(err)
	}
	if got, err := fingerprint(files); !Exhausted(err) {
		t.Errorf("fingerprint without file descriptors = %q, %v; want an error of Exhausted", got, err)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start runs a watcher until the test ends.
func start(t *testing.T, opts Options) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	w := New(opts)
	go func() {
		w.Run(ctx)
		close(ended)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
}

// expectCall waits for a call of Changed.
func expectCall(t *testing.T, calls <-chan struct{}, after string) {
	t.Helper()
	select {
	case <-calls:
	case <-time.After(30 * time.Second):
		t.Fatalf("Changed was not called after %s", after)
	}
}

// reportTo returns a Changed that sends to the channel, and the channel.
func reportTo(err error) (func() error, chan struct{}) {
	calls := make(chan struct{}, 100)
	return func() error {
		calls <- struct{}{}
		return err
	}, calls
}

// TestConfigMap checks that a change is seen in a directory as the kubelet
// mounts a ConfigMap: the file is a link into ..data, which is a link to the
// directory of a version. No poll comes before the test is over.
func TestConfigMap(t *testing.T) {
	dir := t.TempDir()
	version := func(n int, text string) {
		t.Helper()
		name := fmt.Sprintf("..v%d", n)
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "pando.yaml"), text)
		if err := os.Symlink(name, filepath.Join(dir, "..next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version(1, "one")
	file := filepath.Join(dir, "pando.yaml")
	if err := os.Symlink("..data/pando.yaml", file); err != nil {
		t.Fatal(err)
	}
	hangup := make(chan os.Signal)
	changed, calls := reportTo(nil)
	start(t, Options{
		Files:   []string{file},
		Hangup:  hangup,
		Changed: changed,
		Quiet:   time.Millisecond,
		Poll:    time.Hour,
	})
	hangup <- nil // it is answered once Run has subscribed
	expectCall(t, calls, "a hangup without a change")
	version(2, "two")
	expectCall(t, calls, "a new version")
	version(3, "two") // another version with the same content
	hangup <- nil
	expectCall(t, calls, "a second hangup")
	version(4, "four")
	expectCall(t, calls, "the fourth version")
	if n := len(calls); n != 0 {
		t.Errorf("%d more calls of Changed, want none: the same content is not a change", n)
	}
}

// TestPoll checks that a file whose directory cannot be watched is polled.
func TestPoll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later") // missing at the start
	changed, calls := reportTo(nil)
	start(t, Options{
		Files:   []string{filepath.Join(dir, "users")},
		Changed: changed,
		Quiet:   time.Millisecond,
		Poll:    5 * time.Millisecond,
	})
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "users"), "ann:one")
	expectCall(t, calls, "the file appeared")
}

// TestUnreadChange checks that a change which could not be read for lack of
// file descriptors is reported again at the next event.
func TestUnreadChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	write(t, file, "ann:one")
	var exhausted atomic.Bool
	exhausted.Store(true)
	calls := 0
	w := New(Options{
		Files: []string{file},
		Quiet: time.Millisecond,
		Changed: func() error {
			calls++
			if exhausted.Load() {
				return &fs.PathError{Op: "open", Path: file, Err: syscall.EMFILE}
			}
			return nil
		},
	})
	write(t, file, "bob:two")
	for i, want := range []int{1, 2, 3, 3} {
		exhausted.Store(i < 2) // it can be read at the third event
		w.check(t.Context(), false)
		if calls != want {
			t.Errorf("after event %d: Changed was called %d times, want %d", i+1, calls, want)
		}
	}
}

// TestSlowWriter checks that a file which is being written is left alone until
// it has stayed the same for Quiet.
func TestSlowWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pando.yaml")
		write(t, file, "")
		begin := time.Now()
		var called []time.Duration
		w := New(Options{
			Files: []string{file},
			Quiet: time.Second,
			Changed: func() error {
				called = append(called, time.Since(begin))
				return nil
			},
		})
		write(t, file, "a")
		go func() { // ends with its third write
			for _, text := range []string{"ab", "abc", "abcd"} {
				time.Sleep(900 * time.Millisecond) // of synctest's clock: less than Quiet
				write(t, file, text)
			}
		}()
		w.check(t.Context(), false)
		// The last write is at 2.7s; the checks are at 1s, 2s, 3s and 4s.
		if len(called) != 1 || called[0] != 4*time.Second {
			t.Errorf("Changed was called at %v, want once at 4s", called)
		}
	})
}

// TestStop checks that a change is not reported once the context has ended.
func TestStop(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pando.yaml")
	write(t, file, "one")
	changed, calls := reportTo(nil)
	w := New(Options{Files: []string{file}, Changed: changed})
	write(t, file, "two")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	w.check(ctx, false)
	if n := len(calls); n != 0 {
		t.Errorf("Changed was called %d times after the end, want 0", n)
	}
}

// TestNothingToWatch checks that Run returns at once when there is nothing to
// watch.
func TestNothingToWatch(t *testing.T) {
	New(Options{}).Run(t.Context())
}
