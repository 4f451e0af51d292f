package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

const (
	quietAddr = "10.0.0.1:80"
	aliveAddr = "10.0.0.2:80"
)

// site has one target whose answer can change, at quietAddr. All others answer at
// once.
type site struct {
	after time.Duration // until quietAddr answers; zero means never
	err   error         // its answer; nil means that it connects
	sent  atomic.Int32  // dials to quietAddr
}

func (s *site) dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	var answer <-chan time.Time
	var err error
	if a.String() == quietAddr {
		s.sent.Add(1)
		err = s.err
		if s.after > 0 {
			answer = time.After(s.after)
		}
	} else {
		answer = time.After(time.Millisecond)
	}
	select {
	case <-answer:
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
	}
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	far.Close()
	return near, nil
}

// flood dials addr n times at once, and returns how many dials ended with each class.
func flood(ctx context.Context, d *Dialer, addr string, n int) map[flow.Class]int {
	var mu sync.Mutex
	ended := map[flow.Class]int{}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			c, _, err := d.Dial(ctx, targets(addr))
			if c != nil {
				c.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			ended[flow.ClassOf(err)]++
		})
	}
	wg.Wait()
	return ended
}

// TestSilentTarget checks that a target which leaves many dials without an answer is
// remembered, costs one dial a second then, and is dialled freely when it answers.
func TestSilentTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		refused := 0
		d := &Dialer{Tailnet: s.dial, Refused: func() { refused++ }}
		if got := flood(t.Context(), d, quietAddr, 100); got[flow.Timeout] != 100 || s.sent.Load() != 100 {
			t.Fatalf("100 dials at once ended with %v after %d were sent, want all sent, with class timeout", got, s.sent.Load())
		}
		if list := d.Silent(); len(list) != 1 || list[0].String() != quietAddr {
			t.Fatalf("Silent() = %v, want the target", list)
		}
		start := time.Now()
		go flood(t.Context(), d, quietAddr, 1) // this one is sent
		synctest.Wait()
		_, _, err := d.Dial(t.Context(), targets(quietAddr))
		hint := flow.HintOf(err)
		if flow.ClassOf(err) != flow.Timeout || time.Since(start) != 0 || !strings.Contains(hint, "100 connections in a row, for 10s") || !strings.Contains(hint, "5s") {
			t.Errorf("Dial: %v with hint %q after %v, want class timeout at once, with what was seen", err, hint, time.Since(start))
		}
		if strings.Count(err.Error(), quietAddr) != 1 {
			t.Errorf("error %q, want one that names the target once", err)
		}
		if got := flood(t.Context(), d, aliveAddr, 100); got[flow.OK] != 100 {
			t.Errorf("dials to another target ended with %v, want all with class ok", got)
		}
		if refused != 1 {
			t.Errorf("%d refusals, want 1", refused)
		}
		time.Sleep(3 * time.Second) // it is remembered while a dial waits for it
		synctest.Wait()
		s.after = time.Millisecond
		if got := flood(t.Context(), d, quietAddr, 1); got[flow.OK] != 1 {
			t.Errorf("the next dial of the second ended with %v, want class ok", got)
		}
		if got := flood(t.Context(), d, quietAddr, 100); got[flow.OK] != 100 || len(d.Silent()) != 0 {
			t.Errorf("after an answer dials ended with %v, want all with class ok", got)
		}
	})
}

// TestSilentIsForgotten checks that nothing is left of a silent target that is not
// dialled any more.
func TestSilentIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		d := &Dialer{Tailnet: s.dial}
		flood(t.Context(), d, quietAddr, manySilent)
		time.Sleep(silentFor - time.Millisecond)
		if len(d.Silent()) != 1 {
			t.Errorf("Silent() = %v just before its time is over, want the target", d.Silent())
		}
		time.Sleep(time.Millisecond)
		if len(d.Silent()) != 0 || len(d.silence.targets) != 0 {
			t.Errorf("Silent() = %v after its time, want none", d.Silent())
		}
		flood(t.Context(), d, quietAddr, 2)
		if s.sent.Load() != manySilent+2 {
			t.Errorf("%d dials were sent, want %d", s.sent.Load(), manySilent+2)
		}
	})
}

