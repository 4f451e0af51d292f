package dial

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

func targets(list ...string) []flow.Target {
	var out []flow.Target
	for _, s := range list {
		out = append(out, flow.Target{Addr: netip.MustParseAddrPort(s), Path: flow.Tailnet})
	}
	return out
}

// listen starts a listener. It returns its address, and a channel with the
// connections that it accepts.
func listen(t *testing.T) (string, <-chan net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String(), accepted
}

// closedPort returns an address where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestDialSockets(t *testing.T) {
	open, accepted := listen(t)
	refused := closedPort(t)
	tailnet := func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
		if a.Addr() == netip.MustParseAddr("192.0.2.1") { // never answers
			<-ctx.Done()
			return nil, ctx.Err()
		}
		var nd net.Dialer
		return nd.DialContext(ctx, "tcp", a.String())
	}
	for _, tc := range []struct {
		name    string
		targets []flow.Target
		least   time.Duration // TestRace checks the exact times, by a clock that no other process slows down
	}{
		{"alone", targets(open), 0},
		{"first_refused", targets(refused, open), 0},
		{"first_hangs", targets("192.0.2.1:80", open), stagger},
		{"direct", []flow.Target{{Addr: netip.MustParseAddrPort(open), Path: flow.Direct}}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := &Dialer{Tailnet: tailnet} // which remembers nothing of another case
			start := time.Now()
			c, target, err := d.Dial(t.Context(), tc.targets)
			took := time.Since(start)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			peer := <-accepted
			defer peer.Close()
			if target != tc.targets[len(tc.targets)-1] || c.RemoteAddr().String() != open {
				t.Errorf("connected to %v, reported %v, want the last target at %s", c.RemoteAddr(), target, open)
			}
			if took < tc.least {
				t.Errorf("took %s, want %s at least", took, tc.least)
			}
			// The connection outlives the time limit and the race.
			c.Write([]byte("x"))
			if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil {
				t.Errorf("read from the connection: %v, want one byte", err)
			}
		})
	}
}

// script says how each target behaves: after some time it fails with err, or
// connects if err is nil.
type script map[string]struct {
	after time.Duration
	err   error
}

// play is a Func that follows a script and records when each target is dialled.
type play struct {
	script script
	deaf   bool // connects even after the race has ended

	mu    sync.Mutex
	start time.Time
	log   []string
	peers []net.Conn // the other ends of all connections
}

func (p *play) dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	p.mu.Lock()
	p.log = append(p.log, a.Addr().String()+" "+time.Since(p.start).String())
	p.mu.Unlock()
	s := p.script[a.Addr().String()]
	done := ctx.Done()
	if p.deaf {
		done = nil
	}
	select {
	case <-time.After(s.after):
	case <-done:
		return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
	}
	if s.err != nil {
		return nil, s.err
	}
	near, far := net.Pipe()
	p.mu.Lock()
	p.peers = append(p.peers, far)
	p.mu.Unlock()
	return near, nil
}

