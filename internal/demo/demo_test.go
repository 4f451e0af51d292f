package demo_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/demo"
	"github.com/pandoproxy/pando/internal/testnet"
)

// The tour holds, on any free port, and says what it promises. With Stay the
// fleet works on until its context ends. (That the demo ends by itself without,
// TestStaysOnLoopback sees.)
func TestTour(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	listen, out, ended := freePort(t), new(told), make(chan error, 1)
	go func() { ended <- demo.Run(ctx, demo.Options{Listen: listen, Out: out, Stay: true}) }()
	for !strings.Contains(out.String(), "The fleet stays up.") {
		select {
		case err := <-ended:
			t.Fatalf("it did not stay: %v\n%s", err, out)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Logf("the tour:\n%s", out)
	for _, want := range []string{"pando-0", "pando-1", "pando-2", "TLS verified", "queries", "drained under load", "killed under load", "Every step held", "Try it from another terminal", "curl --cacert", "Ctrl-C"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tour does not say %q", want)
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
			t.Errorf("after the tour: %s", resp.Status)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("it ended by itself: %v", err)
	default:
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Ctrl-C: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Ctrl-C did not end it")
	}
	if c, err := net.Dial("tcp", listen); err == nil {
		c.Close()
		t.Error("the fleet's port is open still")
	}
}

// told is what the demo has said so far.
type told struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *told) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *told) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func TestTakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err = demo.Run(t.Context(), demo.Options{Listen: ln.Addr().String(), Out: new(bytes.Buffer)})
	if err == nil || !strings.Contains(err.Error(), "is in use; stop what uses it") || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("err = %v, want what is wrong and what would help", err)
	}
}

func freePort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
