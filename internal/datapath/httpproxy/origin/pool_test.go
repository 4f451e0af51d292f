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
)

var (
	here  = flow.Target{Addr: netip.MustParseAddrPort("100.64.0.9:80"), Path: flow.Tailnet}
	there = flow.Target{Addr: netip.MustParseAddrPort("100.64.0.10:80"), Path: flow.Tailnet}
	other = flow.Target{Addr: here.Addr, Path: flow.Direct} // the same address on another way
)

// newOrigin returns one end of a loopback connection as a connection to to,
// and the server's end.
func newOrigin(t *testing.T, to flow.Target) (*Conn, *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	server, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return New(c, to, 0), server
}

// ended fails the test unless the other end of c was closed.
func ended(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("got %d bytes, %v; want that the pool closed the connection", n, err)
	}
}

// size returns the number of idle connections, and of lists while it is 0.
func size(p *Pool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count == 0 {
		return len(p.idle)
	}
	return p.count
}

func TestPoolTake(t *testing.T) {
	p := &Pool{}
	defer p.Close()
	a, _ := newOrigin(t, here)
	b, _ := newOrigin(t, here)
	c, _ := newOrigin(t, there)
	for _, o := range []*Conn{a, b, c} {
		p.Put(o, time.Hour)
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
		got := p.Take(s.targets)
		if got != s.want || got != nil && !got.Reused {
			t.Fatalf("%s: got %p, want %p, marked as reused", s.name, got, s.want)
		}
	}
	if n := size(p); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	p.Put(a, time.Hour)
	if got := p.Take([]flow.Target{here}); got != a {
		t.Errorf("put a second time: got %p, want %p", got, a)
	}
}

func TestPoolExpiry(t *testing.T) {
	first, firstServer := newOrigin(t, here)
	again, _ := newOrigin(t, here)
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{}
		defer p.Close()
		p.Put(first, time.Minute)
		p.Put(again, time.Minute)
		time.Sleep(time.Minute - time.Nanosecond)
		if got := p.Take([]flow.Target{here}); got != again {
			t.Fatalf("got %p just before the end, want %p", got, again)
		}
		p.Put(again, time.Minute) // begins its time anew
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		ended(t, firstServer)
		if n := size(p); n != 1 {
			t.Fatalf("%d idle connections, want 1", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := p.Take([]flow.Target{here}); got != nil || size(p) != 0 {
			t.Errorf("got %p with %d left, want none", got, size(p))
		}
	})
}

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
			p.Put(good, time.Hour)
			p.Put(bad, time.Hour)
			c.do(server)
			raw, err := bad.Conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Read(func(uintptr) bool { return socket.Readable(bad.Conn) }); err != nil { // wait for it to arrive
				t.Fatal(err)
			}
			if got := p.Take([]flow.Target{here}); got != good {
				t.Errorf("got %p, want the good one, %p", got, good)
			}
			if _, err := bad.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v, want the stale one closed", err)
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
		p.Put(o, time.Hour)
		if got := p.Take([]flow.Target{here}); got != nil {
			t.Error("got a connection with bytes of nobody's request")
		}
	})
}

func TestPoolClose(t *testing.T) {
	p := &Pool{}
	idle, idleServer := newOrigin(t, here)
	late, lateServer := newOrigin(t, here)
	p.Put(idle, time.Hour)
	p.Close()
	ended(t, idleServer)
	p.Put(late, time.Hour)
	ended(t, lateServer)
	if got := p.Take([]flow.Target{here}); got != nil {
		t.Errorf("got %p of a closed pool", got)
	}
}

func TestPoolLimits(t *testing.T) {
	t.Run("per_target", func(t *testing.T) {
		p := &Pool{}
		defer p.Close()
		for range maxIdlePerTarget {
			o, _ := newOrigin(t, here)
			p.Put(o, time.Hour)
		}
		full, server := newOrigin(t, here)
		p.Put(full, time.Hour)
		ended(t, server)
		next, _ := newOrigin(t, there)
		p.Put(next, time.Hour)
		if got := p.Take([]flow.Target{there}); got != next {
			t.Error("one full target fills the pool")
		}
	})
	t.Run("in_all", func(t *testing.T) {
		p := &Pool{count: maxIdle - 1} // 2048 connections are more descriptors than some machines give
		last, _ := newOrigin(t, here)
		p.Put(last, time.Hour)
		full, server := newOrigin(t, there)
		p.Put(full, time.Hour)
		ended(t, server)
		if got := p.Take([]flow.Target{here}); got != last {
			t.Errorf("got %p, want %p", got, last)
		}
		next, _ := newOrigin(t, there)
		p.Put(next, time.Hour)
		if got := p.Take([]flow.Target{there}); got != next {
			t.Error("a taken connection leaves no room for the next")
		}
	})
}
