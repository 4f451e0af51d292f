package fleet

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/kube/kubeclient"

	"github.com/pandoproxy/pando/internal/testkit"
)

// api is the part of the Kubernetes API that a replica uses, over TLS. The end-to-end
// tests use a real one.
type api struct {
	*httptest.Server
	mu      sync.Mutex
	secrets map[string]map[string][]byte
	verbs   []string // allowed to the service account
	down    bool
	writes  int
}

func newAPI(t *testing.T, verbs ...string) *api {
	a := &api{secrets: map[string]map[string][]byte{}, verbs: verbs}
	a.Server = httptest.NewTLSServer(a)
	t.Cleanup(a.Close)
	root := t.TempDir()
	dir := filepath.Join(root, "var/run/secrets/kubernetes.io/serviceaccount")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	for name, data := range map[string][]byte{"namespace": []byte("ns"), "token": []byte("t"), "ca.crt": ca} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kubeclient.SetRootPathForTesting(root)
	t.Cleanup(func() { kubeclient.SetRootPathForTesting("") })
	host, port, err := net.SplitHostPort(a.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", host)
	t.Setenv("KUBERNETES_SERVICE_PORT", port)
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	fail := func(code int) {
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "code": code, "message": "status " + strconv.Itoa(code)})
	}
	if a.down {
		fail(503)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews") {
		var review struct {
			Spec struct{ ResourceAttributes struct{ Verb string } }
		}
		json.Unmarshal(body, &review)
		json.NewEncoder(w).Encode(map[string]any{"status": map[string]any{"allowed": slices.Contains(a.verbs, review.Spec.ResourceAttributes.Verb)}})
		return
	}
	verb := map[string]string{"GET": "get", "PUT": "update", "PATCH": "patch", "POST": "create"}[r.Method]
	if !slices.Contains(a.verbs, verb) {
		fail(403)
		return
	}
	name := filepath.Base(r.URL.Path)
	var object struct {
		Metadata struct{ Name string }
		Data     map[string][]byte
	}
	switch data, there := a.secrets[name]; {
	case r.Method == "POST":
		json.Unmarshal(body, &object)
		a.secrets[object.Metadata.Name] = object.Data
	case !there:
		fail(404)
		return
	case r.Method == "PUT":
		json.Unmarshal(body, &object)
		a.secrets[name] = object.Data
	case r.Method == "PATCH":
		var ops []struct {
			Op, Path string
			Value    json.RawMessage
		}
		json.Unmarshal(body, &ops)
		for _, op := range ops {
			key := strings.TrimPrefix(op.Path, "/data/")
			switch {
			case op.Path == "/data":
				a.secrets[name] = map[string][]byte{}
			case op.Op == "remove":
				delete(a.secrets[name], key)
			default:
				var v []byte
				json.Unmarshal(op.Value, &v)
				a.secrets[name][key] = v
			}
		}
	default:
		json.NewEncoder(w).Encode(map[string]any{"metadata": map[string]any{"name": name, "resourceVersion": "1"}, "data": data})
		return
	}
	a.writes++
	w.Write([]byte("{}"))
}

func (a *api) get(name string) map[string][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.secrets[name])
}

func (a *api) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

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
			a := newAPI(t, verbs...)
			if name != "made" {
				a.secrets["pando-0"] = nil // created by an administrator, empty
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
				"device_ips": `["100.64.0.1","fd7a::1"]`, "pod_uid": "uid-1"}
			got := a.get("pando-0")
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
	a := newAPI(t, "get", "update", "patch")
	a.secrets["ts"] = map[string][]byte{"authkey": []byte("tskey-auth-x\n"), "mine": []byte("1")}
	s := open(t, "ts")
	if s.AuthKey() != "tskey-auth-x" {
		t.Errorf("AuthKey() = %q, want tskey-auth-x", s.AuthKey())
	}
	a.set(func() { a.secrets["ts"]["later"] = []byte("2") })
	s.WriteState("_profiles", []byte("{}"))
	s.DropAuthKey()
	closed(t, s)
	got := a.get("ts")
	if string(got["mine"]) != "1" || string(got["later"]) != "2" || string(got["_profiles"]) != "{}" || got["authkey"] != nil {
		t.Errorf("the Secret holds %q, want the fields mine, later and _profiles, and no authkey", got)
	}
}

// TestOutage checks that reads and writes work while the API server is away, and
// that the last value is saved when it is back.
func TestOutage(t *testing.T) {
	a := newAPI(t, "get", "update", "patch")
	a.secrets["s"] = map[string][]byte{"k": []byte("1")}
	s := open(t, "s")
	a.set(func() { a.down = true })
	start := time.Now()
	for i := range 100 {
		if err := s.WriteState("k", strconv.AppendInt(nil, int64(i), 10)); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := s.ReadState("k"); err != nil || string(b) != "99" || time.Since(start) > requestTime {
		t.Errorf("ReadState() = %q, %v after %v in an outage; want 99 without a wait for the API server", b, err, time.Since(start))
	}
	a.set(func() { a.down = false })
	testkit.EventuallyOr(time.Minute, func() bool { return string(a.get("s")["k"]) == "99" }, func() {
		t.Fatalf("the Secret holds %q a minute after the outage, want k=99", a.get("s"))
	})
	closed(t, s)
	writes := a.writes
	if writes > 5 {
		t.Errorf("100 changes took %d writes, want 5 at most", writes)
	}
	// If a replica ends in an outage, Close reports what it could not save.
	s = open(t, "s")
	a.set(func() { a.down = true })
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
		newAPI(t, c.verbs...)
		if _, err := Open(t.Context(), "s", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open() = %v with the verbs %v, want an error with %q", err, c.verbs, c.want)
		}
	}
	kubeclient.SetRootPathForTesting(t.TempDir())
	if _, err := Open(t.Context(), "s", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "not in a pod with a service account") {
		t.Errorf("Open() = %v outside a cluster, want an error that says so", err)
	}
}