// TestNotSilent checks what does not make a target silent.
func TestNotSilent(t *testing.T) {
	refused := os.NewSyscallError("connect", syscall.ECONNREFUSED)
	for _, tc := range []struct {
		name string
		play func(t *testing.T, d *Dialer, s *site)
	}{
		{"few_dials", func(t *testing.T, d *Dialer, s *site) {
			for range 10 {
				flood(t.Context(), d, quietAddr, manySilent-1)
			}
		}},
		{"slow", func(t *testing.T, d *Dialer, s *site) {
			s.after = DefaultTimeout - time.Millisecond
			for range 3 {
				flood(t.Context(), d, quietAddr, 200)
			}
		}},
		{"refuses", func(t *testing.T, d *Dialer, s *site) {
			synctest.Wait()
			s.after = time.Second
			s.err = refused
			flood(t.Context(), d, quietAddr, 200)
		}},
		{"answers_now_and_then", func(t *testing.T, d *Dialer, s *site) {
			go flood(t.Context(), d, quietAddr, 200)
			time.Sleep(2 * time.Second) // of synctest's clock
			synctest.Wait()
			s.after = time.Second
			s.err = refused
			go flood(t.Context(), d, quietAddr, 1)
			time.Sleep(DefaultTimeout) // of synctest's clock
		}},
		{"canceled", func(t *testing.T, d *Dialer, s *site) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			time.AfterFunc(DefaultTimeout-time.Second, cancel)
			flood(ctx, d, quietAddr, 200)
		}},
		{"short_time", func(t *testing.T, d *Dialer, s *site) {
			ctx, cancel := context.WithTimeout(t.Context(), DefaultTimeout/2-time.Second)
			defer cancel()
			flood(ctx, d, quietAddr, 200)
		}},
		{"mended_session", func(t *testing.T, d *Dialer, s *site) {
			s.after = 2 * time.Second // SYNs are sent again
			flood(t.Context(), d, quietAddr, 200)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{}
				d := &Dialer{Tailnet: s.dial, Refused: func() { t.Error("a dial is refused") }}
				tc.play(t, d, s)
				if list := d.Silent(); len(list) != 0 {
					t.Errorf("Silent() = %v, want none", list)
				}
				synctest.Wait()
				s.after = time.Millisecond
				s.err = nil
				if got := flood(t.Context(), d, quietAddr, 100); got[flow.OK] != 100 {
					t.Errorf("dials to the target that answers again ended with %v, want all with class ok", got)
				}
				if len(d.silence.targets) != 0 {
					t.Errorf("%d targets are left, want none", len(d.silence.targets))
				}
			})
		})
	}
}

// TestPartOfDials checks how many dials may wait for one target.
func TestPartOfDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		d := &Dialer{Tailnet: s.dial, Most: func() int { return 200 }}
		begin := time.Now()
		go flood(t.Context(), d, quietAddr, 100)
		synctest.Wait()
		time.Sleep(quietTime)
		_, _, err := d.Dial(t.Context(), targets(quietAddr))
		if flow.ClassOf(err) != flow.Overloaded || time.Since(begin) != quietTime || !strings.Contains(flow.HintOf(err), "100 connections to this target") {
			t.Errorf("Dial to a quiet target: %v with hint %q, want class overloaded at once", err, flow.HintOf(err))
		}
		if got := flood(t.Context(), d, aliveAddr, 151); got[flow.OK] != 150 || got[flow.Overloaded] != 1 {
			t.Errorf("151 dials to another target ended with %v, want three quarters of 200 with class ok", got)
		}
	})
}

