package datapath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/target"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/sni"
	"github.com/pandoproxy/pando/internal/datapath/socks"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
	"github.com/pandoproxy/pando/internal/testkit"
)

// TestFrontsAgreeOnHosts checks that all fronts and the resolver read a host
// in the same way: as an address, as a name, or as invalid. If they differed, a
// client could pass an address where the policy expects a name.
func TestFrontsAgreeOnHosts(t *testing.T) {
	r := newRoad(t, &outside{silent: true}, policy.Policy{Direct: policy.DirectAny})
	done := make(chan *flow.Record, 1)
	r.Finished = func(rec *flow.Record) { done <- rec }
	type server interface {
		Serve(context.Context, *net.TCPConn) bool
	}
	proxy := &httpproxy.Proxy{Road: r}
	web := &httpproxy.Proxy{Road: r, Front: flow.Web, Target: target.ByHost(443)}
	fronts := []struct {
		name    string
		server  server
		request func(host string) []byte
	}{
		{"connect", proxy, func(h string) []byte {
			return fmt.Appendf(nil, "CONNECT %[1]s:443 HTTP/1.1\r\nHost: %[1]s:443\r\n\r\n", h)
		}},
		{"http", proxy, func(h string) []byte {
			return fmt.Appendf(nil, "GET http://%[1]s:443/ HTTP/1.1\r\nHost: %[1]s:443\r\n\r\n", h)
		}},
		{"web", web, func(h string) []byte { return fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", h) }},
		{"socks5", &socks.Server{Road: r}, func(h string) []byte {
			request := []byte{5, 1, 0, 5, 1, 0, 3, byte(len(h))}
			return append(append(request, h...), 443>>8, 443&0xff)
		}},
		{"socks4", &socks.Server{Road: r, Version4: true}, func(h string) []byte {
			request := []byte{4, 1, 443 >> 8, 443 & 0xff, 0, 0, 0, 1, 0}
			return append(append(request, h...), 0)
		}},
		{"sni", &sni.Server{Road: r, Port: 443}, func(h string) []byte { return testkit.ClientHello(t, h) }},
	}
	for _, tc := range []struct{ spelling, want string }{
		{"10.12.3.4", "address 10.12.3.4"},
		{"10.12.3.4.", "address 10.12.3.4"},
		{"[2001:db8::7]", "address 2001:db8::7"},
		{"[::ffff:10.12.3.4]", "address 10.12.3.4"},
		{"[fe80::1%25eth0]", "invalid"},
		{"10.12.3.4%eth0", "invalid"},
		{"0xA0C0304", "address 10.12.3.4"},
		{"012.014.03.04", "address 10.12.3.4"},
		{"0x7f.1", "address 127.0.0.1"},
		{"0251.0376.0251.0376", "address 169.254.169.254"},
		{"2130706433", "address 127.0.0.1"},
		{"0x", "address 0.0.0.0"},
		{"10.300.1.1", "invalid"},
		{"1.2.3.4.5", "invalid"},
		{"foo.1", "invalid"},
		{"foo.0x1", "invalid"},
		{"foo.0x123456789abc", "invalid"},
		{"foo.08", "invalid"},
		{"a.0xzz", "name a.0xzz"},
		{"1.2.3.4.com", "name 1.2.3.4.com"},
		{"1a", "name 1a"},
		{"API.Corp.Example", "name api.corp.example"},
	} {
		t.Run(tc.spelling, func(t *testing.T) {
			if got := kindOf(host.Parse(host.Unbracket(tc.spelling))); got != tc.want {
				t.Errorf("host.Parse reads %q as %s, want %s", tc.spelling, got, tc.want)
			}
			for _, f := range fronts {
				client, conn := testkit.TCPPair(t)
				go f.server.Serve(t.Context(), conn)
				if _, err := client.Write(f.request(tc.spelling)); err != nil {
					t.Fatal(err)
				}
				client.CloseWrite()
				want := tc.want
				if f.name == "sni" && strings.HasPrefix(want, "address") {
					want = "invalid" // RFC 6066 section 3 does not allow addresses
				}
				select {
				case rec := <-done:
					if got := targetOf(rec); got != want {
						t.Errorf("%s reads %q as %s (%v), want %s", f.name, tc.spelling, got, rec.Err, want)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("%s: the flow to %q did not end within 10s", f.name, tc.spelling)
				}
				client.Close()
			}
		})
	}
}

func kindOf(h host.Host, err error) string {
	switch {
	case err != nil:
		return "invalid"
	case h.Addr.IsValid():
		return "address " + h.Addr.String()
	}
	return "name " + h.Name
}

// targetOf returns how the road has read the host of a flow that failed.
func targetOf(rec *flow.Record) string {
	fe, ok := errors.AsType[*flow.Error](rec.Err)
	switch {
	case !ok:
		return "unknown"
	case fe.Class == flow.BadRequest:
		return "invalid"
	case rec.Source != "literal": // the lookup failed: there is no resolver
		return "name " + fe.Target
	}
	addr := fe.Target // of the policy
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		addr = ap.Addr().String() // of dial
	}
	return "address " + addr
}
