package gateway_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestAbuse(t *testing.T) { userspaceAlone(t, ownTailnet, abuse) }

// abuse checks that bad or broken clients cost little memory, and that good
// clients are answered meanwhile. The numbers are printed.
func abuse(t *testing.T, w *world) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	many := 9000
	if most := int(min(l.Max, 1<<20))/2 - 500; most < many {
		many = most
		t.Logf("THE LIMIT OF OPEN FILES, %d, allows %d connections alone", l.Max, many)
	}
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Limits = config.Limits{Dials: c.Limits.Dials, Memory: 8192} // one client plays all of them
		// Slower than the slowest machine opens what must be open at the same time.
		c.HTTP.IdleTimeout = config.Duration(time.Hour)
		c.HTTP.HeaderTimeout = config.Duration(time.Hour)
		c.HTTP.BodyTimeout = config.Duration(time.Hour)
	})
	get := func() (time.Duration, error) {
		begin := time.Now()
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(readTime))
		fmt.Fprintf(c, "GET http://%s/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", w.origin.host)
		b, err := io.ReadAll(c)
		if err == nil && !strings.HasPrefix(string(b), "HTTP/1.1 200 ") {
			err = fmt.Errorf("%.80q", b)
		}
		return time.Since(begin), err
	}
	if _, err := get(); err != nil {
		t.Fatal(err)
	}
	r.raw(t) // says nothing for as long as the rest takes
	// The clients are in this process too, and so are the origin and its tailnet
	// node: the figures are those of all of them.
	for _, c := range []struct {
		name string
		n    int
		most float64 // KiB each
		open func(c net.Conn)
	}{
		{"silent", 2000, 8, func(net.Conn) {}}, // each is ended after 10 s
		{"idle_after_a_request", many, 24, func(c net.Conn) {
			io.WriteString(c, "GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
			c.Read(make([]byte, 2048))
		}},
		{"slow_head", 1000, 24, func(c net.Conn) { io.WriteString(c, "GET http://"+w.origin.host+"/ HTTP/1.1\r\nHost: x\r\nX-Slow: ") }},
		{"slow_socks_greeting", 1000, 16, func(c net.Conn) { c.Write([]byte{5, 200, 0}) }},
		{"slow_body", 300, 400, func(c net.Conn) {
			io.WriteString(c, "POST http://"+w.origin.host+"/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
		}},
		{"header_bomb", 300, 220, func(c net.Conn) {
			io.WriteString(c, "GET http://"+w.origin.host+"/ HTTP/1.1\r\nHost: x\r\nX-Bomb: "+strings.Repeat("b", 60<<10))
		}},
	} {
		before := inUse()
		conns := make([]net.Conn, c.n)
		var failed atomic.Int32
		var wg sync.WaitGroup
		for part := range 8 {
			wg.Go(func() {
				for i := part; i < c.n; i += 8 {
					conn, err := net.Dial("tcp", r.addr)
					if err != nil {
						failed.Add(1)
						continue
					}
					conns[i] = conn
					c.open(conn)
				}
			})
		}
		wg.Wait()
		if n := failed.Load(); n > 0 {
			t.Errorf("%s: %d of %d could not connect", c.name, n, c.n)
		}
		testkit.Eventually(t, c.name+" to be inside", func() bool { return value(t, r, "pando_connections") >= float64(c.n) })
		each := (inUse() - before) / float64(c.n)
		var slowest time.Duration
		for range 20 {
			took, err := get()
			if err != nil {
				t.Errorf("%s: another client: %v", c.name, err)
			}
			slowest = max(slowest, took)
		}
		t.Logf("MEASURED %s: %d connections, %.1f KiB each, clients and origin included; 20 other clients were served, the slowest in %v", c.name, c.n, each, slowest.Round(time.Millisecond))
		if each > c.most {
			t.Errorf("%s: %.1f KiB each, want at most %.0f", c.name, each, c.most)
		}
		for _, conn := range conns {
			if conn != nil {
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
		}
		testkit.Eventually(t, c.name+" to be gone", func() bool { return value(t, r, "pando_connections") <= 2 })
	}
	testkit.Eventually(t, "the silent client to be counted", func() bool { return value(t, r, `pando_limit_refusals_total{limit="first_byte"}`) >= 1 })
	if _, err := get(); err != nil {
		t.Errorf("after it all: %v", err)
	}
}

// inUse is the memory that is really in use, in KiB. It is the least of some
// readings: data on its way through the nodes only adds to them.
func inUse() float64 {
	least := math.Inf(1)
	for range 6 { // pools are emptied at the second one, stacks shrink
		debug.FreeOSMemory()
		time.Sleep(50 * time.Millisecond) // nothing shows when the collector has ended
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		least = min(least, float64(m.HeapAlloc+m.StackInuse)/(1<<10))
	}
	return least
}

func TestResets(t *testing.T) { eachMode(t, sharedTailnet, resets) }

// resets checks that clients which reset their connections, in every state and
// from every front of the proxy port, leave nothing behind.
func resets(t *testing.T, w *world) {
	r := w.start(t, withAdmin)
	target := w.cloud.Serve(func(c net.Conn) {
		io.Copy(c, c)
		c.Close()
	})
	scripts := []string{
		"GET http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"CONNECT " + target.String() + " HTTP/1.1\r\nHost: x\r\n\r\nhello",
		"\x05\x01\x00\x05\x01\x00\x01" + string(target.Addr().AsSlice()) + string([]byte{byte(target.Port() >> 8), byte(target.Port())}) + "hello",
	}
	const rounds = 400
	var wg sync.WaitGroup
	for part := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(part), 1))
			for range rounds / 8 {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				script := scripts[rng.IntN(len(scripts))]
				io.WriteString(c, script[:rng.IntN(len(script)+1)])
				if rng.IntN(2) == 0 { // some reset at once, some after the request went its way
					time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond) // the pace of a client
				}
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		})
	}
	wg.Wait()
	testkit.Eventually(t, "the resets to be over", func() bool { m := scrape(t, r); return m["pando_connections"] == 0 && m["pando_tunnels"] == 0 })
	t.Logf("MEASURED %d resets in every state: nothing is left of them", rounds)
}

