package sni

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// TestHellosAreCharged checks that a hello which stops is charged with what it costs, that
// nothing is left when it ends, and that a client without a share left is refused.
func TestHellosAreCharged(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	budget := &limit.Budget{}
	budget.Set(1 << 20)
	r := road{make(chan *flow.Record, 1)}
	s := &Server{Road: r, Port: 443, Memory: budget}
	half := append([]byte{22, 3, 1, 64, 0, 1, 0, 63, 0}, make([]byte, 15<<10)...)
	first, conn := testkit.TCPPair(t)
	go s.Serve(t.Context(), conn)
	first.Write(half)
	want := helloCost + helloShare*int64(len(half))
	testkit.Eventually(t, "the hello to be charged", func() bool { return budget.Held(local) == want })
	first.Close()
	if rec := <-r.ended; flow.ClassOf(rec.Err) != flow.Canceled {
		t.Errorf("the client that left: %v, want class canceled", rec.Err)
	}
	testkit.Eventually(t, "the hello to be given back", func() bool { return budget.Held(local) == 0 })

	budget.Add(local, 1<<20) // others of this client hold all of it
	client, conn := testkit.TCPPair(t)
	go s.Serve(t.Context(), conn)
	err := tls.Client(client, &tls.Config{ServerName: "api.corp.example"}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "user canceled") {
		t.Errorf("the client without memory got %v, want the alert user_canceled", err)
	}
	if rec := <-r.ended; flow.ClassOf(rec.Err) != flow.Overloaded {
		t.Errorf("the client without memory: %v, want class overloaded", rec.Err)
	}
	if held := budget.Held(local); held != 1<<20 {
		t.Errorf("%d bytes are held, want what was held before", held)
	}
}
