package relay

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// BenchmarkRoundTrip measures a byte that goes up and comes back down, through
// one pair of kernel sockets. It must report 0 allocs/op.
func BenchmarkRoundTrip(b *testing.B) {
	var r Relay
	client, target := pairForBench(b, &r)
	go io.Copy(target, target)
	buf := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(client, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkThroughput measures a stream that goes up.
func BenchmarkThroughput(b *testing.B) {
	var r Relay
	client, target := pairForBench(b, &r)
	buf := make([]byte, bufferSize)
	in := make([]byte, bufferSize)
	b.SetBytes(bufferSize)
	b.ReportAllocs()
	for b.Loop() {
		go client.Write(buf)
		if _, err := io.ReadFull(target, in); err != nil {
			b.Fatal(err)
		}
	}
}

// pairForBench relays between two TCP connections over loopback, and returns
// their outer ends.
func pairForBench(b *testing.B, r *Relay) (client, target net.Conn) {
	b.Helper()
	client, near := testkit.TCPPair(b)
	target, far := testkit.TCPPair(b)
	client.SetDeadline(time.Time{}) // a benchmark may run for longer
	target.SetDeadline(time.Time{})
	r.Start(flow.Pair{Client: near, Target: far}, func(Result) {})
	return client, target
}
