package gateway_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestLimits(t *testing.T) { eachMode(t, ownTailnet, limits) }

func limits(t *testing.T, w *world) {
	silent := w.cloud.Serve(func(c net.Conn) {
		io.Copy(io.Discard, c)
		c.Close()
	})
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Limits = config.Limits{Connections: 3, PerClient: 2, Dials: 1}
	})
	open := func() net.Conn { c, _ := r.connectTo(t, silent.String(), ""); return c }
	first := open()
	second := open()
	// The third of this client: in HTTP, whatever it asks, and in SOCKS5.
	c := r.raw(t)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", silent)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(resp.Header.Get("Proxy-Status"), "error=connection_limit_reached") {
		t.Errorf("the third connection: %v, %v", resp, err)
	}
	c = r.raw(t)
	c.Write([]byte{5, 1, 0})
	expect(t, c, []byte{5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0})
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("SOCKS5, after the reply: %q, %v; want the end", b, err)
	}
	// Another client is served, until there is no room at all.
	other := func() net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		c, err := d.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(readTime))
		return c
	}
	ask := func(c net.Conn) int {
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", silent)
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "CONNECT"})
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	if a, b := ask(other()), ask(other()); a != 200 || b != 503 {
		t.Errorf("another client: %d, %d; want 200, 503", a, b)
	}
	m := scrape(t, r)
	if m[`pando_limit_refusals_total{limit="per_client"}`] != 2 || m[`pando_limit_refusals_total{limit="connections"}`] != 1 || m["pando_connections"] != 3 || m["pando_clients"] != 2 {
		t.Errorf("metrics: %v", m)
	}
	// A client that leaves makes room.
	first.Close()
	testkit.Eventually(t, "room for one", func() bool { return value(t, r, "pando_connections") == 2 })
	first = open()
	first.Close()
	second.Close()
	testkit.Eventually(t, "room for two", func() bool { return value(t, r, "pando_connections") == 1 })

	// One dial at a time: a second one gets 503.
	fmt.Fprintf(r.raw(t), "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", w.deadTarget(t, r))
	testkit.Eventually(t, "a dial", func() bool { return value(t, r, "pando_dials") == 1 })
	if code := ask(other()); code != 503 {
		t.Errorf("a second dial: %d", code)
	}
	if f := r.flows.find(t, silent.String()); f["class"] != "ok" && f["class"] != "canceled" {
		t.Errorf("flow line %v, want class ok or canceled", f)
	}
}

func TestTransparentLimits(t *testing.T) { userspace(t, sharedTailnet, transparentLimits) }

// transparentLimits checks that clients without a proxy setting are counted, and
// refused each in its own protocol.
func transparentLimits(t *testing.T, w *world) {
	o := w.origin
	host := w.origin.host
	f := newFronts(t)
	pipe := w.countBytes()
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		f.serve(c, pipe)
		c.Limits = config.Limits{Connections: 3}
	})
	secure, busy, tunnel := f.open(t, w)
	moves := func(what string, want map[string]float64) {
		t.Helper()
		testkit.Eventually(t, what, func() bool {
			m := scrape(t, r)
			for name, v := range want {
				if m[name] != v {
					return false
				}
			}
			return true
		})
	}
	active := func(n float64) map[string]float64 {
		return map[string]float64{`pando_flows_active{front="sni"}`: n, `pando_flows_active{front="web"}`: n, `pando_flows_active{front="forward"}`: n, "pando_connections": 3 * n}
	}
	moves("one flow of each front", active(1))

	late := tls.Client(dialPort(t, f.sni), &tls.Config{ServerName: testnet.APIName})
	if err := late.Handshake(); err == nil || !strings.Contains(err.Error(), "user canceled") {
		t.Errorf("sni, over the limit: %v", err)
	}
	refused := plainPage(t, f.web)
	refused.ask(host, "/echo")
	if resp, _ := refused.answer(t, 503); resp.Header.Get("Retry-After") == "" || !resp.Close {
		t.Errorf("web, over the limit: %v", resp)
	}
	c, err := net.Dial("tcp", f.forward) // a reset may come before Dial has returned
	if err == nil {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("forward, over the limit: %v, want a reset", err)
	}
	moves("the refusals to be counted", map[string]float64{
		`pando_limit_refusals_total{limit="connections"}`:       3,
		`pando_flows_total{class="overloaded",front="sni"}`:     1,
		`pando_flows_total{class="overloaded",front="web"}`:     1,
		`pando_flows_total{class="overloaded",front="forward"}`: 1,
	})

	close(o.hold)
	busy.answer(t, 200)
	busy.conn.Close()
	secure.conn.Close()
	counted(t, tunnel, 5)
	moves("the good ones to be counted", map[string]float64{
		`pando_flows_total{class="ok",front="sni"}`:     1,
		`pando_flows_total{class="ok",front="web"}`:     1,
		`pando_flows_total{class="ok",front="forward"}`: 1,
	})
	moves("room", active(0))
	again := w.securePage(t, f.sni)
	again.ask(testnet.APIName, "/")
	again.answer(t, 200)
}

