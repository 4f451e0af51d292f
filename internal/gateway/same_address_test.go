package gateway_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// unroutedDNS is the server of a zone that no peer has ever carried: a lookup
// there fails at once. A lookup at privateDNS waits for its route.
var (
	privateDNS  = netip.AddrPortFrom(testnet.DNSAddr, 53)
	unroutedDNS = netip.MustParseAddrPort("10.88.0.2:53")
)

func TestSameAddressInThePodNetwork(t *testing.T) { eachMode(t, ownTailnet, sameAddress) }

// sameAddress checks a pod network that has a DNS server at the address of the
// private one, which is even the pod's own resolver. It gets no query for a
// private name, whatever happens to the private server.
func sameAddress(t *testing.T, w *world) {
	if !nstest.InNamespace() {
		t.Skip("SKIPPED, NOT TESTED: a server at that address needs a network namespace; run as root")
	}
	for _, addr := range []netip.AddrPort{privateDNS, unroutedDNS} {
		if err := nstest.ServeLies(addr); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+testnet.DNSAddr.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := w.startWith(t, func(c *config.Config) {
		c.Policy.Direct = "any"
		c.Resolve.Zones = []config.Zone{{Suffix: "unrouted.example", Servers: []string{unroutedDNS.String()}}}
	}, func(_ config.Config, o *gateway.Options) { o.ResolvConf = conf })
	for _, name := range []string{"silent.", "withdrawn.", "lost."} {
		w.cloud.SetRecord(name+testnet.Zone, testnet.APIAddr)
	}

	// The liar is there, for the pod network and for the replica's public names.
	for _, network := range []string{"udp", "tcp"} {
		for _, addr := range []netip.AddrPort{privateDNS, unroutedDNS} {
			if m := ask(t, addr.String(), network, testnet.APIName, dns.TypeA); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != nstest.Lie {
				t.Fatalf("the liar at %v says over %s: %v", addr, network, m)
			}
		}
	}
	if f := w.flowTo(t, r, "www.public.test"); f["source"] != "base" || f["path"] != "direct" {
		t.Errorf("a public name: flow line %v", f)
	}
	seen := len(lies(t))
	if seen < 5 {
		t.Fatalf("the liar was asked %d times, want 5 at least", seen)
	}

	honest := func(host, class string) {
		t.Helper()
		f := w.flowTo(t, r, host)
		if f["class"] != class || class == "ok" && (f["addr"] != testnet.APIAddr.String()+":80" || f["source"] != "zone "+testnet.Zone) {
			t.Errorf("%s: flow line %v, want class %s", host, f, class)
		}
		all := lies(t)
		more := slices.DeleteFunc(slices.Clone(all[seen:]), func(q string) bool { return !strings.Contains(q, host) }) // other tests ask, too
		if len(more) > 0 {
			t.Errorf("%s: the pod network's server was asked %q, want nothing", host, more)
		}
		seen = len(all)
	}
	honest(testnet.APIName, "ok")
	honest("api.unrouted.example", "resolve_failed")
	w.cloud.ServeDNS(privateDNS, staysSilent)
	honest("silent."+testnet.Zone, "timeout")
	w.cloud.ServeDNS(privateDNS, nil)
	honest("dual."+testnet.Zone, "ok")
	w.approve(t, r)
	honest("withdrawn."+testnet.Zone, "resolve_failed")
	w.approve(t, r, testnet.Network, testnet.Network6)

	// The router dies, and while a question waits for it its route goes: what
	// is sent again must not find another way.
	w.cloud.Close()
	withdrawn := make(chan error, 1)
	time.AfterFunc(700*time.Millisecond, func() { withdrawn <- w.net.ApproveRoutes("cloud") }) // TCP has begun to ask, too
	honest("lost."+testnet.Zone, "timeout")
	if err := <-withdrawn; err != nil {
		t.Error(err)
	}
}

// approve lets the cloud carry routes, and returns when the replica knows.
func (w *world) approve(t *testing.T, r *replica, routes ...netip.Prefix) {
	t.Helper()
	if err := w.net.ApproveRoutes("cloud", routes...); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the routes to change", func() bool { return r.gw.Device().Routes(testnet.DNSAddr) == (len(routes) > 0) })
}

func lies(t *testing.T) []string {
	t.Helper()
	list, err := nstest.Lies()
	if err != nil {
		t.Fatal(err)
	}
	return list
}