func TestRace(t *testing.T) {
	refused := os.NewSyscallError("connect", syscall.ECONNREFUSED)
	unreachable := os.NewSyscallError("connect", syscall.EHOSTUNREACH)
	const never = time.Hour
	for _, tc := range []struct {
		name    string
		script  script
		targets []flow.Target
		want    string // the target that connected, or of the error; empty means any
		class   flow.Class
		took    time.Duration
		log     []string
	}{
		{"each_has_its_time", script{"10.0.0.1": {after: never}, "10.0.0.2": {after: never}, "10.0.0.3": {after: time.Millisecond}},
			targets("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"), "10.0.0.3", flow.OK, 501 * time.Millisecond,
			[]string{"10.0.0.1 0s", "10.0.0.2 250ms", "10.0.0.3 500ms"}},
		{"slow_first_still_wins", script{"10.0.0.1": {after: 300 * time.Millisecond}, "10.0.0.2": {after: time.Second}},
			targets("10.0.0.1:80", "10.0.0.2:80"), "10.0.0.1", flow.OK, 300 * time.Millisecond, []string{"10.0.0.1 0s", "10.0.0.2 250ms"}},
		{"failure_starts_the_next", script{"10.0.0.1": {after: 100 * time.Millisecond, err: refused}, "10.0.0.2": {after: time.Millisecond}},
			targets("10.0.0.1:80", "10.0.0.2:80"), "10.0.0.2", flow.OK, 101 * time.Millisecond, []string{"10.0.0.1 0s", "10.0.0.2 100ms"}},
		{"all_fail_first_error", script{"10.0.0.1": {after: time.Second, err: refused}, "10.0.0.2": {err: unreachable}},
			targets("10.0.0.1:80", "10.0.0.2:80"), "10.0.0.2", flow.Unreachable, time.Second, []string{"10.0.0.1 0s", "10.0.0.2 250ms"}},
		{"budget", script{"10.0.0.1": {after: never}, "10.0.0.2": {after: never}},
			targets("10.0.0.1:80", "10.0.0.2:80"), "", flow.Timeout, DefaultTimeout, []string{"10.0.0.1 0s", "10.0.0.2 250ms"}},
		{"budget_alone", script{"10.0.0.1": {after: never}}, targets("10.0.0.1:80"), "10.0.0.1", flow.Timeout, DefaultTimeout, []string{"10.0.0.1 0s"}},
		{"families_take_turns", script{"fd00::1": {err: refused}, "fd00::2": {err: refused}, "fd00::3": {err: refused}, "10.0.0.1": {err: refused}},
			targets("[fd00::1]:80", "[fd00::2]:80", "[fd00::3]:80", "10.0.0.1:80"), "fd00::1", flow.Refused, 0,
			[]string{"fd00::1 0s", "10.0.0.1 0s", "fd00::2 0s", "fd00::3 0s"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &play{script: tc.script, start: time.Now()}
				c, target, err := (&Dialer{Tailnet: p.dial, Attempts: 1}).Dial(t.Context(), tc.targets)
				took := time.Since(p.start)
				synctest.Wait() // the other candidates have ended
				if flow.ClassOf(err) != tc.class || took != tc.took || tc.want != "" && target.Addr.Addr().String() != tc.want {
					t.Errorf("Dial = %v, %v after %s, want %s, class %s after %s", target, err, took, tc.want, tc.class, tc.took)
				}
				if e, ok := errors.AsType[*flow.Error](err); ok && e.Target != target.Addr.String() {
					t.Errorf("the error names target %s, want %s", e.Target, target.Addr)
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				if !slices.Equal(p.log, tc.log) && tc.class != flow.Timeout || !slices.Equal(p.log[:len(tc.log)], tc.log) {
					t.Errorf("dialled %q, want %q", p.log, tc.log)
				}
				if c != nil {
					c.Close()
				}
			})
		})
	}
}

// TestLosersAreClosed checks that candidates which connect after the race has ended
// are closed.
func TestLosersAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &play{deaf: true, start: time.Now(), script: script{"10.0.0.1": {after: 2 * time.Second}, "10.0.0.2": {after: time.Second}, "10.0.0.3": {after: 3 * time.Second}}}
		c, target, err := (&Dialer{Tailnet: p.dial}).Dial(t.Context(), targets("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
		if err != nil || target.Addr.Addr().String() != "10.0.0.2" {
			t.Fatalf("Dial = %v, %v, want 10.0.0.2", target, err)
		}
		time.Sleep(time.Minute) // of the bubble's clock: all candidates have connected
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.peers) != 3 {
			t.Fatalf("got %d connections, want 3", len(p.peers))
		}
		for i, peer := range p.peers {
			peer.SetReadDeadline(time.Now().Add(time.Second))
			_, err := peer.Read(make([]byte, 1))
			if winner := i == 0; errors.Is(err, io.EOF) == winner {
				t.Errorf("read from connection %d: %v, want the first open and the others closed", i, err)
			}
		}
		c.Close()
	})
}

