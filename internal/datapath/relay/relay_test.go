package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// joined is a running pair, seen from both ends.
type joined struct {
	client, target *net.TCPConn // what the client and the target hold
	result         chan Result
}

// start relays between two TCP connections over loopback.
func start(t *testing.T, r *Relay, clientEarly, targetEarly string) joined {
	t.Helper()
	client, near := testkit.TCPPair(t)
	target, far := testkit.TCPPair(t)
	j := joined{client, target, make(chan Result, 2)}
	p := flow.Pair{
		Client:      near,
		Target:      far,
		ClientEarly: []byte(clientEarly),
		TargetEarly: []byte(targetEarly),
	}
	r.Start(p, func(res Result) { j.result <- res })
	return j
}

// end waits for the pair's result and for its last goroutine.
func (j joined) end(t *testing.T, r *Relay) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Wait(ctx); err != nil || r.Active() != 0 {
		t.Fatalf("Wait = %v with %d pairs active, want nil with 0", err, r.Active())
	}
	select {
	case res := <-j.result:
		return res
	default:
		t.Fatal("Wait returned before done was called")
		panic("unreachable")
	}
}

// say sends s.
func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Error(err)
	}
}

// hear reads want.
func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("read %q, error %v; want %q", got, err, want)
	}
}

// hearEnd reads the end of the stream, or an error.
func hearEnd(t *testing.T, c net.Conn, want error) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, want) {
		t.Errorf("read %d bytes, error %v; want 0, %v", n, err, want)
	}
}

// TestHalfClose checks that each direction ends by itself.
func TestHalfClose(t *testing.T) {
	for _, first := range []string{"client", "target"} {
		t.Run(first+"_first", func(t *testing.T) {
			var r Relay
			j := start(t, &r, "", "")
			a := j.client
			b := j.target
			if first == "target" {
				a, b = b, a
			}
			say(t, a, "question")
			a.CloseWrite()
			hear(t, b, "question")
			hearEnd(t, b, io.EOF)
			if r.Active() != 1 {
				t.Errorf("%d pairs active after one direction ended, want 1", r.Active())
			}
			say(t, b, "the answer")
			hear(t, a, "the answer")
			say(t, b, ", in two parts")
			b.CloseWrite()
			hear(t, a, ", in two parts")
			hearEnd(t, a, io.EOF)
			want := Result{Up: 8, Down: 24}
			if first == "target" {
				want = Result{Up: 24, Down: 8}
			}
			if res := j.end(t, &r); res != want {
				t.Errorf("result %+v, want %+v", res, want)
			}
		})
	}
}

// TestEarlyBytes checks that bytes read before the relay come first and count.
func TestEarlyBytes(t *testing.T) {
	var r Relay
	j := start(t, &r, "early up ", "early down ")
	hear(t, j.target, "early up ")
	hear(t, j.client, "early down ")
	say(t, j.client, "then")
	hear(t, j.target, "then")
	j.client.CloseWrite()
	j.target.CloseWrite()
	want := Result{Up: 13, Down: 11}
	if res := j.end(t, &r); res != want {
		t.Errorf("result %+v, want %+v", res, want)
	}
}

// TestReset checks that a reset of one side resets the other, and that the
// error names the side.
func TestReset(t *testing.T) {
	for from, class := range map[string]flow.Class{"client": flow.Canceled, "target": flow.Reset} {
		for _, half := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s_after_half_close_%v", from, half), func(t *testing.T) {
				var r Relay
				j := start(t, &r, "", "")
				a := j.client
				b := j.target
				if from == "target" {
					a, b = b, a
				}
				say(t, a, "some")
				hear(t, b, "some")
				moved := int64(4)
				if half { // the other side has ended its direction cleanly
					b.CloseWrite()
					hearEnd(t, a, io.EOF)
					say(t, a, "more")
					hear(t, b, "more")
					moved = 8
				}
				a.SetLinger(0)
				a.Close()
				hearEnd(t, b, syscall.ECONNRESET)
				res := j.end(t, &r)
				if flow.ClassOf(res.Err) != class || !strings.Contains(res.Err.Error(), "relay "+from) || res.Up+res.Down != moved {
					t.Errorf("result %+v, want class %v from the %s and %d bytes", res, class, from, moved)
				}
			})
		}
	}
}

// TestCloseWithBytesUnread checks that it is not a failure when a client closes
// after the target's end with bytes unread, which resets its connection.
func TestCloseWithBytesUnread(t *testing.T) {
	var r Relay
	j := start(t, &r, "", "")
	say(t, j.client, "request")
	hear(t, j.target, "request")
	say(t, j.target, "response")
	j.target.CloseWrite()
	hear(t, j.client, "respons")
	for r.ended() == 0 { // the end has come to the relay, and the client has not read it
		runtime.Gosched()
	}
	j.client.Close()
	hearEnd(t, j.target, syscall.ECONNRESET)
	want := Result{Up: 7, Down: 8}
	if res := j.end(t, &r); res != want {
		t.Errorf("result %+v, want %+v", res, want)
	}
}

