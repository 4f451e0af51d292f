package tailnet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// The tests of a login that fails run in userspace mode only: both modes log in
// with the same code, before there is any traffic.

const wrongKey = "tskey-auth-wrong"

// TestWrongAuthKey checks that a node that is refused reports the control server's
// reason, and not the key.
func TestWrongAuthKey(t *testing.T) {
	t.Parallel()
	w := sharedWorld(t, tailnet.Userspace)
	n := w.start(t, "wrong", tailnet.Options{AuthKey: wrongKey})
	testkit.Eventually(t, "the reason", func() bool { return strings.Contains(fmt.Sprint(n.Err()), "invalid authkey") })
	err := n.Wait(testkit.Within(t, 10*time.Millisecond))
	if !errors.Is(err, tailnet.ErrNotUp) || !strings.Contains(err.Error(), "invalid authkey") {
		t.Errorf("Wait() = %v, want ErrNotUp and the server's reason", err)
	}
	if strings.Contains(fmt.Sprint(err), wrongKey) {
		t.Errorf("Wait() = %v, want an error without the auth key", err)
	}
	if _, err := n.DialTCP(t.Context(), netip.AddrPortFrom(testnet.APIAddr, 80)); !errors.Is(err, tailnet.ErrNotUp) {
		t.Errorf("DialTCP() = %v, want ErrNotUp", err)
	}
}

// TestFailedLoginBacksOff counts the attempts of a login that cannot succeed, and
// the lines in the log.
func TestFailedLoginBacksOff(t *testing.T) {
	t.Parallel()
	w := sharedWorld(t, tailnet.Userspace)
	var log testkit.Buffer
	w.start(t, "refused", tailnet.Options{
		AuthKey: wrongKey,
		NextKey: func(context.Context) (string, error) { return wrongKey, nil },
		Logger:  slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	// At once with both keys, and then after 1 s, 3 s and 7 s.
	testkit.Eventually(t, "the fourth attempt with the next key", func() bool { return strings.Contains(log.String(), "retry_in=8s") })
	var lines []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "level=WARN") {
			lines = append(lines, line)
		}
	}
	attempts := strings.Count(log.String(), "Received error: ")
	t.Logf("%d attempts, %d lines:\n%s", attempts, len(lines), strings.Join(lines, ""))
	if attempts < 5 || attempts > 15 {
		t.Errorf("%d attempts, want 5 and at most 10 more of the engine's own", attempts)
	}
	if len(lines) != 4 {
		t.Errorf("%d warnings, want 4", len(lines))
	}
	for _, line := range lines {
		if !strings.Contains(line, "invalid authkey") || !strings.Contains(line, "retry_in=") {
			t.Errorf("warning %q, want the reason and retry_in in it", line)
		}
	}
}

// TestUnreachableControlServer checks that a node reports why it cannot reach its
// control server, in its error and in the log.
func TestUnreachableControlServer(t *testing.T) {
	t.Parallel()
	w := &world{mode: tailnet.Userspace}
	var log testkit.Buffer
	n := w.start(t, "alone", tailnet.Options{
		ControlURL: "http://127.0.0.1:1",
		AuthKey:    testnet.AuthKey,
		Logger:     slog.New(slog.NewTextHandler(&log, nil)),
	})
	const why = "127.0.0.1:1: connect: connection refused"
	testkit.Eventually(t, "the reason in the log", func() bool { return strings.Contains(log.String(), why) })
	if err := n.Err(); !errors.Is(err, tailnet.ErrNotUp) || !strings.Contains(err.Error(), why) {
		t.Errorf("Err() = %v, want ErrNotUp with %q", err, why)
	}
}

// TestHostnameTagsEphemeral checks what the control server learns about a node,
// and that an ephemeral one logs out quickly.
func TestHostnameTagsEphemeral(t *testing.T) { eachMode(t, hostnameTagsEphemeral) }

