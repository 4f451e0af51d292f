//go:build abuse && linux

package abuse

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testnet"
)

// Attacks on the replica's other ports, and on SOCKS.

// unfinishedSOCKS sends a part of a greeting, or a greeting and a part of a request.
func unfinishedSOCKS(ctx context.Context, a *site) {
	greeting := []byte{5, 255, 0}
	request := append([]byte{5, 1, 0, 5, 1, 0, 3, 255}, testnet.APIName...)
	var n atomic.Int64
	a.hold(ctx, 1000, "127.0.1.8", a.Proxy, func(c *net.TCPConn) error {
		send := greeting
		if n.Add(1)%2 == 0 {
			send = request
		}
		_, err := c.Write(send)
		return err
	})
}

// unfinishedHellos sends the first 16 KiB of a ClientHello of 20,000 bytes.
func unfinishedHellos(ctx context.Context, a *site) {
	const record = 16 << 10
	hello := make([]byte, 5+record)
	copy(hello, []byte{22, 3, 1, record >> 8, 0, 1, 0, 20000 >> 8, 20000 & 255, 3, 3})
	a.hold(ctx, 2000, "127.0.1.9", a.SNI, func(c *net.TCPConn) error {
		_, err := c.Write(hello)
		return err
	})
}

// unfinishedWebHeads sends 60 KiB of a head to the port of web.
func unfinishedWebHeads(ctx context.Context, a *site) {
	a.hold(ctx, 1000, "127.0.1.10", a.Web, func(c *net.TCPConn) error {
		_, err := io.WriteString(c, unfinishedHead)
		return err
	})
}

// stoppedForward connects to a port that leads to a target that sends as much as it
// can, and reads nothing.
func stoppedForward(ctx context.Context, a *site) {
	a.hold(ctx, 300, "127.0.1.11", a.Forward, func(c *net.TCPConn) error { return c.SetReadBuffer(4 << 10) })
}

// unfinishedQueries sends the length of a query over TCP, and then nothing. Over UDP
// it asks for 500 names a second that have no answer.
func unfinishedQueries(ctx context.Context, a *site) {
	var both sync.WaitGroup
	both.Go(func() { a.floodDNS(ctx) })
	a.hold(ctx, 1000, "127.0.1.12", a.DNS, func(c *net.TCPConn) error {
		_, err := c.Write([]byte{255, 255, 0})
		return err
	})
	both.Wait()
}

func (a *site) floodDNS(ctx context.Context) {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP("127.0.1.12")}}
	c, err := d.DialContext(ctx, "udp", a.DNS)
	if err != nil {
		return
	}
	defer c.Close()
	go io.Copy(io.Discard, c)
	for i := 0; ctx.Err() == nil; i++ {
		q := new(dns.Msg).SetQuestion("q"+strconv.Itoa(i)+"."+slowZone+".", dns.TypeA)
		if wire, err := q.Pack(); err == nil {
			c.Write(wire)
		}
		flow.Sleep(ctx.Done(), 2*time.Millisecond) // the pace of the attack
	}
}
