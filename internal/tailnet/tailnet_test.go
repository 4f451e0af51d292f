package tailnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// One list of cases for both modes.
func TestUserspace(t *testing.T) { conformance(t, tailnet.Userspace) }

func TestKernel(t *testing.T) {
	if nstest.Inside(t) {
		onlyNetAdmin(t)
		saysWhatToMount(t)
		conformance(t, tailnet.Kernel)
	}
}

func conformance(t *testing.T, mode tailnet.Mode) {
	resolvConf, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 60*time.Second)
	w := &world{mode: mode}
	if w.net, err = testnet.Start(ctx, nil); err != nil {
		t.Fatal(err)
	}
	defer w.net.Close()
	if w.cloud, err = w.net.StartCloud(ctx, "cloud", nil); err != nil {
		t.Fatal(err)
	}
	defer w.cloud.Close()
	w.timeWait.install(w.cloud.Tun())
	w.gag.install(w.cloud.Tun())
	for _, c := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"reaches_ipv4_and_ipv6", reachesBothFamilies},
		{"refuses_what_no_peer_routes", refusesUnrouted},
		{"says_refused", saysRefused},
		{"times_out", timesOut},
		{"half_closes", halfCloses},
		{"bulk_transfers_end", bulkTransfers},
		{"asks_a_private_resolver", asksPrivateResolver},
		{"wrong_key_says_why", wrongKeySaysWhy},
		{"login_that_fails_backs_off", failedLoginBacksOff},
		{"unreachable_control_says_why", unreachableControl},
		{"hostname_tags_and_ephemeral", hostnameTagsEphemeral},
		{"kept_state_keeps_the_address", keptStateKeepsAddress},
		{"control_outage_changes_nothing", controlOutage},
		{"client_inside_an_accepted_route", clientInsideRoute},
		{"nothing_leaks_when_a_route_goes", nothingLeaks},
		{"two_nodes_in_one_namespace", twoNodes},
		{"killed_predecessor_leaves_no_rules", killedPredecessor},
		{"fresh_source_port", freshSourcePort},
		{"aborted_ports_rest", abortedPortsRest},
		{"ports_count_per_target", portsCountPerTarget},
		{"waits_for_a_route_that_comes_back", routeComesBack},
		{"routes_can_be_ignored", routesIgnored},
		{"router_that_vanishes", routerVanishes},
		{"starts_from_a_cached_network_map", cachedNetmap},
		{"expired_key_logs_in_again", expiredKey},
		{"stored_preferences_are_the_stock_containers", plainPreferences},
		{"lost_session_is_mended", lostSession},
		{"lost_session_is_begun_by_the_peer", peerBeginsSession},
		{"busy_session_is_left_alone", busySession},
		{"outage_is_over_when_it_is_over", outageEnds},
		{"closes_with_2000_tunnels", closesWithTunnels},
		{"leaves_nothing_behind", leavesNothing},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, w) })
	}
	if now, err := os.ReadFile("/etc/resolv.conf"); err != nil || string(now) != string(resolvConf) {
		t.Errorf("/etc/resolv.conf changed: %v\n%s", err, now)
	}
}

func reachesBothFamilies(t *testing.T, w *world) {
	n := w.join(t, "both", tailnet.Options{})
	for _, a := range []netip.Addr{testnet.APIAddr, testnet.APIAddr6} {
		c := dial(t, n, netip.AddrPortFrom(a, 80))
		if w.mode == tailnet.Kernel {
			if _, ok := c.(*net.TCPConn); !ok {
				t.Errorf("kernel mode gave a %T, want a bare *net.TCPConn", c)
			}
		}
		io.WriteString(c, "GET /x HTTP/1.0\r\nHost: api\r\n\r\n")
		b, err := io.ReadAll(c)
		if err != nil || !strings.Contains(string(b), `"private-api"`) {
			t.Errorf("%v answered %q, %v", a, b, err)
		}
		own := n.Addrs()[0]
		if a.Is6() {
			own = n.Addrs()[1]
		}
		if !strings.Contains(string(b), `"device":"`+own.String()+`"`) {
			t.Errorf("the API saw another address than %v: %s", own, b)
		}
	}
}

func refusesUnrouted(t *testing.T, w *world) {
	n := w.join(t, "unrouted", tailnet.Options{})
	// Something listens there, so a dial that fell out to the host's network
	// would succeed.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	own := netip.AddrPortFrom(n.Addrs()[0], 80)
	for _, a := range []netip.AddrPort{ln.Addr().(*net.TCPAddr).AddrPort(), netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("[2001:db8::1]:80"), own} {
		if c, err := n.DialTCP(within(t, 5*time.Second), a); !errors.Is(err, tailnet.ErrNoRoute) {
			t.Errorf("dial %v: %v, %v; want ErrNoRoute", a, c, err)
		}
		if c, err := n.DialUDP(within(t, 5*time.Second), a); !errors.Is(err, tailnet.ErrNoRoute) {
			t.Errorf("dial UDP %v: %v, %v; want ErrNoRoute", a, c, err)
		}
	}
}