func TestCancel(t *testing.T) {
	for name, list := range map[string][]flow.Target{"alone": targets("10.0.0.1:80"), "race": targets("10.0.0.1:80", "10.0.0.2:80")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				p := &play{start: time.Now(), script: script{"10.0.0.1": {after: time.Hour}, "10.0.0.2": {after: time.Hour}}}
				c, _, err := (&Dialer{Tailnet: p.dial}).Dial(ctx, list)
				if took := time.Since(p.start); c != nil || flow.ClassOf(err) != flow.Canceled || took != time.Second {
					t.Errorf("Dial = %v, %v after %s, want class canceled after 1s", c, err, took)
				}
			})
		})
	}
}

func TestErrors(t *testing.T) {
	wrap := func(e syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", e)}
	}
	for _, tc := range []struct {
		name  string
		err   error
		class flow.Class
		hint  string // a part of the hint; empty means no hint
		path  flow.Path
	}{
		{"refused", wrap(syscall.ECONNREFUSED), flow.Refused, "nothing listens", flow.Direct},
		{"host_unreachable", wrap(syscall.EHOSTUNREACH), flow.Unreachable, "cannot be reached", flow.Direct},
		{"net_unreachable", wrap(syscall.ENETUNREACH), flow.Unreachable, "cannot be reached", flow.Direct},
		{"no_address", wrap(syscall.EADDRNOTAVAIL), flow.Unreachable, "no address", flow.Direct},
		{"no_ports", wrap(syscall.EADDRNOTAVAIL), flow.Overloaded, "source port", flow.Tailnet},
		{"no_files", wrap(syscall.EMFILE), flow.Overloaded, "limit of open files", flow.Direct},
		{"timed_out", wrap(syscall.ETIMEDOUT), flow.Timeout, "subnet router", flow.Direct},
		{"deadline", context.DeadlineExceeded, flow.Timeout, "subnet router", flow.Direct},
		{"io_timeout", os.ErrDeadlineExceeded, flow.Timeout, "subnet router", flow.Direct},
		{"reset", wrap(syscall.ECONNRESET), flow.Reset, "being opened", flow.Direct},
		{"of_a_stage", &net.OpError{Op: "dial", Err: &flow.Error{Class: flow.NoRoute, Op: "tailnet", Hint: "approve it"}}, flow.NoRoute, "approve it", flow.Direct},
		{"unknown", errors.New("no idea"), flow.Internal, "", flow.Direct},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fails := func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, tc.err }
			d := &Dialer{Direct: fails, Tailnet: fails}
			list := []flow.Target{{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Path: tc.path}}
			_, _, err := d.Dial(t.Context(), list)
			hint := flow.HintOf(err)
			if flow.ClassOf(err) != tc.class || !strings.Contains(hint, tc.hint) || (hint == "") != (tc.hint == "") {
				t.Errorf("Dial: %v with hint %q, want class %s and %q in the hint", err, hint, tc.class, tc.hint)
			}
			if !errors.Is(err, tc.err) || !strings.HasPrefix(err.Error(), "dial 10.0.0.1:80: "+tc.class.String()) {
				t.Errorf("error %q, want one with stage, target, class and cause", err)
			}
		})
	}
	if _, _, err := (&Dialer{}).Dial(t.Context(), nil); flow.ClassOf(err) != flow.Internal {
		t.Errorf("Dial without targets: %v, want class internal", err)
	}
}