// TestWriteToClosed checks that a target that closes while the client still
// sends has broken the stream.
func TestWriteToClosed(t *testing.T) {
	var r Relay
	j := start(t, &r, "", "")
	j.target.Close()
	hearEnd(t, j.client, io.EOF)
	var err error
	for err == nil {
		_, err = j.client.Write(make([]byte, 1<<16))
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the client's write ended with %v, want %v or %v", err, syscall.ECONNRESET, syscall.EPIPE)
	}
	if res := j.end(t, &r); flow.ClassOf(res.Err) != flow.Reset {
		t.Errorf("result %+v, want class %v", res, flow.Reset)
	}
}

// TestClosedClient checks that it is not a failure when a client closes its
// connection instead of half-closing it.
func TestClosedClient(t *testing.T) {
	var r Relay
	j := start(t, &r, "", "")
	say(t, j.client, "last words")
	j.client.Close()
	hear(t, j.target, "last words")
	hearEnd(t, j.target, io.EOF)
	var err error
	for err == nil {
		_, err = j.target.Write(make([]byte, 1<<16))
	}
	if res := j.end(t, &r); res.Err != nil || res.Up != 10 {
		t.Errorf("result %+v, want 10 bytes up and no error", res)
	}
}

// TestResetInBothDirections checks that a reset by the target is one for the client,
// while both directions wait for the target. The kernel tells one of them of the reset,
// and the other that the stream has ended.
func TestResetInBothDirections(t *testing.T) {
	for range 20 { // either direction may be the one
		var r Relay
		j := start(t, &r, "", "")
		j.client.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := j.client.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Write = %v, want that not all fits", err)
		}
		j.target.SetLinger(0)
		j.target.Close()
		hearEnd(t, j.client, syscall.ECONNRESET)
		if res := j.end(t, &r); flow.ClassOf(res.Err) != flow.Reset {
			t.Errorf("the result is %v, want class reset", res.Err)
		}
	}
}

// TestCut checks that Cut resets all pairs, and those that start later.
func TestCut(t *testing.T) {
	var r Relay
	a := start(t, &r, "", "")
	b := start(t, &r, "early", "")
	say(t, a.client, "x")
	hear(t, a.target, "x")
	hear(t, b.target, "early")
	b.client.CloseWrite()
	hearEnd(t, b.target, io.EOF)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Wait(ended); !errors.Is(err, context.Canceled) || r.Active() != 2 {
		t.Errorf("Wait = %v with %d pairs active, want %v with 2", err, r.Active(), context.Canceled)
	}
	if n := r.Cut(t.Context(), "shutting down"); n != 2 || r.Active() != 0 {
		t.Errorf("Cut = %d with %d pairs active, want 2 with 0", n, r.Active())
	}
	hearEnd(t, a.target, syscall.ECONNRESET)
	if _, err := b.target.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) { // Linux reports a reset after an end of stream so
		t.Errorf("a write of the target whose client had half-closed: error %v, want %v", err, syscall.EPIPE)
	}
	for i, j := range []joined{a, b} {
		hearEnd(t, j.client, syscall.ECONNRESET)
		res := j.end(t, &r)
		if flow.ClassOf(res.Err) != flow.Cut || !strings.Contains(res.Err.Error(), "shutting down") || res.Up != []int64{1, 5}[i] || res.Down != 0 {
			t.Errorf("pair %d: result %+v, want class %v and the bytes up so far", i, res, flow.Cut)
		}
	}

	late := start(t, &r, "early", "early")
	hearEnd(t, late.client, syscall.ECONNRESET)
	hearEnd(t, late.target, syscall.ECONNRESET)
	if res := late.end(t, &r); flow.ClassOf(res.Err) != flow.Cut || res.Up != 0 || res.Down != 0 {
		t.Errorf("a pair that starts after the cut: result %+v, want class %v and no bytes", res, flow.Cut)
	}
	if n := r.Cut(t.Context(), "again"); n != 0 {
		t.Errorf("the second Cut = %d, want 0", n)
	}
}

// TestWaitIncludesDone checks that Wait returns after done has: done writes the
// log line of the flow, and after Wait the process may end.
func TestWaitIncludesDone(t *testing.T) {
	var r Relay
	client, near := testkit.TCPPair(t)
	target, far := testkit.TCPPair(t)
	inDone := make(chan struct{})
	finish := make(chan struct{})
	r.Start(flow.Pair{Client: near, Target: far}, func(Result) {
		close(inDone)
		<-finish
	})
	client.Close()
	target.Close()
	<-inDone
	waited := make(chan error, 1)
	go func() { waited <- r.Wait(t.Context()) }()
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait while done runs = %v, want %v", err, context.DeadlineExceeded)
	}
	close(finish)
	if err := <-waited; err != nil {
		t.Errorf("Wait after done = %v, want nil", err)
	}
}

