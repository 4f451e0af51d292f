// Package kubetest is a stand-in for the part of the Kubernetes API that a replica
// uses, over TLS. The end-to-end tests use a real API server.
package kubetest

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tailscale.com/kube/kubeclient"
)

// API is an API server with Secrets.
type API struct {
	server *httptest.Server
	verbs  []string // allowed to the service account

	// Before is called before each request is answered. Set it before the first one.
	// Nil does nothing.
	Before func(*http.Request)

	mu      sync.Mutex
	secrets map[string]*secret
	down    bool
	writes  int
}

type secret struct {
	data    map[string][]byte
	version int
}

// Start starts an API server that ends with t, and makes it the one of this process's
// pod. The service account may use verbs on Secrets.
func Start(t *testing.T, verbs ...string) *API {
	a := &API{secrets: map[string]*secret{}, verbs: verbs}
	a.server = httptest.NewTLSServer(a)
	t.Cleanup(a.server.Close)
	root := t.TempDir()
	dir := filepath.Join(root, "var/run/secrets/kubernetes.io/serviceaccount")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})
	for name, data := range map[string][]byte{"namespace": []byte("ns"), "token": []byte("t"), "ca.crt": ca} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kubeclient.SetRootPathForTesting(root)
	t.Cleanup(func() { kubeclient.SetRootPathForTesting("") })
	host, port, err := net.SplitHostPort(a.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", host)
	t.Setenv("KUBERNETES_SERVICE_PORT", port)
	return a
}

// ServeHTTP answers a request for permissions, or one for a Secret.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.Before != nil {
		a.Before(r)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	code := http.StatusServiceUnavailable
	var answer any
	switch {
	case a.down:
	case strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
		var review struct {
			Spec struct{ ResourceAttributes struct{ Verb string } }
		}
		json.Unmarshal(body, &review)
		code = http.StatusOK
		answer = map[string]any{"status": map[string]any{"allowed": slices.Contains(a.verbs, review.Spec.ResourceAttributes.Verb)}}
	default:
		code, answer = a.serveSecret(r.Method, filepath.Base(r.URL.Path), body)
	}
	w.WriteHeader(code)
	if code != http.StatusOK {
		answer = map[string]any{"kind": "Status", "code": code, "message": "status " + strconv.Itoa(code)}
	}
	json.NewEncoder(w).Encode(answer)
}

// serveSecret answers a request for the Secret called name.
func (a *API) serveSecret(method, name string, body []byte) (code int, answer any) {
	verb := map[string]string{"GET": "get", "PUT": "update", "PATCH": "patch", "POST": "create"}[method]
	if !slices.Contains(a.verbs, verb) {
		return http.StatusForbidden, nil
	}
	var object struct {
		Metadata struct{ Name, ResourceVersion string }
		Data     map[string][]byte
	}
	json.Unmarshal(body, &object)
	if method == "POST" {
		name = object.Metadata.Name
	}
	s := a.secrets[name]
	switch {
	case method == "POST" && s != nil:
		return http.StatusConflict, nil
	case method == "POST":
		s = &secret{data: object.Data}
		a.secrets[name] = s
	case s == nil:
		return http.StatusNotFound, nil
	case method == "GET":
		meta := map[string]any{"name": name, "resourceVersion": strconv.Itoa(s.version)}
		return http.StatusOK, map[string]any{"metadata": meta, "data": s.data}
	case method == "PUT" && object.Metadata.ResourceVersion != strconv.Itoa(s.version):
		return http.StatusConflict, nil
	case method == "PUT":
		s.data = object.Data
	case !s.patch(body):
		return http.StatusConflict, nil
	}
	s.version++
	a.writes++
	return http.StatusOK, map[string]any{}
}

// patch applies a JSON patch, and reports whether it is for the version that s has.
func (s *secret) patch(body []byte) bool {
	var ops []struct {
		Op, Path string
		Value    json.RawMessage
	}
	json.Unmarshal(body, &ops)
	data := maps.Clone(s.data)
	for _, op := range ops {
		var v []byte
		key, field := strings.CutPrefix(op.Path, "/data/")
		switch {
		case op.Path == "/metadata/resourceVersion":
			if string(op.Value) != strconv.Quote(strconv.Itoa(s.version)) {
				return false
			}
		case !field:
			data = map[string][]byte{}
		case op.Op == "remove":
			delete(data, key)
		default:
			json.Unmarshal(op.Value, &v)
			data[key] = v
		}
	}
	s.data = data
	return true
}

// Get returns the fields of the Secret called name; nil if it does not exist.
func (a *API) Get(name string) map[string][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.secrets[name]; s != nil {
		return maps.Clone(s.data)
	}
	return nil
}

// Set sets fields of the Secret called name, as another client of the API server
// would, and creates it if it does not exist. An empty value removes its field.
func (a *API) Set(name string, fields map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.secrets[name]
	if s == nil {
		s = &secret{}
		a.secrets[name] = s
	}
	s.data = maps.Clone(s.data)
	for k, v := range fields {
		if s.data == nil {
			s.data = map[string][]byte{}
		}
		s.data[k] = []byte(v)
		if v == "" {
			delete(s.data, k)
		}
	}
	s.version++
}

// SetDown has the server fail every request, or answer them again.
func (a *API) SetDown(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
}

// Writes returns how many requests have changed a Secret.
func (a *API) Writes() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.writes
}
