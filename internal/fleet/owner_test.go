package fleet

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/fleet/kubetest"
	"github.com/pandoproxy/pando/internal/testkit"
)

// openAs opens the Secret s as the pod whose uid is uid. Its log goes to log.
func openAs(t *testing.T, uid string, log *testkit.Buffer) *Secret {
	t.Helper()
	t.Setenv("POD_UID", uid)
	s, err := Open(t.Context(), "s", slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTwoPods checks that of two pods with the same Secret the older one notices, says
// which pod it is, leaves the Secret to it, and takes it back when the other is gone.
func TestTwoPods(t *testing.T) {
	for name, verbs := range map[string][]string{
		"patched": {"get", "update", "patch"},
		"updated": {"get", "update"},
	} {
		t.Run(name, func(t *testing.T) {
			checkEvery = 20 * time.Millisecond
			defer func() { checkEvery = 30 * time.Second }()
			a := kubetest.Start(t, verbs...)
			a.Set("s", map[string]string{"pod_uid": "uid-0"}) // of a pod that is gone
			holds := func(field, value string) {
				t.Helper()
				testkit.EventuallyOr(15*time.Second, func() bool { return string(a.Get("s")[field]) == value }, func() {
					t.Fatalf("the Secret holds %q, want %s=%s", a.Get("s"), field, value)
				})
			}
			var logA, logB testkit.Buffer
			older := openAs(t, "uid-a", &logA)
			defer closed(t, older)
			holds("pod_uid", "uid-a")
			older.WriteState("k", []byte("a1"))
			holds("k", "a1")
			if err := older.Err(); err != nil || strings.Contains(logA.String(), "level=ERROR") {
				t.Errorf("after a pod replaced another: Err() = %v, want nil, and no error in the log:\n%s", err, logA.String())
			}

			newer := openAs(t, "uid-b", &logB)
			holds("pod_uid", "uid-b")
			testkit.Eventually(t, "the older pod to notice", func() bool { return older.Err() != nil })
			for _, want := range []string{"uid-a", "uid-b", "Secret s", "tailnet.kubeSecret"} {
				if !strings.Contains(older.Err().Error(), want) {
					t.Errorf("Err() = %v, want %q in it", older.Err(), want)
				}
			}
			older.WriteState("k", []byte("a2"))
			newer.WriteState("k", []byte("b1"))
			holds("k", "b1")
			time.Sleep(10 * checkEvery) // nothing may happen, which no event shows
			holds("k", "b1")
			if n := strings.Count(logA.String(), "another pod uses the same state Secret"); n != 1 {
				t.Errorf("the older pod's log says %d times that there is another, want once:\n%s", n, logA.String())
			}
			if err := newer.Err(); err != nil || strings.Contains(logB.String(), "level=ERROR") {
				t.Errorf("the newer pod: Err() = %v, want nil, and no error in the log:\n%s", err, logB.String())
			}

			closed(t, newer)
			testkit.Eventually(t, "the older pod to take the Secret back", func() bool { return older.Err() == nil })
			holds("pod_uid", "uid-a")
			holds("k", "a2")
		})
	}
}

// TestContainerRestarts checks that a container which is restarted in its pod, without
// a clean end, does not take its pod for another one.
func TestContainerRestarts(t *testing.T) {
	checkEvery = 20 * time.Millisecond
	defer func() { checkEvery = 30 * time.Second }()
	a := kubetest.Start(t, "get", "update", "patch")
	a.Set("s", map[string]string{"pod_uid": "uid-a"})
	var log testkit.Buffer
	s := openAs(t, "uid-a", &log)
	defer closed(t, s)
	time.Sleep(5 * checkEvery) // nothing may happen, which no event shows
	if err := s.Err(); err != nil || log.String() != "" {
		t.Errorf("Err() = %v, want nil, and an empty log:\n%s", err, log.String())
	}
}

// TestConcurrentWrite checks that a write which another client's write overtakes is
// made again from what the Secret holds then.
func TestConcurrentWrite(t *testing.T) {
	for name, verbs := range map[string][]string{
		"patched": {"get", "update", "patch"},
		"updated": {"get", "update"},
	} {
		t.Run(name, func(t *testing.T) {
			a := kubetest.Start(t, verbs...)
			overtaken := false
			a.Before = func(r *http.Request) {
				if (r.Method == "PATCH" || r.Method == "PUT") && !overtaken {
					overtaken = true
					a.Set("s", map[string]string{"theirs": "1"})
				}
			}
			a.Set("s", map[string]string{"k": "0"})
			s := open(t, "s")
			s.WriteState("k", []byte("1"))
			closed(t, s)
			if got := a.Get("s"); string(got["k"]) != "1" || string(got["theirs"]) != "1" || !overtaken {
				t.Errorf("the Secret holds %q, want k=1 and theirs=1", got)
			}
			if n := a.Writes(); n != 1 {
				t.Errorf("%d writes succeeded, want 1: the one that was overtaken must fail", n)
			}
		})
	}
}
