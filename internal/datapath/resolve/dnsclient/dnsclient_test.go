package dnsclient

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// TestTimeout checks how long a client waits for a server that is silent.
func TestTimeout(t *testing.T) {
	silent := func(context.Context, string, netip.AddrPort) (net.Conn, error) {
		c, s := net.Pipe()
		go io.Copy(io.Discard, s)
		return c, nil
	}
	for _, timeout := range []time.Duration{0, time.Second, 4 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c := Client{Timeout: timeout}
			start := time.Now()
			_, queries, err := c.Ask(t.Context(), silent, []string{"10.9.9.1", "10.9.9.2"}, new(dns.Msg).SetQuestion("api.corp.example.", dns.TypeA))
			want := cmp.Or(timeout, ServerTimeout)
			if err == nil || len(queries) != 2 || queries[0].Took != want || time.Since(start) != 2*want {
				t.Errorf("Client{Timeout: %v}: %v after %v, queries %v; want an error after twice %v", timeout, err, time.Since(start), queries, want)
			}
		})
	}
}
