package fleet

import (
	"context"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/kube/kubeclient"

	"github.com/pandoproxy/pando/internal/fleet/kubetest"
	"github.com/pandoproxy/pando/internal/testkit"
)

// open opens the Secret called name.
func open(t *testing.T, name string) *Secret {
	t.Helper()
	s, err := Open(t.Context(), name, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// closed closes s.
func closed(t *testing.T, s *Secret) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

// TestStateSurvives checks that a replica reads what its predecessor wrote, for each
// set of permissions.
func TestStateSurvives(t *testing.T) {
	for name, verbs := range map[string][]string{
		"made":    {"get", "update", "patch", "create"},
		"patched": {"get", "update", "patch"},
		"updated": {"get", "update"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("POD_UID", "uid-1")
			a := kubetest.Start(t, verbs...)
			if name != "made" {
				a.Set("pando-0", nil) // created by an administrator, empty
			}
			s := open(t, "pando-0")
			if _, err := s.ReadState("_machinekey"); err != ipn.ErrStateNotExist {
				t.Errorf("ReadState() = %v in a new Secret, want ErrStateNotExist", err)
			}
			s.WriteState("_machinekey", []byte("m"))
			s.WriteState("profile-a/b", []byte("p"))
			s.WriteState("gone", []byte("x"))
			s.WriteState("gone", nil)
			s.SetDevice("n1", "pando-0.tail.ts.net.", []netip.Addr{netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd7a::1")})
			closed(t, s)
			want := map[string]string{"_machinekey": "m", "profile-a_b": "p", "device_id": "n1", "device_fqdn": "pando-0.tail.ts.net.",
				"device_ips": `["100.64.0.1","fd7a::1"]`}
			got := a.Get("pando-0")
			if len(got) != len(want) {
				t.Errorf("the Secret holds %q, want %q", got, want)
			}
			for k, v := range want {
				if string(got[k]) != v {
					t.Errorf("field %s is %q, want %q", k, got[k], v)
				}
			}
			s = open(t, "pando-0")
			defer closed(t, s)
			if b, err := s.ReadState("profile-a/b"); err != nil || string(b) != "p" {
				t.Errorf("ReadState() = %q, %v by the successor; want p", b, err)
			}
		})
	}
}

// TestFieldsOfOthers checks that fields which other programs write stay in the
// Secret, and that DropAuthKey removes the auth key.
func TestFieldsOfOthers(t *testing.T) {
	a := kubetest.Start(t, "get", "update", "patch")
	a.Set("ts", map[string]string{"authkey": "tskey-auth-x", "mine": "1"})
	s := open(t, "ts")
	a.Set("ts", map[string]string{"later": "2"})
	s.WriteState("_profiles", []byte("{}"))
	s.DropAuthKey()
	closed(t, s)
	got := a.Get("ts")
	if string(got["mine"]) != "1" || string(got["later"]) != "2" || string(got["_profiles"]) != "{}" || got["authkey"] != nil {
		t.Errorf("the Secret holds %q, want the fields mine, later and _profiles, and no authkey", got)
	}
}

// TestAuthKeyIsReadAgain checks that AuthKey returns the key that the Secret holds now,
// and the last one while the API server is away.
func TestAuthKeyIsReadAgain(t *testing.T) {
	a := kubetest.Start(t, "get", "update", "patch")
	a.Set("s", map[string]string{"authkey": "first"})
	s := open(t, "s")
	defer closed(t, s)
	for _, want := range []string{"first", "second", "", "third"} {
		a.Set("s", map[string]string{"authkey": want})
		if got := s.AuthKey(t.Context()); got != want {
			t.Errorf("AuthKey() = %q, want %q", got, want)
		}
	}
	a.SetDown(true)
	if got := s.AuthKey(t.Context()); got != "third" {
		t.Errorf("AuthKey() = %q in an outage, want the last one, third", got)
	}
	a.SetDown(false)
}

// TestOutage checks that reads and writes work while the API server is away, and
// that the last value is saved when it is back.
func TestOutage(t *testing.T) {
	a := kubetest.Start(t, "get", "update", "patch")
	a.Set("s", map[string]string{"k": "1"})
	s := open(t, "s")
	a.SetDown(true)
	start := time.Now()
	for i := range 100 {
		if err := s.WriteState("k", strconv.AppendInt(nil, int64(i), 10)); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := s.ReadState("k"); err != nil || string(b) != "99" || time.Since(start) > requestTime {
		t.Errorf("ReadState() = %q, %v after %v in an outage; want 99 without a wait for the API server", b, err, time.Since(start))
	}
	a.SetDown(false)
	testkit.EventuallyOr(time.Minute, func() bool { return string(a.Get("s")["k"]) == "99" }, func() {
		t.Fatalf("the Secret holds %q a minute after the outage, want k=99", a.Get("s"))
	})
	closed(t, s)
	writes := a.Writes()
	if writes > 5 {
		t.Errorf("100 changes took %d writes, want 5 at most", writes)
	}
	// If a replica ends in an outage, Close reports what it could not save.
	s = open(t, "s")
	a.SetDown(true)
	s.WriteState("k", []byte("lost"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), "secret s: not saved") {
		t.Errorf("Close() = %v in an outage, want an error that names the Secret", err)
	}
}

// TestPermissions checks that the error names the missing permission.
func TestPermissions(t *testing.T) {
	createTime = 100 * time.Millisecond // one attempt after the first
	defer func() { createTime = 10 * time.Second }()
	for _, c := range []struct {
		verbs []string
		want  string
	}{
		{[]string{"get"}, `missing update permission on secret "s"`},
		{nil, `missing get permission on secret "s"`},
		{[]string{"get", "update", "patch"}, "the Secret does not exist and the service account may not create it"},
	} {
		kubetest.Start(t, c.verbs...)
		if _, err := Open(t.Context(), "s", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open() = %v with the verbs %v, want an error with %q", err, c.verbs, c.want)
		}
	}
	kubeclient.SetRootPathForTesting(t.TempDir())
	if _, err := Open(t.Context(), "s", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "not in a pod with a service account") {
		t.Errorf("Open() = %v outside a cluster, want an error that says so", err)
	}
}