func hostnameTagsEphemeral(t *testing.T, w *world) {
	tags := []string{"tag:k8s", "tag:egress"}
	n := w.join(t, "tagged", tailnet.Options{Tags: tags, Ephemeral: true})
	if want := "tagged." + testnet.MagicSuffix; n.Name() != want {
		t.Errorf("Name() = %q, want %q", n.Name(), want)
	}
	devices := w.net.Devices()
	i := slices.IndexFunc(devices, func(d testnet.Device) bool { return d.Name == "tagged" })
	if i < 0 || !slices.Equal(devices[i].Tags, tags) {
		t.Errorf("Devices() = %+v, want one called tagged with the tags %q", devices, tags)
	}
	start := time.Now()
	if err := n.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	// The library gives up a logout that hangs after 5 s.
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("Close() took %v, want less than 4s", took)
	}
}

// TestKeptStateKeepsAddress checks that a node with the state of its predecessor
// has the same address, and connects.
func TestKeptStateKeepsAddress(t *testing.T) { eachMode(t, keptStateKeepsAddress) }

func keptStateKeepsAddress(t *testing.T, w *world) {
	dir := t.TempDir()
	var first netip.Addr
	for i := range 3 {
		store, err := tailnet.DirStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		n := w.join(t, "kept", tailnet.Options{Store: store})
		dial(t, n, netip.AddrPortFrom(testnet.APIAddr, 80)).Close()
		t.Logf("start %d: up, warm and connected in %v", i+1, time.Since(start).Round(time.Millisecond))
		if i == 0 {
			first = n.Addrs()[0]
		}
		if got := n.Addrs()[0]; got != first {
			t.Errorf("start %d: the address is %v, want %v", i+1, got, first)
		}
		if err := n.Close(); err != nil {
			t.Errorf("start %d: Close() = %v", i+1, err)
		}
	}
}

// TestExpiredKeyLogsInAgain checks that a device whose key has expired asks for
// another auth key, and is up again when the control server allows it.
func TestExpiredKeyLogsInAgain(t *testing.T) { eachMode(t, expiredKey) }

func expiredKey(t *testing.T, w *world) {
	asked := make(chan struct{}, 1000)
	n := w.start(t, "expiring", tailnet.Options{
		AuthKey: testnet.AuthKey,
		NextKey: func(context.Context) (string, error) { asked <- struct{}{}; return testnet.AuthKey, nil },
	})
	if err := n.Wait(testkit.Within(t, joinTime)); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 0 {
		t.Errorf("NextKey was called %d times for the first login, want 0", len(asked))
	}
	w.net.ExpireDevices(true)
	testkit.Eventually(t, "the key to expire", func() bool { return n.Err() != nil })
	select {
	case <-asked:
	case <-time.After(joinTime):
		t.Fatal("NextKey was not called after the key had expired")
	}
	w.net.ExpireDevices(false)
	testkit.EventuallyOr(90*time.Second, n.Up, func() { t.Errorf("the node did not come up again: %v", n.Err()) })
}

// TestStoredPreferences checks that the stored preferences are those of the stock
// container. "tailscale up" fails on settings that its command line does not
// mention.
func TestStoredPreferences(t *testing.T) {
	t.Parallel()
	w := sharedWorld(t, tailnet.Userspace) // both modes store through the same code
	dir := t.TempDir()
	store, err := tailnet.DirStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.join(t, "plain", tailnet.Options{Store: store, ShieldsUp: true}).Close()
	state, err := os.ReadFile(filepath.Join(dir, "tailscaled.state"))
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string][]byte
	if err := json.Unmarshal(state, &keys); err != nil {
		t.Fatal(err)
	}
	type preferences struct {
		ShieldsUp     bool
		RouteAll      bool
		NetfilterMode int
	}
	want := preferences{RouteAll: true, NetfilterMode: 2}
	profiles := 0
	for id, value := range keys {
		if !strings.HasPrefix(id, "profile-") {
			continue
		}
		profiles++
		var got preferences
		if err := json.Unmarshal(value, &got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s holds %+v, want %+v", id, got, want)
		}
	}
	if profiles != 1 {
		t.Errorf("the state holds %d profiles, want 1: %s", profiles, state)
	}
}
