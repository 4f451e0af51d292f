package demo_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/demo"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// TestTour checks that every step of the tour passes, on any free port, and that
// with Stay the fleet works until its context ends. TestStaysOnLoopback checks
// that the demo ends by itself without Stay.
func TestTour(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	listen := freePort(t)
	out := new(testkit.Buffer)
	ended := make(chan error, 1)
	go func() { ended <- demo.Run(ctx, demo.Options{Listen: listen, Out: out, Stay: true}) }()
	for !strings.Contains(out.String(), "The fleet keeps running.") {
		select {
		case err := <-ended:
			t.Fatalf("Run = %v after the tour, want it to keep running\n%s", err, out)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Logf("the tour:\n%s", out)
	for _, want := range []string{"pando-0", "pando-1", "pando-2", "TLS verified", "queries", "drained under load", "killed under load", "Every step passed", "Try it from another terminal", "curl --cacert", "Ctrl-C"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tour does not contain %q", want)
		}
	}
	proxy := http.ProxyURL(&url.URL{Scheme: "http", Host: listen})
	client := &http.Client{Transport: &http.Transport{Proxy: proxy, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for range 2 {
		resp, err := client.Get("http://" + testnet.APIName + "/hello")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("GET after the tour: %s, want 200", resp.Status)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("Run = %v before its context ended", err)
	default:
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run = %v after its context ended, want nil", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Run did not return within 20s after its context ended")
	}
	if c, err := net.Dial("tcp", listen); err == nil {
		c.Close()
		t.Error("the fleet's port is still open after Run has returned")
	}
}

// TestTakenPort checks that the demo does not share a port with another program.
func TestTakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err = demo.Run(t.Context(), demo.Options{Listen: ln.Addr().String(), Out: new(bytes.Buffer)})
	if err == nil || !strings.Contains(err.Error(), "is in use; stop the program that uses it") || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("error = %v, want that the port is in use, and the remedy --listen", err)
	}
}

// freePort returns an address of loopback with a port that is free.
func freePort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
