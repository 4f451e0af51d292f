//go:build abuse && linux

package abuse

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/proxy"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testnet"
)

var profile = flag.String("profile", "", "write a profile of the replica's processor time during the attack to that file")

var only = flag.String("attack", "", "the part of an attack's name; empty runs them all at once")

// TestAbuse512 attacks a replica of 512 MiB with all attacks at once.
func TestAbuse512(t *testing.T) { eachMode(t, 512<<20, allAttacks()) }

// TestAbuse128 attacks a replica of 128 MiB with all attacks at once.
func TestAbuse128(t *testing.T) { eachMode(t, 128<<20, allAttacks()) }

func eachMode(t *testing.T, limit int64, attacks []attack) {
	nstest.EachModeAlone(t, func(t *testing.T, mode tailnet.Mode) { abuse(t, mode, limit, attacks) })
}

func abuse(t *testing.T, mode tailnet.Mode, limit int64, attacks []attack) {
	quiet := 10 * time.Second // 200 requests: two of them are slower than p99
	attack := time.Minute     // the attacks begin within 15 s, and then hold what they have
	if testing.Short() {
		quiet = 2 * time.Second
		attack = 6 * time.Second
	}
	a := newArena(t, mode, limit, config.Default().Limits.Connections)
	a.routeSilent()
	idle := a.box.used()
	before := a.innocent(t.Context(), quiet)
	peak := a.watchPeak(t.Context())
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, attack := range attacks {
		if strings.Contains(attack.name, *only) {
			running.Go(func() { a.attack(ctx, attack.name) })
		}
	}
	if *profile != "" {
		running.Go(func() { a.profile(ctx, *profile) })
	}
	var probes *answers
	running.Go(func() { probes = a.probes(ctx, time.Second/2) })
	during := a.innocent(ctx, attack)
	refused := a.readMetrics("pando_limit_refusals_total")
	maps.Copy(refused, a.readMetrics("pando_memory_"))
	maps.Copy(refused, a.readMetrics("pando_connections"))
	stop()
	running.Wait()
	most, sockets := peak()
	t.Logf("MEASURED %s mode, limit %d MiB, %d attacks at once for %v\n%s", mode, limit>>20, len(attacks), attack, table([][2]string{
		{"memory idle / most / of it in sockets", fmt.Sprintf("%d / %d / %d MiB", idle>>20, most>>20, sockets>>20)},
		{"killed for memory", fmt.Sprint(a.box.kills())},
		{"innocent client before: p50 / p99 / failures", before.String()},
		{"innocent client meanwhile", during.String()},
		{"probes and scrapes meanwhile", probes.String()},
	})+listMetrics(refused))
	if !a.alive() || a.box.kills() != 0 {
		t.Fatalf("the replica ended: alive %v, killed for memory %d times", a.alive(), a.box.kills())
	}
	if n := len(before.failures) + len(during.failures); n != 0 {
		t.Errorf("the innocent client saw %d failures, want none; the first: %v", n, append(before.failures, during.failures...)[0])
	}
	if len(probes.failures) != 0 || len(probes.times) == 0 {
		t.Errorf("%s of the probes and scrapes failed, want none; the first: %v", probes, append(probes.failures, nil)[0])
	}
	// The kubelet waits for 1 s, unless the probe says more.
	if slowest := probes.percentile(100); slowest > time.Second && !testing.Short() {
		t.Errorf("the slowest probe or scrape took %v, want 1 s at most", slowest)
	}
	// An attack that does not connect would prove nothing.
	if n := refused["pando_connections"]; *only == "" && n < 100 {
		t.Errorf("the replica had %.0f connections during the attacks, want 100 at least", n)
	}
	// A few milliseconds are the scheduler's, with attackers on the same processors.
	if most := 3*before.percentile(99) + 50*time.Millisecond; during.percentile(99) > most && !testing.Short() {
		t.Errorf("p99 of the innocent client is %v, want at most %v", during.percentile(99), most)
	}
}

// profile writes a profile of the replica's processor time, from half a minute on.
func (a *arena) profile(ctx context.Context, file string) {
	flow.Sleep(ctx.Done(), 30*time.Second)
	resp, err := http.Get("http://" + a.admin + "/debug/pprof/profile?seconds=15")
	if err != nil {
		a.t.Error(err)
		return
	}
	defer resp.Body.Close()
	f, err := os.Create(file)
	if err != nil {
		a.t.Error(err)
		return
	}
	defer f.Close()
	io.Copy(f, resp.Body)
}

// watchPeak follows the memory in use until the function that it returns is
// called, which returns the most of it, and the most in sockets, in bytes.
func (a *arena) watchPeak(ctx context.Context) func() (used, sockets int64) {
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	var used, sockets int64
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			used = max(used, a.box.used())
			sockets = max(sockets, a.box.sockets())
			flow.Sleep(ctx.Done(), 20*time.Millisecond) // the kernel's own peak has the page cache in it
		}
	}()
	return func() (int64, int64) {
		stop()
		<-done
		return used, sockets
	}
}