// plain has no method of the kernel's connection beyond net.Conn and
// CloseWrite.
type plain struct{ c *net.TCPConn }

func (p plain) Read(b []byte) (int, error)         { return p.c.Read(b) }
func (p plain) Write(b []byte) (int, error)        { return p.c.Write(b) }
func (p plain) Close() error                       { return p.c.Close() }
func (p plain) CloseWrite() error                  { return p.c.CloseWrite() }
func (p plain) LocalAddr() net.Addr                { return p.c.LocalAddr() }
func (p plain) RemoteAddr() net.Addr               { return p.c.RemoteAddr() }
func (p plain) SetDeadline(t time.Time) error      { return p.c.SetDeadline(t) }
func (p plain) SetReadDeadline(t time.Time) error  { return p.c.SetReadDeadline(t) }
func (p plain) SetWriteDeadline(t time.Time) error { return p.c.SetWriteDeadline(t) }

// waiter has the methods of the userspace network stack's connections.
type waiter struct{ plain }

func (waiter) AwaitReadable() {}

func (w waiter) Abort() { w.c.SetLinger(0); w.c.Close() }

// TestManyPairs checks that all bytes of many pairs arrive, for each kind of
// connection, and that no goroutine is left.
func TestManyPairs(t *testing.T) {
	var r Relay
	var wg sync.WaitGroup
	for i := range 200 {
		client, near := testkit.TCPPair(t)
		target, far := testkit.TCPPair(t)
		p := flow.Pair{Client: near, Target: far}
		switch i % 4 {
		case 1:
			p.Target = waiter{plain{far}}
		case 2:
			p.Client = plain{near}
			p.Target = waiter{plain{far}}
		}
		up := noise(i)
		down := noise(i + 1000)
		early := rand.IntN(len(up) + 1)
		p.ClientEarly = bytes.Clone(up[:early])
		result := make(chan Result, 1)
		r.Start(p, func(res Result) { result <- res })
		check := func(what string, c *net.TCPConn, want []byte) {
			h := sha256.New()
			if n, err := io.Copy(h, c); err != nil || n != int64(len(want)) || [32]byte(h.Sum(nil)) != sha256.Sum256(want) {
				t.Errorf("pair %d, %s: received %d bytes, error %v; want the %d bytes sent", i, what, n, err, len(want))
			}
		}
		send := func(c *net.TCPConn, b []byte) {
			for len(b) > 0 {
				n := min(len(b), 1+rand.IntN(1<<17))
				if _, err := c.Write(b[:n]); err != nil {
					t.Errorf("pair %d: write: %v", i, err)
					return
				}
				b = b[n:]
			}
			c.CloseWrite()
		}
		wg.Go(func() { send(client, up[early:]) })
		wg.Go(func() { send(target, down) })
		wg.Go(func() { check("up", target, up) })
		wg.Go(func() {
			check("down", client, down)
			if res := <-result; res != (Result{Up: int64(len(up)), Down: int64(len(down))}) {
				t.Errorf("pair %d: result %+v, want %d bytes up and %d down", i, res, len(up), len(down))
			}
		})
	}
	wg.Wait()
	if err := r.Wait(t.Context()); err != nil || r.Active() != 0 {
		t.Errorf("Wait = %v with %d pairs active, want nil with 0", err, r.Active())
	}
	noneLeft(t)
}

// noise returns up to 300 kB, always the same for one seed.
func noise(seed int) []byte {
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, rand.New(src).IntN(300_000))
	src.Read(b)
	return b
}

// noneLeft fails the test if a goroutine of the relay is left. It waits up to
// ten seconds for those that are about to return.
func noneLeft(t *testing.T) {
	t.Helper()
	buf := make([]byte, 4<<20)
	for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "relay.(*pair)") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("goroutines of the relay are left after its pairs:\n%s", stacks)
		}
	}
}

// TestNoHalfClose checks that a pair ends with an error if a connection can't be
// closed in one direction: otherwise its peer would wait for ever.
func TestNoHalfClose(t *testing.T) {
	var r Relay
	client, near := testkit.TCPPair(t)
	ours, theirs := net.Pipe()
	result := make(chan Result, 1)
	r.Start(flow.Pair{Client: near, Target: ours}, func(res Result) { result <- res })
	client.CloseWrite()
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the target reads with error %v, want %v", err, io.EOF)
	}
	if res := <-result; flow.ClassOf(res.Err) != flow.Reset {
		t.Errorf("result %+v, want class %v", res, flow.Reset)
	}
}

// ended counts the pairs whose target has ended its stream.
func (r *Relay) ended() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pairs {
		if p.targetEnded.Load() {
			n++
		}
	}
	return n
}
