package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
)

func TestRates(t *testing.T) { userspace(t, sharedTailnet, rates) }

// rates checks that a client which opens connections too fast is refused some of them,
// in HTTP and in SOCKS5, and that its tunnels and its requests share a rate of bytes.
func rates(t *testing.T, w *world) {
	const perSecond = 64 << 10
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Limits.Rate = config.Rate{Connections: 1, Bytes: perSecond}
	})
	begin := time.Now()
	target := w.countBytes()
	c, br := r.connectTo(t, target, "")
	u := r.raw(t)
	var upload sync.WaitGroup
	upload.Go(func() {
		fmt.Fprintf(u, "POST http://%s/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", w.origin.host, 2*perSecond)
		go u.Write(make([]byte, 2*perSecond))
		resp, err := http.ReadResponse(bufio.NewReader(u), nil)
		if err != nil {
			t.Error(err)
			return
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != 2*perSecond || err != nil {
			t.Errorf("the request got %d bytes, %v; want %d", n, err, 2*perSecond)
		}
	})
	c.Write(make([]byte, 2*perSecond))
	c.CloseWrite()
	want := fmt.Sprint("got ", 2*perSecond)
	if b, err := io.ReadAll(br); err != nil || string(b) != want {
		t.Errorf("the target answered %q, %v; want %q", b, err, want)
	}
	upload.Wait()
	if took := time.Since(begin); took < 3*time.Second { // the first second's bytes do not wait
		t.Errorf("%d bytes in one direction took %v, want 3 s at least for a rate of %d", 4*perSecond, took, perSecond)
	}
	var served, refused, socks atomic.Int32
	var clients sync.WaitGroup
	for i := range 16 { // fewer than are answered in a second
		conn := r.raw(t)
		clients.Go(func() {
			if i%2 == 1 {
				conn.Write([]byte{5, 1, 0})
				conn.CloseWrite() // one that is served ends
				b := make([]byte, 12)
				n, _ := io.ReadFull(conn, b)
				if n == len(b) && b[3] == 1 { // general failure
					socks.Add(1)
				}
				return
			}
			fmt.Fprintf(conn, "GET http://%s/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", w.origin.host)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			switch {
			case err == nil && resp.StatusCode == 200:
				served.Add(1)
			case err == nil && resp.StatusCode == 503 && resp.Header.Get("Retry-After") != "":
				refused.Add(1)
			}
			conn.Close()
		})
	}
	clients.Wait()
	if served.Load() == 0 || refused.Load() == 0 || socks.Load() == 0 || value(t, r, `pando_limit_refusals_total{limit="rate"}`) == 0 {
		t.Errorf("of 16 connections at once %d are served, and HTTP and SOCKS5 refuse %d and %d; want some of each", served.Load(), refused.Load(), socks.Load())
	}
}