// deadTarget returns an address that a peer carries and where nothing answers. It
// needs a tailnet of the test's own.
func (w *world) deadTarget(t *testing.T, r *replica) netip.AddrPort {
	t.Helper()
	const name = "gone"
	gone, err := w.net.StartCloud(testkit.Within(t, 20*time.Second), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort("10.77.0.1:80")
	if err := w.net.ApproveRoutes(name, netip.MustParsePrefix("10.77.0.0/16")); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the route to the dead target", func() bool { return r.gw.Device().Routes(dead.Addr()) })
	gone.Close()
	t.Cleanup(func() { w.net.ApproveRoutes(name) }) // it must not be waited for
	return dead
}

func TestSlowAndHeavyRequests(t *testing.T) { userspace(t, sharedTailnet, slowAndHeavy) }

// slowAndHeavy checks heads and bodies that stop in the middle, or are too large.
func slowAndHeavy(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.HTTP.HeaderTimeout = config.Duration(300 * time.Millisecond)
		c.HTTP.BodyTimeout = config.Duration(300 * time.Millisecond)
		c.HTTP.MaxHeaders = 20
		c.HTTP.MaxHeaderBytes = 4096
	})
	for _, c := range []struct{ name, send, want string }{
		{"head_that_stops", "GET http://" + w.origin.host + "/echo HTTP/1.1\r\nHost", "HTTP/1.1 408 "},
		{"body_that_stops", "POST http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", "HTTP/1.1 408 "},
		{"chunk_that_stops", "POST http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "HTTP/1.1 408 "},
		{"many_fields", "GET http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 20) + "\r\n", "HTTP/1.1 431 "},
		{"as_many_as_may", "GET http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 18) + "Connection: close\r\n\r\n", "HTTP/1.1 200 "},
		{"large_fields", "GET http://" + w.origin.host + "/echo HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("b", 5000) + "\r\n\r\n", "HTTP/1.1 431 "},
	} {
		begin := time.Now()
		conn := r.raw(t)
		io.WriteString(conn, c.send)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if !strings.HasPrefix(line, c.want) {
			t.Errorf("%s: got %q, %v; want %s", c.name, line, err, c.want)
		}
		io.Copy(io.Discard, conn)
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("%s took %v, want less than 30 s", c.name, took)
		}
	}
	if f := r.flows.matching(w.origin.host); len(f) != 3 { // the others asked for nothing that could be read
		t.Errorf("flow lines %v", f)
	}
}

func TestIdleTunnel(t *testing.T) { eachMode(t, sharedTailnet, idleTunnel) }

func idleTunnel(t *testing.T, w *world) {
	target := w.countBytes()
	// A busy machine may stop a client that is at work, for less than this.
	const idleTimeout = 2 * time.Second
	r := w.start(t, func(c *config.Config) { c.Tunnel.IdleTimeout = config.Duration(idleTimeout) })
	begin := time.Now()
	busy, br := r.connectTo(t, target, "")
	_, idle := r.connectTo(t, target, "x")
	gone := make(chan error, 1)
	go func() { _, err := io.ReadAll(idle); gone <- err }()
	for len(gone) == 0 {
		if _, err := busy.Write([]byte("x")); err != nil {
			t.Fatalf("the busy one: %v", err)
		}
		time.Sleep(20 * time.Millisecond) // the pace of what is busy
		if time.Since(begin) > readTime {
			t.Fatal("the idle tunnel did not end")
		}
	}
	if err := <-gone; err == nil {
		t.Error("the idle one ended cleanly")
	}
	if f := r.flows.find(t, target); f["class"] != "idle" || !strings.Contains(f["hint"].(string), "tunnel.idleTimeout") {
		t.Errorf("the idle tunnel: flow line %v, want class idle and the setting in its hint", f)
	}
	busy.CloseWrite()
	if _, err := io.ReadAll(br); err != nil {
		t.Errorf("the busy one: %v", err)
	}
	// A slow upload is not idle, though its origin sends nothing.
	origin := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			n, _ := io.Copy(io.Discard, req.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%d", n)
		}
	}))
	upload := r.raw(t)
	fmt.Fprintf(upload, "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\nConnection: close\r\n\r\n", origin)
	for range 20 {
		io.WriteString(upload, "x")
		time.Sleep(idleTimeout * 3 / 2 / 20) // the pace of a slow upload
	}
	if b, err := io.ReadAll(upload); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 ") || !strings.Contains(string(b), "\r\n20\r\n") {
		t.Errorf("a slow upload got %q, %v; want 200 and 20 bytes counted", b, err)
	}
}

