package bench

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/testnet"
)

// BenchmarkName measures the cost of a cached name for a new connection: CONNECT by
// name and by address, in turn, through a replica in userspace mode.
func BenchmarkName(b *testing.B) {
	addr := replica(b)
	byName := testnet.APIName + ":80"
	byAddr := testnet.APIAddr.String() + ":80"
	for range 100 { // so that the cache is filled and the tunnel is warm
		connect(b, addr, byName)
		connect(b, addr, byAddr)
	}
	var names, addrs []time.Duration
	for b.Loop() {
		names = append(names, connect(b, addr, byName))
		addrs = append(addrs, connect(b, addr, byAddr))
	}
	name := median(names)
	literal := median(addrs)
	b.ReportMetric(float64(name.Nanoseconds())/1e3, "name-µs")
	b.ReportMetric(float64(literal.Nanoseconds())/1e3, "address-µs")
	b.ReportMetric(float64(name)/float64(literal), "ratio")
	b.ReportMetric(0, "ns/op") // the sum of both has no meaning
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// connect opens a tunnel to target and returns how long that took.
func connect(b *testing.B, proxy, target string) time.Duration {
	start := time.Now()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("CONNECT %s: %v %v", target, resp, err)
	}
	return time.Since(start)
}

// replica starts a tailnet with a private site and a replica on it, and returns
// the address of its port.
func replica(b *testing.B) string {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	nw, err := testnet.Start(ctx, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nw.Close() })
	nw.SetDNSRoutes(map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}})
	cloud, err := nw.StartCloud(ctx, "cloud", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cloud.Close() })
	cfg := config.Default()
	cfg.Listen.Proxy = "127.0.0.1:0"
	cfg.Listen.Admin = ""
	cfg.Tailnet.Hostname = "bench"
	cfg.Tailnet.ControlURL = nw.URL()
	cfg.Tailnet.AuthKey = testnet.AuthKey
	cfg.Tailnet.StateDir = filepath.Join(b.TempDir(), "state")
	cfg.Drain = config.Drain{}
	gw, err := gateway.New(ctx, cfg, gateway.Options{})
	if err != nil {
		b.Fatal(err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- gw.Run(run, run) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	if err := gw.Wait(ctx); err != nil {
		b.Fatal(err)
	}
	return gw.Addr().String()
}
