//go:build abuse && linux

package abuse

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// TestAdminPort attacks the admin port from one address: with heads of 1 MB that do
// not end, with idle connections and with scrapes. A client at another address gets
// its probes answered, and the replica is not killed.
func TestAdminPort(t *testing.T) {
	long := 30 * time.Second
	if testing.Short() {
		long = 6 * time.Second
	}
	a := newArena(t, tailnet.Userspace, 128<<20, 1024)
	idle := a.box.used()
	peak := a.watchPeak(t.Context())
	ctx, stop := context.WithTimeout(t.Context(), long)
	defer stop()
	var attackers sync.WaitGroup
	var conns atomic.Int64
	for _, attack := range []struct {
		many int
		send string
	}{
		{600, "GET /readyz HTTP/1.1\r\nHost: x\r\nX-Bomb: " + strings.Repeat("b", 1<<20)},
		{2000, ""},
		{16, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"},
	} {
		for range attack.many {
			attackers.Go(func() {
				for ctx.Err() == nil {
					if a.attackAdmin(ctx, attack.send) == nil {
						conns.Add(1)
					}
				}
			})
		}
	}
	answered := a.probes(ctx, 0)
	stop()
	attackers.Wait()
	most, sockets := peak()
	t.Logf("MEASURED the admin port attacked for %v with %d connections, limit 128 MiB\n%s", long, conns.Load(), table([][2]string{
		{"memory idle / most / of it in sockets", fmt.Sprintf("%d / %d / %d MiB", idle>>20, most>>20, sockets>>20)},
		{"killed for memory", fmt.Sprint(a.box.kills())},
		{"probes: p50 / p99 / failures", answered.String()},
	}))
	if !a.alive() || a.box.kills() != 0 {
		t.Fatalf("the replica ended: alive %v, killed for memory %d times", a.alive(), a.box.kills())
	}
	if len(answered.failures) != 0 || len(answered.times) == 0 {
		t.Errorf("%s of the probes failed, want none; the first: %v", answered.String(), append(answered.failures, nil)[0])
	}
}

// probes asks for each path that everybody gets, again and again with a pause between,
// until ctx ends.
func (a *arena) probes(ctx context.Context, between time.Duration) *answers {
	s := &answers{}
	for ctx.Err() == nil && a.alive() {
		for _, path := range []string{"/livez", "/readyz", "/metrics"} {
			begin := time.Now()
			if err := a.probe(path); err != nil {
				s.failures = append(s.failures, fmt.Errorf("GET %s after %v: %w", path, time.Since(begin), err))
				continue
			}
			s.times = append(s.times, time.Since(begin))
		}
		flow.Sleep(ctx.Done(), between)
	}
	return s
}

// attackAdmin opens a connection to the admin port, sends what the attack sends, and
// waits for the end of the connection, or of ctx.
func (a *arena) attackAdmin(ctx context.Context, send string) error {
	c, err := dialAdmin(ctx, a.admin, "127.0.1.9")
	if err != nil {
		flow.Sleep(ctx.Done(), 100*time.Millisecond)
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	io.WriteString(c, send)
	io.Copy(io.Discard, c)
	flow.Sleep(ctx.Done(), time.Second) // leave the processor to the replica
	return nil
}

// probe asks for path as the kubelet does, on a connection of its own.
func (a *arena) probe(path string) error {
	client := http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				return dialAdmin(ctx, addr, "127.0.1.10")
			},
		},
	}
	resp, err := client.Get("http://" + a.admin + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s, want 200", resp.Status)
	}
	return nil
}

func dialAdmin(ctx context.Context, addr, from string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return d.DialContext(ctx, "tcp", addr)
}
