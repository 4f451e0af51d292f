package resolve

import (
	"net/netip"
	"testing"

	"github.com/pandoproxy/pando/internal/host"
)

func TestHostTable(t *testing.T) {
	r := New(Options{Hosts: map[string][]netip.Addr{
		"api.example.com": addrs("10.0.0.1"), "*.example.com": addrs("10.0.0.2"), "*.eu.example.com": addrs("10.0.0.3"), "*.empty.example.com": nil,
	}})
	for name, want := range map[string]string{
		"api.example.com": "10.0.0.1", "x.api.example.com": "10.0.0.2", "b.example.com": "10.0.0.2", "a.b.example.com": "10.0.0.2",
		"b.eu.example.com": "10.0.0.3", "a.b.eu.example.com": "10.0.0.3", "eu.example.com": "10.0.0.2", "x.empty.example.com": "10.0.0.2",
	} {
		if a, err := r.Lookup(t.Context(), host.Host{Name: name}); err != nil || a.Source != SourceHosts || a.Addrs[0] != netip.MustParseAddr(want) {
			t.Errorf("Lookup(%q) = %+v, %v, want %s of the host table", name, a, err, want)
		}
	}
	for _, name := range []string{"example.com", "com", "badexample.com", "api.example.org"} {
		if a := lookupHosts(*r.hosts.Load(), name); a != nil {
			t.Errorf("lookupHosts(%q) = %v, want no address", name, a)
		}
	}
	r.SetHosts(map[string][]netip.Addr{"api.example.com": addrs("10.0.0.9")})
	if a, err := r.Lookup(t.Context(), host.Host{Name: "api.example.com"}); err != nil || a.Addrs[0] != netip.MustParseAddr("10.0.0.9") {
		t.Errorf("Lookup after SetHosts = %+v, %v, want 10.0.0.9", a, err)
	}
}
