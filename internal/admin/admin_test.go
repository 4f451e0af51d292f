package admin_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/admin"
	"github.com/pandoproxy/pando/internal/status"
)

// TestProbes checks each page of the admin port, with all checks holding and
// with one that fails.
func TestProbes(t *testing.T) {
	var failing error
	onTailnet := true
	s := &admin.Server{
		Checks:    func() []status.Check { return []status.Check{{Name: "a"}, {Name: "b", Err: failing}} },
		OnTailnet: func() bool { return onTailnet },
		Status:    func(flows int) status.Replica { return exampleStatus() },
		Metrics:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "m 1\n") }),
		Explain:   http.NotFoundHandler(),
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	get := func(path string) string {
		resp, err := http.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", strings.ReplaceAll(string(b), "\n", "|"))
	}
	check := func(answers map[string]string) {
		t.Helper()
		for path, want := range answers {
			if got := get(path); got != want {
				t.Errorf("GET %s = %s, want %s", path, got, want)
			}
		}
	}
	check(map[string]string{"/livez": "200 ok|", "/readyz": "200 ok|", "/readyz?verbose": "200 [+]a ok|[+]b ok|ok|", "/healthz": "200 ok|",
		"/metrics": "200 m 1|", "/other": "404 404 page not found|", "/debug/pprof/": "404 404 page not found|", "/status?flows=x": "400 invalid flows \"x\": write how many flows to show|"})
	failing = errors.New("broken")
	onTailnet = false
	check(map[string]string{"/livez": "200 ok|", "/readyz": "503 [-]b failed: broken|not ready|",
		"/readyz?verbose": "503 [+]a ok|[-]b failed: broken|not ready|", "/healthz": "503 the device is not on its tailnet|"})
	ln.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v, want %v", err, net.ErrClosed)
	}
}