// TestAttempts checks that a temporary failure is tried again within the time limit,
// and that a refusal and a success are not.
func TestAttempts(t *testing.T) {
	unreachable := os.NewSyscallError("connect", syscall.EHOSTUNREACH)
	reset := os.NewSyscallError("connect", syscall.ECONNRESET)
	refused := os.NewSyscallError("connect", syscall.ECONNREFUSED)
	for _, tc := range []struct {
		name     string
		attempts int
		budget   time.Duration
		fails    []error // of the first attempts; the next one connects
		class    flow.Class
		dials    int
		took     time.Duration
	}{
		{"the_second_time", 0, 0, []error{unreachable}, flow.OK, 2, 100 * time.Millisecond},
		{"the_third_time", 0, 0, []error{unreachable, reset}, flow.OK, 3, 300 * time.Millisecond},
		{"not_a_fourth_time", 0, 0, []error{reset, reset, reset}, flow.Reset, 3, 300 * time.Millisecond},
		{"once_alone", 1, 0, []error{unreachable}, flow.Unreachable, 1, 0},
		{"an_answer", 0, 0, []error{refused}, flow.Refused, 1, 0},
		{"no_time_left", 0, 150 * time.Millisecond, []error{unreachable, unreachable, unreachable}, flow.Unreachable, 2, 150 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dials := 0
				start := time.Now()
				d := &Dialer{Attempts: tc.attempts, Timeout: tc.budget, Tailnet: func(context.Context, netip.AddrPort) (net.Conn, error) {
					dials++
					if dials <= len(tc.fails) {
						return nil, tc.fails[dials-1]
					}
					c, _ := net.Pipe()
					return c, nil
				}}
				c, _, err := d.Dial(t.Context(), targets("10.0.0.1:80"))
				if took := time.Since(start); flow.ClassOf(err) != tc.class || dials != tc.dials || took != tc.took {
					t.Errorf("Dial: %v after %d dials and %v, want class %v after %d and %v", err, dials, took, tc.class, tc.dials, tc.took)
				}
				if c != nil {
					c.Close()
				}
			})
		})
	}
}

// TestDialsAreBounded checks that a name with many addresses costs few connections,
// over all attempts, and that both families are among them.
func TestDialsAreBounded(t *testing.T) {
	var many []flow.Target
	for i := range 2000 {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		if i >= 1900 {
			a = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})
		}
		many = append(many, flow.Target{Addr: netip.AddrPortFrom(a, 80), Path: flow.Tailnet})
	}
	for _, tc := range []struct {
		name     string
		targets  []flow.Target
		attempts int
		fails    syscall.Errno
		dials    int
		tried    int // different targets
		v6       int // of these
	}{
		{"refused", many, 100, syscall.ECONNREFUSED, maxCandidates, maxCandidates, maxCandidates / 2},
		{"unreachable", many, 100, syscall.EHOSTUNREACH, maxDials, maxCandidates, maxCandidates / 2},
		{"unreachable_once", many, 1, syscall.EHOSTUNREACH, maxCandidates, maxCandidates, maxCandidates / 2},
		{"one_family", many[:1900], 100, syscall.EHOSTUNREACH, maxDials, maxCandidates, 0},
		{"one_address", many[:1], 100, syscall.EHOSTUNREACH, maxDials, 1, 0},
		{"two_addresses", many[1899:1901], 3, syscall.EHOSTUNREACH, 6, 2, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				dials := 0
				tried := map[netip.Addr]bool{}
				d := &Dialer{Attempts: tc.attempts, Timeout: time.Hour, Tailnet: func(_ context.Context, a netip.AddrPort) (net.Conn, error) {
					mu.Lock()
					defer mu.Unlock()
					dials++
					tried[a.Addr()] = a.Addr().Is6()
					return nil, os.NewSyscallError("connect", tc.fails)
				}}
				_, _, err := d.Dial(t.Context(), tc.targets)
				v6 := 0
				for _, is6 := range tried {
					if is6 {
						v6++
					}
				}
				if err == nil || dials != tc.dials || len(tried) != tc.tried || v6 != tc.v6 {
					t.Errorf("Dial = %v after %d dials to %d targets, %d of them IPv6, want a failure after %d to %d, %d of them IPv6",
						err, dials, len(tried), v6, tc.dials, tc.tried, tc.v6)
				}
			})
		})
	}
}
