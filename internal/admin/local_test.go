package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/status"
)

// newServer returns a server whose answers hold the word secret where only local
// clients may read them.
func newServer() *Server {
	secret := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secret") })
	return &Server{
		Checks:    func() []status.Check { return nil },
		OnTailnet: func() bool { return true },
		Status:    func(int) status.Replica { return status.Replica{Version: "secret"} },
		Metrics:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "m 1\n") }),
		Explain:   secret,
		Profiles:  true,
	}
}

// serve serves s on loopback until the test ends. It returns the address.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

// ask sends a request on c, and returns the status and the body.
func ask(t *testing.T, c net.Conn, method, path string) (int, string) {
	t.Helper()
	defer c.Close()
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return c, nil },
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequest(method, "http://replica"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
		return 0, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(b)
}

// TestWhoGetsWhat checks each path for a local process, and for a tailnet peer that
// is forwarded to the loopback, while it is registered and after that.
func TestWhoGetsWhat(t *testing.T) {
	addr := netip.MustParseAddrPort(serve(t, newServer()))
	for _, tc := range []struct {
		method, path string
		forAll       bool
	}{
		{"GET", "/livez", true},
		{"GET", "/readyz", true},
		{"GET", "/readyz?verbose", true},
		{"GET", "/healthz", true},
		{"GET", "/metrics", true},
		{"GET", "/status", false},
		{"GET", "/status?flows=x", false},
		{"POST", "/explain", false},
		{"GET", "/debug/pprof/", false},
		{"GET", "/debug/pprof/heap", false},
		{"GET", "/debug/pprof/profile?seconds=1", false},
		{"GET", "/debug/pprof/symbol", false},
		{"GET", "/debug/pprof/trace?seconds=1", false},
	} {
		for _, forgotten := range []bool{false, true} {
			c, forget, err := socket.DialForwarded(t.Context(), "tcp", addr.Port(), netip.MustParseAddrPort("100.64.0.9:4000"))
			if err != nil {
				t.Fatal(err)
			}
			if forgotten {
				forget()
			}
			code, body := ask(t, c, tc.method, tc.path)
			forget()
			if tc.forAll != (code == 200) || !tc.forAll && code != 403 || strings.Contains(body, "secret") {
				t.Errorf("%s %s by a peer: %d %s, want it refused: %v", tc.method, tc.path, code, body, !tc.forAll)
			}
			if !tc.forAll && !strings.Contains(body, "kubectl exec POD -- /pando status") {
				t.Errorf("%s %s by a peer: %s, want the command that works", tc.method, tc.path, body)
			}
		}
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		if code, body := ask(t, c, tc.method, tc.path); code == 403 {
			t.Errorf("%s %s by a local process: %d %s, want it answered", tc.method, tc.path, code, body)
		}
	}
}

// TestLocalAddresses checks which addresses are local.
func TestLocalAddresses(t *testing.T) {
	h := local(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secret") }))
	for remote, want := range map[string]int{
		"127.0.0.1:4000":           http.StatusOK,
		"[::1]:4000":               http.StatusOK,
		"[::ffff:127.0.0.1]:4000":  http.StatusOK,
		"10.244.1.7:4000":          http.StatusForbidden,
		"[fd00::7]:4000":           http.StatusForbidden,
		"[fe80::7%eth0]:4000":      http.StatusForbidden,
		"[::ffff:10.244.1.7]:4000": http.StatusForbidden,
		"[::ffff:127.9.0.1]:4000":  http.StatusForbidden,
		"127.9.0.1:4000":           http.StatusForbidden, // a tailnet peer, see socket.ForwardedSource
		"garbage":                  http.StatusForbidden,
	} {
		r := httptest.NewRequest("GET", "/status", nil)
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("GET /status from %s: %d, want %d", remote, w.Code, want)
		}
	}
}