func TestIdleTunnelInADrain(t *testing.T) { eachMode(t, sharedTailnet, idleInDrain) }

// idleInDrain checks that a drain does not wait for a tunnel that is idle.
func idleInDrain(t *testing.T, w *world) {
	target := w.countBytes()
	r := w.start(t, func(c *config.Config) {
		c.Tunnel.IdleTimeout = config.Duration(400 * time.Millisecond)
		c.Drain.Timeout = config.Duration(time.Minute)
	})
	r.connectTo(t, target, "x")
	r.drain()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	checkFlow(t, "the idle tunnel", r.flows.find(t, target), fields{"class": "idle"})
}

func TestRouteThatGoesAway(t *testing.T) { eachMode(t, ownTailnet, routeGone) }

// routeGone checks a tunnel whose target loses its route: it ends in seconds, and
// its flow line says why.
func routeGone(t *testing.T, w *world) {
	target := w.countBytes()
	r := w.start(t, func(c *config.Config) { c.Tunnel.PeerTimeout = config.Duration(4 * time.Second) })
	tunnel, br := r.connectTo(t, target, "")
	if err := w.net.ApproveRoutes("cloud"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the route to go", func() bool { return !r.gw.Device().Routes(testnet.APIAddr) })
	begin := time.Now()
	io.WriteString(tunnel, "lost")
	if _, err := io.ReadAll(br); err == nil {
		t.Error("it ended cleanly")
	}
	f := r.flows.find(t, target)
	t.Logf("ended %v after the route went: %v; %v", time.Since(begin).Round(100*time.Millisecond), f["err"], f["hint"])
	// The kernel remembers, sometimes, that its route went.
	if f["class"] != "timeout" && !(w.mode == tailnet.Kernel && f["class"] == "unreachable") || !strings.Contains(fmt.Sprint(f["err"]), "no peer routes it any more") || time.Since(begin) > 30*time.Second {
		t.Errorf("flow line %v after %v; want class timeout and the lost route in its error", f, time.Since(begin))
	}
}
