//go:build abuse && linux

package abuse

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// The zones of the attackers. Their DNS server is in the process of the test.
const (
	largeZone = "large.example" // each name has 3,900 addresses that refuse, or does not exist
	slowZone  = "slow.example"  // no name has an answer, except those that begin with quick
)

// zoneAttacks are the attacks by owners of zones, together with a client.
var zoneAttacks = []attack{
	{"names of 3,900 addresses (10,000)", largeNames},
	{"names without an answer (2,000)", slowNames},
}

// TestZones attacks a replica of 128 MiB by its names: large ones, unknown ones and
// slow ones. One innocent client uses a name that is cached, and another one uses
// new names of the slow zone.
func TestZones(t *testing.T) { nstest.EachModeAlone(t, attackZones) }

func attackZones(t *testing.T, mode tailnet.Mode) {
	const most = 128 << 20
	quiet := 10 * time.Second
	long := time.Minute
	if testing.Short() {
		quiet = 2 * time.Second
		long = 10 * time.Second
	}
	a := newArena(t, mode, most, config.Default().Limits.Connections)
	idle := a.box.used()
	before := a.innocent(t.Context(), quiet)
	peak := a.watchPeak(t.Context())
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, attack := range zoneAttacks {
		running.Go(func() { a.attack(ctx, attack.name) })
	}
	var fresh *answers
	running.Go(func() {
		fresh = a.repeat(ctx, long, func(i int) error { return a.request(ctx, fmt.Sprintf("quick-%d.%s", i, slowZone)) })
	})
	during := a.innocent(ctx, long)
	seen := a.readMetrics("pando_limit_refusals_total")
	maps.Copy(seen, a.readMetrics("pando_dns_lookups_total"))
	flow.Sleep(ctx.Done(), time.Second) // for the last fresh name
	stop()
	running.Wait()
	highest, sockets := peak()
	t.Logf("MEASURED %s mode, limit %d MiB, zones for %v\n%s", mode, most>>20, long, table([][2]string{
		{"memory idle / most / of it in sockets", fmt.Sprintf("%d / %d / %d MiB", idle>>20, highest>>20, sockets>>20)},
		{"killed for memory", fmt.Sprint(a.box.kills())},
		{"innocent client before: p50 / p99 / failures", before.String()},
		{"innocent client meanwhile", during.String()},
		{"innocent client with new names of the slow zone", fresh.String()},
	})+listMetrics(seen))
	if !a.alive() || a.box.kills() != 0 {
		t.Fatalf("the replica ended: alive %v, killed for memory %d times", a.alive(), a.box.kills())
	}
	failures := append(append(before.failures, during.failures...), fresh.failures...)
	if len(failures) != 0 {
		t.Errorf("the innocent clients saw %d failures, want none; the first: %v", len(failures), failures[0])
	}
	if seen[`pando_limit_refusals_total{limit="lookups_share"}`]+seen[`pando_limit_refusals_total{limit="memory_share"}`] == 0 {
		t.Error("the attackers were not refused, want some refusals: the attack was too weak to show anything")
	}
}

// largeNames asks for names with as many addresses as a message holds, and for names
// that do not exist.
func largeNames(ctx context.Context, a *site) {
	var n atomic.Int64
	a.askFor(ctx, 160, "127.0.1.6", 100*time.Millisecond, func() string {
		i := n.Add(1)
		if i%4 == 0 {
			return fmt.Sprintf("none-%d.%s", i, largeZone)
		}
		return fmt.Sprintf("n%d.%s", i%10_000, largeZone)
	})
}

// slowNames asks for names whose server does not answer.
func slowNames(ctx context.Context, a *site) {
	var n atomic.Int64
	a.askFor(ctx, 1600, "127.0.1.7", 2*time.Second, func() string { return fmt.Sprintf("s%d.%s", n.Add(1)%2000, slowZone) })
}

// askFor has n connections send requests for names, each with a pause after each
// answer.
func (a *site) askFor(ctx context.Context, n int, from string, between time.Duration, next func() string) {
	a.hold(ctx, n, from, a.Proxy, func(c *net.TCPConn) error {
		r := bufio.NewReaderSize(c, 4<<10)
		for ctx.Err() == nil {
			name := next()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n", name, name)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				return err
			}
			io.Copy(io.Discard, resp.Body)
			if resp.Close {
				return errors.New("closed")
			}
			flow.Sleep(ctx.Done(), between)
		}
		return nil
	})
}

// serveZones starts the DNS server of the zones, over UDP and TCP on loopback, and
// returns its address.
func (a *arena) serveZones() string {
	a.t.Helper()
	addr := testkit.FreePorts(a.t, 1)[0]
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		a.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		a.t.Fatal(err)
	}
	large := map[uint16][]byte{dns.TypeA: largeAnswer(dns.TypeA, 3900), dns.TypeAAAA: largeAnswer(dns.TypeAAAA, 2000)}
	for _, s := range []*dns.Server{{PacketConn: pc}, {Listener: ln}} {
		s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { answerZones(w, q, large) })
		go s.ActivateAndServe()
		a.t.Cleanup(func() { s.Shutdown() })
	}
	return addr
}

// answerZones answers one query. large has the answer sections of large names.
func answerZones(w dns.ResponseWriter, q *dns.Msg, large map[uint16][]byte) {
	question := q.Question[0]
	m := new(dns.Msg).SetReply(q)
	switch {
	case strings.HasPrefix(question.Name, "quick-"):
		if question.Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: testnet.APIAddr.AsSlice()}}
		}
	case strings.HasPrefix(question.Name, "none-"):
		m.Rcode = dns.RcodeNameError
	case dns.IsSubDomain(slowZone+".", question.Name):
		return
	case w.LocalAddr().Network() == "udp":
		m.Truncated = true
	default: // made by hand: a real server does not need a processor for itself
		wire, err := m.Pack()
		if err != nil {
			return
		}
		binary.BigEndian.PutUint16(wire[6:], binary.BigEndian.Uint16(large[question.Qtype]))
		w.Write(append(wire, large[question.Qtype][2:]...))
		return
	}
	w.WriteMsg(m)
}

// largeAnswer returns n as two bytes, and then n records of a type for the name of the
// question. Nothing listens on their addresses.
func largeAnswer(qtype uint16, n int) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(n))
	for i := range n {
		b = append(b, 0xc0, 12) // the name of the question
		b = binary.BigEndian.AppendUint16(b, qtype)
		b = binary.BigEndian.AppendUint16(b, dns.ClassINET)
		b = binary.BigEndian.AppendUint32(b, 60)
		addr := []byte{10, 12, byte(100 + i>>8), byte(i)}
		if qtype == dns.TypeAAAA {
			addr = []byte{0: 0xfd, 1: 0x12, 2: 0xca, 3: 0xfe, 13: 1, 14: byte(i >> 8), 15: byte(i)}
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(addr)))
		b = append(b, addr...)
	}
	return b
}
