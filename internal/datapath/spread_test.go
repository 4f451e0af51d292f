package datapath

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"syscall"
	"testing"
)

// TestSpreadOverFronts checks through every front that new connections to a name with two
// addresses take turns over them while the answer is kept, and that an address which
// refuses gets fewer, without an error for any client.
func TestSpreadOverFronts(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close") // each request needs a new connection
		io.WriteString(w, "hello")
	})
	plain := httptest.NewServer(handler)
	defer plain.Close()
	secure := httptest.NewTLSServer(handler)
	defer secure.Close()
	ways := map[string]func(t *testing.T, l lab) net.Conn{
		"http": func(t *testing.T, l lab) net.Conn { return dialLab(t, l.proxy) },
		"web":  func(t *testing.T, l lab) net.Conn { return dialLab(t, l.web) },
		"sni":  func(t *testing.T, l lab) net.Conn { return overTLS(t, bySNI, l, "http/1.1") },
	}
	for _, w := range tunnels {
		ways[w.name] = func(t *testing.T, l lab) net.Conn { return w.open(t, l) }
	}
	for name, open := range ways {
		for _, refuses := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/refuses_%v", name, refuses), func(t *testing.T) {
				origin := plain.Listener.Addr().String()
				if name == "sni" {
					origin = secure.Listener.Addr().String()
				}
				var mu sync.Mutex
				dials := map[netip.Addr]int{}
				l := newLabOf(t, nil, func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
					mu.Lock()
					dials[a.Addr()]++
					mu.Unlock()
					if refuses && a.Addr() == netip.MustParseAddr("10.0.0.2") {
						return nil, syscall.ECONNREFUSED
					}
					return (&net.Dialer{}).DialContext(ctx, "tcp", origin)
				}, "10.0.0.1", "10.0.0.2")
				const n = 40
				for range n {
					get(t, open(t, l), name == "http")
				}
				first := dials[netip.MustParseAddr("10.0.0.1")]
				second := dials[netip.MustParseAddr("10.0.0.2")]
				switch {
				case !refuses && (first != n/2 || second != n/2):
					t.Errorf("%d and %d of %d connections, want half each", first, second, n)
				case refuses && (first != n || second == 0 || second > n/4): // one in ten seconds
					t.Errorf("%d dials to the address that answers and %d to the other, want %d, and a few", first, second, n)
				}
			})
		}
	}
}

// get requests a page over c, and closes c.
func get(t *testing.T, c net.Conn, absolute bool) {
	t.Helper()
	defer c.Close()
	uri := "/"
	if absolute {
		uri = "http://" + labHost + "/"
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", uri, labHost); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(body) != "hello" {
		t.Fatalf("got %s, %q, %v; want the page", resp.Status, body, err)
	}
	if tc, ok := c.(*tls.Conn); ok {
		tc.CloseWrite()
	}
}
