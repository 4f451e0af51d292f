package resolve

import (
	"net/netip"
	"testing"

	"github.com/pandoproxy/pando/internal/host"
)

// TestPublicName checks which names count as public.
func TestPublicName(t *testing.T) {
	pod := newServer(t, records("www.public.known. 60 IN A 10.12.3.4", "alias.public.known. 60 IN CNAME db.rds.known.", "db.rds.known. 60 IN A 10.12.3.4",
		"web.shop.svc.cluster.local. 60 IN A 10.96.0.9", "zoned.public.known. 60 IN CNAME api.corp.example."))
	r := newResolver(t, Options{
		Tailnet:    up(TailnetDNS{Routes: map[string][]string{"corp.example": {"10.9.9.1"}}}),
		Hosts:      map[string][]netip.Addr{"typed.example": addrs("10.0.0.3")},
		ResolvConf: file(t, "nameserver "+base+"\nsearch shop.svc.cluster.local cluster.local\n"),
	}, map[string]*server{base: pod, "10.9.9.1": newServer(t, records(apiA))})
	for name, want := range map[string]string{
		"www.public.known": "www.public.known", "alias.public.known": "db.rds.known", "web.shop.svc.cluster.local": "",
		"web": "", "api.corp.example": "", "zoned.public.known": "", "typed.example": "",
	} {
		for range 2 { // the second time from the cache
			if a, err := r.Lookup(t.Context(), host.Host{Name: name}); err != nil || a.PublicName != want {
				t.Errorf("Lookup(%s) = %+v, %v, want the public name %q", name, a, err, want)
			}
		}
	}
}
