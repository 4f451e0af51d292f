package origin

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
	"github.com/pandoproxy/pando/internal/testkit"
)

var (
	ann   = Owner{Addr: netip.MustParseAddr("10.1.0.1")}
	bob   = Owner{Addr: netip.MustParseAddr("10.1.0.2")}
	here  = flow.Target{Addr: netip.MustParseAddrPort("100.64.0.9:80"), Path: flow.Tailnet}
	there = flow.Target{Addr: netip.MustParseAddrPort("100.64.0.10:80"), Path: flow.Tailnet}
	other = flow.Target{Addr: here.Addr, Path: flow.Direct} // the same address over another network
)

// newOrigin returns the two ends of a loopback connection: one as a connection
// to the target to, and the server's.
func newOrigin(t *testing.T, to flow.Target) (*Conn, *net.TCPConn) {
	t.Helper()
	c, server := testkit.TCPPair(t)
	return New(c, to, "", 0), server
}

// ended fails the test unless the other end of c was closed.
func ended(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the server reads %d bytes, error %v; want 0, %v: the pool closes the connection", n, err, io.EOF)
	}
}

// size returns the number of idle connections, or of what is left without any.
func size(p *Pool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.order.Len(), len(p.idle), len(p.held))
}

// TestDropStale checks that idle connections are closed when their origin sends bytes or
// ends them, and that others stay.
func TestDropStale(t *testing.T) {
	p := &Pool{}
	defer p.Close()
	quiet, _ := newOrigin(t, here)
	sends, sender := newOrigin(t, here)
	ends, ender := newOrigin(t, there)
	for _, o := range []*Conn{quiet, sends, ends} {
		p.Put(o, ann, Terms{Idle: time.Hour})
	}
	p.DropStale()
	if n := p.order.Len(); n != 3 {
		t.Fatalf("%d connections are idle, want 3: no origin has sent anything", n)
	}
	sender.Write([]byte("HTTP/1.1 200 OK\r\n"))
	ender.CloseWrite()
	testkit.Eventually(t, "both connections to be closed", func() bool {
		p.DropStale()
		return p.order.Len() == 1
	})
	if o := p.Take(ann, []flow.Target{here}, ""); o != quiet {
		t.Errorf("Take = %v, want the connection whose origin is quiet", o)
	}
}

// TestPoolTake checks the order in which connections are taken.
func TestPoolTake(t *testing.T) {
	p := &Pool{}
	defer p.Close()
	a, _ := newOrigin(t, here)
	b, _ := newOrigin(t, here)
	c, _ := newOrigin(t, there)
	for _, o := range []*Conn{a, b, c} {
		p.Put(o, ann, Terms{Idle: time.Hour})
	}
	for _, s := range []struct {
		name    string
		targets []flow.Target
		want    *Conn
	}{
		{"another_path", []flow.Target{other}, nil},
		{"no_targets", nil, nil},
		{"last_used_first", []flow.Target{here, there}, b},
		{"then_the_one_before", []flow.Target{here, there}, a},
		{"then_the_next_target", []flow.Target{here, there}, c},
		{"then_none", []flow.Target{here, there}, nil},
	} {
		got := p.Take(ann, s.targets, "")
		if got != s.want || got != nil && !got.Reused {
			t.Fatalf("%s: Take = %p, want %p, marked as reused", s.name, got, s.want)
		}
	}
	if n := size(p); n != 0 {
		t.Errorf("%d connections or lists are left, want 0", n)
	}
	p.Put(a, ann, Terms{Idle: time.Hour})
	if got := p.Take(ann, []flow.Target{here}, ""); got != a {
		t.Errorf("Take after a second Put = %p, want %p", got, a)
	}
}

// TestPoolExpiry checks that a connection is closed when its idle time is over,
// and that a second Put starts that time again.
func TestPoolExpiry(t *testing.T) {
	first, firstServer := newOrigin(t, here)
	again, _ := newOrigin(t, here)
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{}
		defer p.Close()
		p.Put(first, ann, Terms{Idle: time.Minute})
		p.Put(again, ann, Terms{Idle: time.Minute})
		time.Sleep(time.Minute - time.Nanosecond)
		if got := p.Take(ann, []flow.Target{here}, ""); got != again {
			t.Fatalf("Take just before the end of the idle time = %p, want %p", got, again)
		}
		p.Put(again, ann, Terms{Idle: time.Minute}) // starts its idle time again
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		ended(t, firstServer)
		if n := size(p); n != 1 {
			t.Fatalf("%d idle connections, want 1", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := p.Take(ann, []flow.Target{here}, ""); got != nil || size(p) != 0 {
			t.Errorf("Take after the idle time = %p with %d left, want nil with 0", got, size(p))
		}
	})
}