// answers are the answers that a client got.
type answers struct {
	times    []time.Duration
	failures []error
}

func (s *answers) percentile(p int) time.Duration {
	if len(s.times) == 0 {
		return 0
	}
	slices.Sort(s.times)
	return s.times[min(len(s.times)*p/100, len(s.times)-1)]
}

func (s *answers) String() string {
	return fmt.Sprintf("%v / %v / %d of %d", s.percentile(50).Round(100*time.Microsecond), s.percentile(99).Round(100*time.Microsecond),
		len(s.failures), len(s.times)+len(s.failures))
}

// innocent uses the replica 20 times a second for that long, each time over a
// connection of its own. It uses all of the replica's ports in turn.
func (a *arena) innocent(ctx context.Context, long time.Duration) *answers {
	ways := []struct {
		name string
		use  func(context.Context) error
	}{
		{"proxy", func(ctx context.Context) error { return a.request(ctx, testnet.APIName) }},
		{"SOCKS", a.requestOverSOCKS},
		{"sni", a.requestOverTLS},
		{"web", a.requestAtWeb},
		{"dns", a.query},
	}
	return a.repeat(ctx, long, func(i int) error {
		way := ways[i%len(ways)]
		if err := way.use(ctx); err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		return nil
	})
}

// repeat calls request 20 times a second for that long, with the numbers from 0 on.
func (a *arena) repeat(ctx context.Context, long time.Duration, request func(i int) error) *answers {
	s := &answers{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(long)
	for i := 0; time.Now().Before(end) && a.alive(); i++ {
		wg.Go(func() {
			begin := time.Now()
			err := request(i)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.failures = append(s.failures, fmt.Errorf("after %v: %w", time.Since(begin), err))
				return
			}
			s.times = append(s.times, time.Since(begin))
		})
		flow.Sleep(ctx.Done(), 50*time.Millisecond) // the pace of the client
	}
	wg.Wait()
	return s
}

// answerTime is how long an innocent client waits for an answer.
const answerTime = 20 * time.Second

// dial connects the innocent client to a port of the replica.
func (a *arena) dial(ctx context.Context, port string) (net.Conn, error) {
	c, err := dialFrom(ctx, innocentAddr, port)
	if err != nil {
		return nil, err // not a *net.TCPConn that is nil
	}
	c.SetDeadline(time.Now().Add(answerTime))
	return c, nil
}

// request sends one request to the private API, by a name of it, through the proxy.
func (a *arena) request(ctx context.Context, name string) error {
	c, err := a.dial(ctx, a.Proxy)
	if err != nil {
		return err
	}
	defer c.Close()
	return get(c, "http://"+name, name)
}

func (a *arena) requestAtWeb(ctx context.Context) error {
	c, err := a.dial(ctx, a.Web)
	if err != nil {
		return err
	}
	defer c.Close()
	return get(c, "", testnet.APIName)
}

func (a *arena) requestOverTLS(ctx context.Context) error {
	c, err := a.dial(ctx, a.SNI)
	if err != nil {
		return err
	}
	defer c.Close()
	return get(tls.Client(c, &tls.Config{ServerName: testnet.APIName, RootCAs: a.roots}), "", testnet.APIName)
}

func (a *arena) requestOverSOCKS(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	d, err := proxy.SOCKS5("tcp", a.Proxy, nil, proxy.Direct)
	if err != nil {
		return err
	}
	c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", testnet.APIName+":80")
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(answerTime))
	return get(c, "", testnet.APIName)
}

// query asks the replica for the address of the private API, over UDP.
func (a *arena) query(ctx context.Context) error {
	client := dns.Client{Timeout: answerTime}
	m, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(testnet.APIName+".", dns.TypeA), a.DNS)
	if err == nil && (m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1) {
		err = fmt.Errorf("%s, %d answers", dns.RcodeToString[m.Rcode], len(m.Answer))
	}
	return err
}

// get asks for the page / of a host. before is what stands before the path: "" or the
// scheme and the host.
func get(c net.Conn, before, host string) error {
	fmt.Fprintf(c, "GET %s/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", before, host)
	b, err := io.ReadAll(c)
	if err == nil && !strings.HasPrefix(string(b), "HTTP/1.1 200 ") {
		err = fmt.Errorf("want %d: %.300q", http.StatusOK, b)
	}
	return err
}

func table(rows [][2]string) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "  %-46s %s\n", r[0], r[1])
	}
	return b.String()
}

func listMetrics(m map[string]float64) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] != 0 {
			fmt.Fprintf(&b, "  %-46s %.0f\n", name, m[name])
		}
	}
	return b.String()
}