func saysRefused(t *testing.T, w *world) {
	n := w.join(t, "refused", tailnet.Options{})
	_, err := n.DialTCP(within(t, 5*time.Second), netip.AddrPortFrom(testnet.APIAddr, 81))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("err = %v, want ECONNREFUSED", err)
	}
}

func timesOut(t *testing.T, w *world) {
	n := w.join(t, "timeout", tailnet.Options{})
	gone, err := w.net.StartCloud(within(t, 20*time.Second), "gone", nil)
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddr("10.77.0.1")
	if err := w.net.ApproveRoutes("gone", netip.MustParsePrefix("10.77.0.0/16")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the route", func() bool { return n.Routes(dead) })
	gone.Close()
	defer w.net.ApproveRoutes("gone") // it must not be waited for
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = n.DialTCP(ctx, netip.AddrPortFrom(dead, 80))
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Errorf("err = %v, want a timeout", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the dial took %v, with a deadline of 500ms", d)
	}
}

// halfCloses ends each direction on its own, from either side first.
func halfCloses(t *testing.T, w *world) {
	n := w.join(t, "halfclose", tailnet.Options{})
	addr := netip.AddrPortFrom(testnet.APIAddr, 7001)
	w.cloud.Handle(addr, func(c net.Conn) {
		defer c.Close()
		b, _ := io.ReadAll(c) // until the client's end
		fmt.Fprintf(c, "got %d", len(b))
	})
	c := dial(t, n, addr)
	io.WriteString(c, strings.Repeat("x", 100_000))
	closeWrite(t, c)
	if b, err := io.ReadAll(c); err != nil || string(b) != "got 100000" {
		t.Errorf("client's end first: %q, %v", b, err)
	}

	addr = netip.AddrPortFrom(testnet.APIAddr, 7002)
	got := make(chan int, 1)
	w.cloud.Handle(addr, func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "bye")
		c.(interface{ CloseWrite() error }).CloseWrite()
		b, _ := io.ReadAll(c)
		got <- len(b)
	})
	c = dial(t, n, addr)
	if b, err := io.ReadAll(c); err != nil || string(b) != "bye" {
		t.Errorf("target's end first: %q, %v", b, err)
	}
	io.WriteString(c, strings.Repeat("y", 100_000))
	closeWrite(t, c)
	select {
	case b := <-got:
		if b != 100_000 {
			t.Errorf("the target got %d bytes after its own end, want 100000", b)
		}
	case <-time.After(10 * time.Second):
		t.Error("the target never saw the client's end")
	}
}