// TestPoolStale checks that a connection is not taken if its origin has ended it
// or has sent bytes, and that it is closed.
func TestPoolStale(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(server *net.TCPConn)
	}{
		{"closed", func(server *net.TCPConn) { server.Close() }},
		{"half_closed", func(server *net.TCPConn) { server.CloseWrite() }},
		{"reset", func(server *net.TCPConn) { server.SetLinger(0); server.Close() }},
		{"unasked_bytes", func(server *net.TCPConn) { server.Write([]byte("HTTP/1.1 408 Request Timeout\r\n\r\n")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &Pool{}
			defer p.Close()
			good, _ := newOrigin(t, here)
			bad, server := newOrigin(t, here)
			p.Put(good, ann, Terms{Idle: time.Hour})
			p.Put(bad, ann, Terms{Idle: time.Hour})
			c.do(server)
			raw, err := bad.Conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Read(func(uintptr) bool { return socket.Readable(bad.Conn) }); err != nil { // wait until it has arrived
				t.Fatal(err)
			}
			if got := p.Take(ann, []flow.Target{here}, ""); got != good {
				t.Errorf("Take = %p, want the good connection %p", got, good)
			}
			if _, err := bad.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a write to the stale connection: error %v, want %v", err, net.ErrClosed)
			}
		})
	}
	t.Run("bytes_read_ahead", func(t *testing.T) {
		p := &Pool{}
		defer p.Close()
		o, server := newOrigin(t, here)
		server.Write([]byte("xy"))
		if _, err := o.R.ReadByte(); err != nil {
			t.Fatal(err)
		}
		p.Put(o, ann, Terms{Idle: time.Hour})
		if got := p.Take(ann, []flow.Target{here}, ""); got != nil {
			t.Errorf("Take = %p with bytes read ahead, want nil", got)
		}
	})
}

// TestPoolClose checks that Close closes idle connections, and those that are
// put later.
func TestPoolClose(t *testing.T) {
	p := &Pool{}
	idle, idleServer := newOrigin(t, here)
	late, lateServer := newOrigin(t, here)
	p.Put(idle, ann, Terms{Idle: time.Hour})
	p.Close()
	ended(t, idleServer)
	p.Put(late, ann, Terms{Idle: time.Hour})
	ended(t, lateServer)
	if got := p.Take(ann, []flow.Target{here}, ""); got != nil {
		t.Errorf("Take from a closed pool = %p, want nil", got)
	}
}

// TestPoolLimits checks that a full pool closes what is put, and takes more when
// there is room.
func TestPoolLimits(t *testing.T) {
	t.Run("per_target", func(t *testing.T) {
		p := &Pool{}
		defer p.Close()
		for range maxIdlePerTarget {
			o, _ := newOrigin(t, here)
			p.Put(o, ann, Terms{Idle: time.Hour})
		}
		full, server := newOrigin(t, here)
		p.Put(full, ann, Terms{Idle: time.Hour})
		ended(t, server)
		next, _ := newOrigin(t, there)
		p.Put(next, ann, Terms{Idle: time.Hour})
		if got := p.Take(ann, []flow.Target{there}, ""); got != next {
			t.Errorf("Take for another target = %p, want %p", got, next)
		}
	})
	t.Run("of_one_client", func(t *testing.T) {
		p := &Pool{held: map[Owner]int{ann: maxIdlePerClient - 1}, idle: map[place][]*Conn{}}
		last, _ := newOrigin(t, here)
		full, server := newOrigin(t, there)
		if !p.Put(last, ann, Terms{Idle: time.Hour}) || p.Put(full, ann, Terms{Shared: true, Idle: time.Hour}) {
			t.Error("Put does not stop at the client's share of the pool")
		}
		ended(t, server)
		next, _ := newOrigin(t, there)
		if !p.Put(next, bob, Terms{Idle: time.Hour}) {
			t.Error("Put for another client = false, want that it has a share of its own")
		}
	})
	t.Run("in_all", func(t *testing.T) {
		p := &Pool{max: 2}
		defer p.Close()
		longest, server := newOrigin(t, here)
		again, _ := newOrigin(t, here)
		next, _ := newOrigin(t, there)
		for _, o := range []*Conn{longest, again, next} {
			if !p.Put(o, ann, Terms{Idle: time.Hour}) {
				t.Error("Put = false, want a place for the newest connection")
			}
		}
		ended(t, server)
		if got := p.Take(ann, []flow.Target{here}, ""); got != again {
			t.Errorf("Take = %p, want %p", got, again)
		}
		if got := p.Take(ann, []flow.Target{there}, ""); got != next || size(p) != 0 {
			t.Errorf("Take = %p with %d left, want %p with 0", got, size(p), next)
		}
	})
}

// TestPoolOwners checks whose connections a client takes.
func TestPoolOwners(t *testing.T) {
	user := Owner{Addr: ann.Addr, User: "carol"}
	for _, c := range []struct {
		name   string
		put    Owner
		shared bool
		take   Owner
		want   bool
	}{
		{"own", ann, false, ann, true},
		{"another_client", ann, false, bob, false},
		{"another_user_of_this_address", ann, false, user, false},
		{"shared", ann, true, bob, true},
		{"shared_own", ann, true, ann, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &Pool{}
			defer p.Close()
			o, _ := newOrigin(t, here)
			p.Put(o, c.put, Terms{Shared: c.shared, Idle: time.Hour})
			if got := p.Take(c.take, []flow.Target{here}, ""); (got != nil) != c.want {
				t.Errorf("Take = %p, want a connection: %v", got, c.want)
			}
			if c.want && size(p) != 0 {
				t.Errorf("%d connections or counts are left, want 0", size(p))
			}
		})
	}
}