// TestRaceSkipsSilentTarget checks that a silent address costs a race no time.
func TestRaceSkipsSilentTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		d := &Dialer{Tailnet: s.dial}
		flood(t.Context(), d, quietAddr, manySilent)
		go flood(t.Context(), d, quietAddr, 1)
		synctest.Wait()
		start := time.Now()
		c, target, err := d.Dial(t.Context(), targets(quietAddr, aliveAddr))
		if err != nil || target.Addr.String() != aliveAddr || time.Since(start) != time.Millisecond {
			t.Fatalf("Dial = %v, %v after %v, want %s without waiting", target, err, time.Since(start), aliveAddr)
		}
		c.Close()
	})
}

// FuzzSilence compares what is known of targets with a model: a target is refused only
// if it has left many dials without an answer or too many wait, and nothing is left.
func FuzzSilence(f *testing.F) {
	f.Add([]byte{0, 0, 1, 5, 0, 9, 2, 0})
	f.Add(slices.Repeat([]byte{0, 0, 0, 5, 0, 8}, 20))
	f.Fuzz(func(t *testing.T, ops []byte) {
		const most = 64
		const least = 5 * time.Second
		addrs := []netip.AddrPort{netip.MustParseAddrPort(quietAddr), netip.MustParseAddrPort(aliveAddr)}
		var s silence
		now := time.Unix(1, 0)
		began := map[netip.AddrPort][]time.Time{}
		unheard := map[netip.AddrPort]int{} // time-outs since the last answer
		for len(ops) >= 2 {
			addr := addrs[ops[0]%2]
			op := ops[1] % 10
			ops = ops[2:]
			waiting := began[addr]
			switch {
			case op < 5:
				err := s.begin(addr, most, now)
				se, isSilent := errors.AsType[*silentError](err)
				switch {
				case err == nil && len(waiting) >= most*3/4:
					t.Fatalf("a dial begins while %d of %d wait for the target", len(waiting), most)
				case isSilent && se.timeouts > 0 && unheard[addr] < manySilent:
					t.Fatalf("a target is silent after %d time-outs", unheard[addr])
				case isSilent && se.timeouts == 0 && len(waiting) < most/4:
					t.Fatalf("a dial is refused while %d of %d wait for the target", len(waiting), most)
				case err == nil:
					began[addr] = append(waiting, now)
				}
			case op == 5:
				now = now.Add(time.Second)
			case op == 6:
				now = now.Add(10 * time.Second)
			case len(waiting) > 0:
				how := ending(op - 7)
				s.end(addr, waiting[0], how, least, now)
				began[addr] = waiting[1:]
				if how == answered {
					unheard[addr] = 0
				}
				if how == timedOut {
					unheard[addr]++
				}
			}
		}
		for addr, list := range began {
			for _, b := range list {
				s.end(addr, b, timedOut, least, now)
			}
		}
		s.list(now.Add(silentFor))
		if len(s.targets) != 0 {
			t.Fatalf("%d targets are left, want none", len(s.targets))
		}
	})
}

// TestDescribeSilent checks that only one of the two texts has addresses.
func TestDescribeSilent(t *testing.T) {
	var list []netip.AddrPort
	const begin = "targets that do not answer, and are dialled only once a second:"
	for _, want := range [][2]string{
		{"", ""},
		{begin + " 10.0.0.1:80", begin + " 1; pando status names them"},
		{begin + " 10.0.0.1:80 10.0.0.1:80", begin + " 2; pando status names them"},
		{begin + " 10.0.0.1:80 10.0.0.1:80 10.0.0.1:80", begin + " 3; pando status names them"},
		{begin + " 10.0.0.1:80 10.0.0.1:80 10.0.0.1:80 and 1 more", begin + " 4; pando status names them"},
	} {
		named, counted := DescribeSilent(list)
		if named != want[0] || counted != want[1] {
			t.Errorf("%d targets: %q and %q, want %q and %q", len(list), named, counted, want[0], want[1])
		}
		list = append(list, netip.MustParseAddrPort(quietAddr))
	}
}
