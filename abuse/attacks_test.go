//go:build abuse && linux

package abuse

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testnet"
)

// attack is what attackers do until its context ends.
type attack struct {
	name string
	run  func(context.Context, *site)
}

// attacks are the attacks that need no DNS of their own, with a name each. An attack
// runs in a process of its own until its context ends; attackers have addresses from
// 127.0.1.0 on, each attack its own.
var attacks = []attack{
	{"unfinished heads (4,000 x 60 KiB)", unfinishedHeads},
	{"bodies that stop (1,000)", stoppedBodies},
	{"readers that stop (1,000)", stoppedReaders},
	{"targets that stop reading (300)", deafTargets},
	{idleTunnelsAttack, idleTunnels},
}

// portAttacks are those on the replica's other ports and on SOCKS, and slow readers.
var portAttacks = []attack{
	{"readers that are slow (200 x 4 KiB/s)", slowReaders},
	{"unfinished greetings and requests of SOCKS (1,000)", unfinishedSOCKS},
	{"unfinished ClientHellos (2,000 x 16 KiB)", unfinishedHellos},
	{"unfinished heads at a port of web (1,000 x 60 KiB)", unfinishedWebHeads},
	{"readers that stop at a port of forward (300)", stoppedForward},
	{"unfinished queries over TCP (1,000), and slow ones over UDP", unfinishedQueries},
}

// allAttacks returns all attacks, those by names and by silent targets, too.
func allAttacks() []attack { return slices.Concat(attacks, portAttacks, zoneAttacks, silentAttacks) }

// idleTunnelsAttack is the name of an attack.
const idleTunnelsAttack = "idle tunnels (16,384 of 4 clients)"

// unfinishedHead is 60 KiB of a head.
var unfinishedHead = "GET http://" + testnet.APIName + "/ HTTP/1.1\r\nHost: " + testnet.APIName + "\r\nX-Bomb: " + strings.Repeat("b", 60<<10)

// unfinishedHeads sends 60 KiB of a head and then nothing.
func unfinishedHeads(ctx context.Context, a *site) {
	a.hold(ctx, 4000, "127.0.1.1", a.Proxy, func(c *net.TCPConn) error {
		_, err := io.WriteString(c, unfinishedHead)
		return err
	})
}

// stoppedBodies sends a part of a body and then nothing.
func stoppedBodies(ctx context.Context, a *site) {
	request := fmt.Sprintf("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n%s", a.Idle, strings.Repeat("b", 64<<10))
	a.hold(ctx, 1000, "127.0.1.2", a.Proxy, func(c *net.TCPConn) error {
		_, err := io.WriteString(c, request)
		return err
	})
}

// stoppedReaders opens tunnels to a target that sends as much as it can, and
// reads nothing.
func stoppedReaders(ctx context.Context, a *site) {
	a.hold(ctx, 1000, "127.0.1.3", a.Proxy, func(c *net.TCPConn) error {
		c.SetReadBuffer(4 << 10)
		return connect(c, a.Endless)
	})
}

// slowReaders opens tunnels to the same target, and reads 4 KiB a second from each.
func slowReaders(ctx context.Context, a *site) {
	a.hold(ctx, 200, "127.0.1.5", a.Proxy, func(c *net.TCPConn) error {
		if err := connect(c, a.Endless); err != nil {
			return err
		}
		c.SetDeadline(time.Time{})
		b := make([]byte, 4<<10)
		for ctx.Err() == nil {
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
			flow.Sleep(ctx.Done(), time.Second) // the pace of the reader
		}
		return nil
	})
}

// deafTargets sends as much as it can to a target that reads nothing.
func deafTargets(ctx context.Context, a *site) {
	b := make([]byte, 64<<10)
	a.hold(ctx, 300, "127.0.1.4", a.Proxy, func(c *net.TCPConn) error {
		if err := connect(c, a.Deaf); err != nil {
			return err
		}
		for range 64 {
			if _, err := c.Write(b); err != nil {
				return nil // the deadline: nothing more fits
			}
		}
		return nil
	})
}

// idleTunnels opens tunnels over which nothing moves.
func idleTunnels(ctx context.Context, a *site) {
	each := min(16384, openFiles()-100) / 4
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			a.hold(ctx, each, fmt.Sprintf("127.0.2.%d", i+1), a.Proxy, func(c *net.TCPConn) error { return connect(c, a.Idle) })
		})
	}
	clients.Wait()
}

// connect opens a tunnel to target.
func connect(c *net.TCPConn, target netip.AddrPort) error {
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("CONNECT: %s", resp.Status)
	}
	return nil
}

// openFiles is how many files this process may open.
func openFiles() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<20))
}

// hungUp reports whether c has ended. It reads nothing.
func hungUp(c *net.TCPConn) bool {
	rc, err := c.SyscallConn()
	if err != nil {
		return true
	}
	ended := false
	err = rc.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		unix.Poll(p, 0)
		ended = p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLRDHUP) != 0
	})
	return ended || err != nil
}