func asksPrivateResolver(t *testing.T, w *world) {
	n := w.join(t, "dns", tailnet.Options{})
	for _, network := range []string{"udp", "tcp"} {
		var c net.Conn
		var err error
		if network == "udp" {
			c, err = n.DialUDP(within(t, 5*time.Second), netip.AddrPortFrom(testnet.DNSAddr, 53))
		} else {
			c, err = n.DialTCP(within(t, 5*time.Second), netip.AddrPortFrom(testnet.DNSAddr, 53))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		q := new(dns.Msg).SetQuestion(testnet.APIName+".", dns.TypeA)
		client := dns.Client{Net: network}
		r, _, err := client.ExchangeWithConnContext(within(t, 5*time.Second), q, &dns.Conn{Conn: c})
		if err != nil || len(r.Answer) != 1 || !strings.Contains(r.Answer[0].String(), testnet.APIAddr.String()) {
			t.Errorf("%s: %v, %v", network, r, err)
		}
	}
}

func wrongKeySaysWhy(t *testing.T, w *world) {
	n, err := tailnet.Start(t.Context(), tailnet.Options{Mode: w.mode, Hostname: "wrong", ControlURL: w.net.URL(), AuthKey: "tskey-auth-wrong"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err = n.Wait(ctx)
	if !errors.Is(err, tailnet.ErrNotUp) || !strings.Contains(err.Error(), "invalid authkey") {
		t.Errorf("Wait said %v, want ErrNotUp and the server's reason", err)
	}
	if _, err := n.DialTCP(t.Context(), netip.AddrPortFrom(testnet.APIAddr, 80)); !errors.Is(err, tailnet.ErrNotUp) {
		t.Errorf("dial said %v, want ErrNotUp", err)
	}
	if strings.Contains(fmt.Sprint(err), "tskey-auth-wrong") {
		t.Error("the error shows the auth key")
	}
}

// failedLoginBacksOff counts how often a login is tried that can't succeed, and what
// is said of it.
func failedLoginBacksOff(t *testing.T, w *world) {
	var said lockedBuffer
	wrong := func(context.Context) (string, error) { return "tskey-auth-wrong", nil }
	n, err := tailnet.Start(t.Context(), tailnet.Options{
		Mode: w.mode, Hostname: "refused", ControlURL: w.net.URL(), AuthKey: "tskey-auth-wrong", NextKey: wrong, TUNName: "refused0",
		Logger: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	// At once with both keys, and then after 1 s, 3 s and 7 s.
	eventually(t, "the fourth try again", func() bool { return strings.Contains(said.String(), "retry_in=8s") })
	var lines []string
	for line := range strings.Lines(said.String()) {
		if strings.Contains(line, "level=WARN") {
			lines = append(lines, line)
		}
	}
	tries := strings.Count(said.String(), "Received error: ")
	t.Logf("%d tries, %d lines: %s", tries, len(lines), strings.Join(lines, ""))
	if tries < 5 || tries > 15 || len(lines) != 4 {
		t.Errorf("%d tries, %d lines: want 5, or a few more of the engine's, and 4 lines", tries, len(lines))
	}
	for _, line := range lines {
		if !strings.Contains(line, "invalid authkey") || !strings.Contains(line, "retry_in=") {
			t.Errorf("it does not say why, and when again: %s", line)
		}
	}
}

// unreachableControl names a control server that is not there.
func unreachableControl(t *testing.T, w *world) {
	var said lockedBuffer
	n, err := tailnet.Start(t.Context(), tailnet.Options{
		Mode: w.mode, Hostname: "alone", ControlURL: "http://127.0.0.1:1", AuthKey: testnet.AuthKey, TUNName: "alone0",
		Logger: slog.New(slog.NewTextHandler(&said, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	const why = "127.0.0.1:1: connect: connection refused"
	eventually(t, "the reason in the log", func() bool { return strings.Contains(said.String(), why) })
	if err := n.Err(); !errors.Is(err, tailnet.ErrNotUp) || !strings.Contains(err.Error(), why) {
		t.Errorf("Err says %v", err)
	}
	t.Log(said.String())
}

func hostnameTagsEphemeral(t *testing.T, w *world) {
	n := w.join(t, "tagged", tailnet.Options{Tags: []string{"tag:k8s", "tag:egress"}, Ephemeral: true})
	if n.Name() != "tagged."+testnet.MagicSuffix {
		t.Errorf("the node is called %q", n.Name())
	}
	i := slices.IndexFunc(w.net.Devices(), func(d testnet.Device) bool { return d.Name == "tagged" })
	if i < 0 || !slices.Equal(w.net.Devices()[i].Tags, []string{"tag:k8s", "tag:egress"}) {
		t.Errorf("the control server lists %+v", w.net.Devices())
	}
	start := time.Now()
	if err := n.Close(); err != nil || time.Since(start) > 2*time.Second {
		t.Errorf("an ephemeral node closed in %v: %v", time.Since(start), err)
	}
}

func keptStateKeepsAddress(t *testing.T, w *world) {
	dir := t.TempDir()
	var first []netip.Addr
	for i := range 3 {
		store, err := tailnet.DirStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		n := w.join(t, "kept", tailnet.Options{Store: store})
		c := dial(t, n, netip.AddrPortFrom(testnet.APIAddr, 80))
		c.Close()
		t.Logf("start %d: up, warm and connected in %v", i+1, time.Since(start).Round(time.Millisecond))
		if first == nil {
			first = n.Addrs()
		} else if got := n.Addrs(); got[0] != first[0] {
			t.Errorf("restart %d came back as %v, was %v", i, got, first)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

// clientInsideRoute has a client whose address lies inside 10.12.0.0/16, which
// the tailnet routes, talk to a listener of the gateway's host.
func clientInsideRoute(t *testing.T, w *world) {
	if w.mode != tailnet.Kernel {
		return // nothing of the host is routed, so there is nothing to capture
	}
	n := w.join(t, "inside", tailnet.Options{})
	if !n.Routes(netip.MustParseAddr(nstest.ClientAddr)) {
		t.Fatalf("%s is not inside an accepted route", nstest.ClientAddr)
	}
	ln, err := net.Listen("tcp", nstest.HereAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go echo(c)
		}
	}()
	c, err := nstest.DialFromClient(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pingPong(t, c)
	pingPong(t, dial(t, n, netip.AddrPortFrom(testnet.APIAddr, 7003))) // and the tailnet works meanwhile
}

func routesIgnored(t *testing.T, w *world) {
	n := w.join(t, "noroutes", tailnet.Options{IgnoreRoutes: true})
	eventually(t, "the peer", func() bool { return n.Routes(w.cloud.Addrs()[0]) })
	if n.Routes(testnet.APIAddr) {
		t.Error("the subnet route is used")
	}
}

// bulkTransfers pulls more than all buffers hold from a server that closes as
// soon as it has written: what is in its send buffer still has to leave.
func bulkTransfers(t *testing.T, w *world) {
	n := w.join(t, "bulk", tailnet.Options{})
	const size = 8 << 20
	addr := netip.MustParseAddrPort("10.12.3.9:9000")
	block := make([]byte, size)
	w.cloud.Handle(addr, func(c net.Conn) { c.Write(block); c.Close() })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2 {
				c, err := n.DialTCP(within(t, 10*time.Second), addr)
				if err != nil {
					t.Error(err)
					return
				}
				// Slow is no failure; silent is.
				got, buf := 0, make([]byte, 64<<10)
				for err == nil {
					c.SetReadDeadline(time.Now().Add(10 * time.Second))
					var m int
					m, err = c.Read(buf)
					got += m
				}
				if got != size || err != io.EOF {
					t.Errorf("got %d of %d bytes: %v", got, size, err)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
}