// badHello is a TLS client whose ClientHello is never complete.
type badHello struct {
	name string
	most float64 // KiB for each such connection
	send func(c net.Conn)
}

// badHellos returns all kinds of them. Their senders end with the connection, or
// when they have sent what they have.
func badHellos() []badHello {
	part := append([]byte{22, 3, 1, 0, 100}, make([]byte, 100)...) // a record of a hello whose rest is missing
	huge := append([]byte{22, 3, 1, 0, 4, 1, 0, 120, 0}, bytes.Repeat(part, 300)...)
	return []badHello{
		{"hello_that_stops", 40, func(c net.Conn) { c.Write(part[:1]) }},
		{"hello_byte_by_byte", 72, func(c net.Conn) {
			go func() {
				for i := range len(part) - 1 {
					if _, err := c.Write(part[i : i+1]); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond) // the pace of a slow client
				}
			}()
		}},
		{"huge_hello_in_fragments", 220, func(c net.Conn) { c.Write(huge) }},
	}
}

// startSNI runs a replica with an SNI port, and returns the port.
func (w *world) startSNI(t *testing.T, headerTimeout time.Duration) (r *replica, port string) {
	t.Helper()
	port = testkit.FreePorts(t, 1)[0]
	r = w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Limits.PerClient = 0
		c.HTTP.HeaderTimeout = config.Duration(headerTimeout)
		c.SNI = []config.FrontPort{{Listen: port}}
	})
	return r, port
}

// getPage gets a page through the SNI port, and returns how long that took.
func (w *world) getPage(t *testing.T, port string) time.Duration {
	t.Helper()
	begin := time.Now()
	p := w.securePage(t, port)
	p.ask(testnet.APIName, "/")
	p.answer(t, 200)
	p.conn.Close()
	return time.Since(begin)
}

func TestIncompleteHellos(t *testing.T) { userspaceAlone(t, ownTailnet, hellos) }

// hellos checks that incomplete hellos, all at the same time, cost little memory,
// and that other clients of the port are served meanwhile. (Clients that send
// nothing at all are a matter of the mux, at every port.)
func hellos(t *testing.T, w *world) {
	const n = 300
	r, port := w.startSNI(t, time.Hour) // none may end before all are measured
	w.getPage(t, port)
	inside := 0
	for _, hello := range badHellos() {
		before := inUse()
		for range n {
			hello.send(dialPort(t, port))
		}
		inside += n
		testkit.Eventually(t, hello.name+" to be inside", func() bool { return value(t, r, "pando_connections") >= float64(inside) })
		each := (inUse() - before) / n
		t.Logf("MEASURED %s: %d connections, %.1f KiB each, clients included", hello.name, n, each)
		if each > hello.most {
			t.Errorf("%s: %.1f KiB each, want at most %.0f", hello.name, each, hello.most)
		}
	}
	var slowest time.Duration
	for range 20 {
		slowest = max(slowest, w.getPage(t, port))
	}
	t.Logf("MEASURED with %d such hellos inside: 20 other clients of their port were served, the slowest in %v", inside, slowest.Round(time.Millisecond))
}

func TestIncompleteHellosEnd(t *testing.T) { userspace(t, sharedTailnet, hellosEnd) }

// hellosEnd checks that incomplete hellos end with http.headerTimeout, whatever
// they send, and that each has a flow line of class timeout.
func hellosEnd(t *testing.T, w *world) {
	const n = 20
	r, port := w.startSNI(t, 2*time.Second)
	var conns []net.Conn
	for _, hello := range badHellos() {
		for range n {
			c := dialPort(t, port)
			hello.send(c)
			conns = append(conns, c)
		}
	}
	for _, c := range conns {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a client was not closed within %v", readTime)
		}
	}
	testkit.Eventually(t, "all hellos to be counted", func() bool {
		m := scrape(t, r)
		return m["pando_connections"] == 0 && m[`pando_flows_total{class="timeout",front="sni"}`] == float64(len(conns))
	})
}
