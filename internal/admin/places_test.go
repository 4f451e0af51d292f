package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// from connects to addr from an address of loopback.
func from(t *testing.T, client, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// isEnded reports whether the server has ended c, which gets no other bytes.
func isEnded(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// numbers returns how many connections are open and ending.
func (p *places) numbers() (open, ending int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open), len(p.ending)
}

// TestOldestOfClient checks that a client with all its connections gets another one,
// at the price of the one longest in its state, and that others keep theirs.
func TestOldestOfClient(t *testing.T) {
	s := newServer()
	addr := serve(t, s)
	other := from(t, "127.0.0.3", addr)
	var conns []net.Conn
	for i := range mostOfClient {
		conns = append(conns, from(t, "127.0.0.2", addr))
		testkit.Eventually(t, "the connection", func() bool { n, _ := s.places.numbers(); return n == i+2 })
	}
	// After an answer the first connection is idle, which is newer than all others.
	fmt.Fprint(conns[0], "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := io.ReadFull(conns[0], make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the first connection to be idle", func() bool {
		s.places.mu.Lock()
		defer s.places.mu.Unlock()
		last := s.places.open[len(s.places.open)-1]
		return last.conn.RemoteAddr().String() == conns[0].LocalAddr().String()
	})
	if code, body := ask(t, from(t, "127.0.0.2", addr), "GET", "/readyz"); code != 200 {
		t.Errorf("GET /readyz on one connection more: %d %s, want 200", code, body)
	}
	testkit.Eventually(t, "the oldest to be closed", func() bool { return isEnded(conns[1]) })
	for i, c := range append(conns[2:], other) {
		if isEnded(c) {
			t.Errorf("connection %d was closed, want the oldest alone", i)
		}
	}
}

// TestOldestOfAll checks that when clients with one connection each have taken all
// places, the oldest of them makes room.
func TestOldestOfAll(t *testing.T) {
	s := newServer()
	addr := serve(t, s)
	var conns []net.Conn
	for i := range mostConns {
		conns = append(conns, from(t, fmt.Sprintf("127.0.4.%d", i+1), addr))
		testkit.Eventually(t, "the connection", func() bool { n, _ := s.places.numbers(); return n == i+1 })
	}
	if code, body := ask(t, from(t, "127.0.0.3", addr), "GET", "/readyz"); code != 200 {
		t.Errorf("GET /readyz on one connection more: %d %s, want 200", code, body)
	}
	testkit.Eventually(t, "the oldest to be closed", func() bool { return isEnded(conns[0]) })
	if isEnded(conns[1]) {
		t.Error("a second connection was closed, want the oldest alone")
	}
}

// TestProbesGetIn attacks the port from one address, with heads of 1 MB that do not
// end and with thousands of idle connections. A client at another address gets every
// probe answered. Connections and memory stay bounded.
func TestProbesGetIn(t *testing.T) {
	s := newServer()
	addr := serve(t, s)
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	head := []byte("GET /readyz HTTP/1.1\r\nHost: x\r\nX-Bomb: " + strings.Repeat("b", 1<<20))
	ctx, stop := context.WithCancel(t.Context())
	var attackers sync.WaitGroup
	var sent atomic.Int64
	attack := func(what []byte) {
		attackers.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
			for ctx.Err() == nil {
				c, err := d.DialContext(ctx, "tcp", addr)
				if err != nil {
					continue
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				c.Write(what) // the server may reset
				sent.Add(1)
				io.Copy(io.Discard, c)
				c.Close()
				time.Sleep(2 * time.Second) // leave the processor to the probes
			}
		})
	}
	for range 600 {
		attack(head)
	}
	for range 2000 {
		attack(nil)
	}
	var most, mostEnding int
	var heap uint64
	for probes := 0; probes < 20 || sent.Load() < 2600; probes++ {
		if code, body := ask(t, from(t, "127.0.0.3", addr), "GET", "/readyz"); code != 200 {
			t.Fatalf("probe %d during the attack: %d %s, want 200", probes, code, body)
		}
		open, ending := s.places.numbers()
		most = max(most, open)
		mostEnding = max(mostEnding, ending)
		runtime.ReadMemStats(&now)
		heap = max(heap, now.HeapInuse-min(before.HeapInuse, now.HeapInuse))
	}
	stop()
	attackers.Wait()
	t.Logf("MEASURED %d connections of the attacker; at most %d open and %d ending, heap at most %d MiB more, attackers included", sent.Load(), most, mostEnding, heap>>20)
	if most > mostOfClient+2 || mostEnding > mostOfClient+1 {
		t.Errorf("at most %d connections open and %d ending, want %d of one client and a probe", most, mostEnding, mostOfClient)
	}
	if heap > 100<<20 {
		t.Errorf("the heap grew by %d MiB, want less than 100", heap>>20)
	}
	testkit.Eventually(t, "all connections to end", func() bool { open, ending := s.places.numbers(); return open+ending == 0 })
}
