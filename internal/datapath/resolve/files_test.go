package resolve

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"

	"github.com/pandoproxy/pando/internal/datapath/resolve/owner"
)

// TestBaseFiles checks how /etc/hosts and resolv.conf are read, and read again
// when they change.
func TestBaseFiles(t *testing.T) {
	s := newServer(t, records("svc.ns.cluster.local. 60 IN A 10.0.0.1", "deep.name.cluster.local. 60 IN A 10.0.0.2", "deep.name. 60 IN A 10.0.0.3", "only. 60 IN A 10.0.0.4"))
	second := newServer(t, records("svc. 60 IN A 10.0.0.9"))
	conf := file(t, "nameserver "+base+"\nsearch ns.cluster.local Cluster.Local.\noptions ndots:5\n")
	hosts := file(t, "# comment\n10.1.0.1 Pod-1.Example. pod # a pod\nfd00::1 pod\nnot-an-address x\n10.1.0.2\n")
	newOne := func() *Resolver {
		return newResolver(t, Options{ResolvConf: conf, HostsFile: hosts}, map[string]*server{base: s, "192.0.2.2": second})
	}
	r := newOne()
	lookup(t, r, "pod-1.example", SourceFile, "10.1.0.1")
	lookup(t, r, "pod", SourceFile, "10.1.0.1", "fd00::1")
	lookup(t, r, "svc", SourceBase, "10.0.0.1")
	lookup(t, r, "deep.name", SourceBase, "10.0.0.3") // a name with a dot is asked as it is first
	lookup(t, r, "only", SourceBase, "10.0.0.4")
	if q := s.queries(" only"); len(q) != 2 || len(s.queries("only.ns.cluster.local")) != 1 {
		t.Errorf("asked %v, want the completed forms of only once and first, and then only twice", s.queries(""))
	}
	lookupFails(t, r, "x", flow.NotFound, "source: base")

	for i, tc := range []struct {
		content string
		check   func(*Resolver)
	}{
		{"nameserver 192.0.2.2\n", func(r *Resolver) { lookup(t, r, "svc", SourceBase, "10.0.0.9") }},
		{"search example\n", func(r *Resolver) { lookup(t, r, "svc", SourceBase, "10.0.0.9") }}, // no server: the last good file stays in use
		{"nameserver 192.0.2.1\n", func(r *Resolver) { lookup(t, r, "deep.name", SourceBase, "10.0.0.3") }},
	} {
		if err := os.WriteFile(conf, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i+1) * time.Hour) // later than any time of the file system
		if err := os.Chtimes(conf, at, at); err != nil {
			t.Fatal(err)
		}
		r.answers.Purge()
		time.Sleep(time.Second) // the files are looked at once a second
		tc.check(r)
	}

	if err := os.Remove(hosts); err != nil { // a pod without /etc/hosts
		t.Fatal(err)
	}
	lookup(t, newOne(), "deep.name", SourceBase, "10.0.0.3")
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	lookupFails(t, newOne(), "deep.name", flow.ResolveFailed, "source: base")
	if err := os.WriteFile(hosts, []byte("10.1.0.1 pod\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lookup(t, newOne(), "pod", SourceFile, "10.1.0.1") // without any resolver
}

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
		if a := owner.InTable(*r.hosts.Load(), name); a != nil {
			t.Errorf("owner.InTable(%q) = %v, want no address", name, a)
		}
	}
	r.SetHosts(map[string][]netip.Addr{"api.example.com": addrs("10.0.0.9")})
	if a, err := r.Lookup(t.Context(), host.Host{Name: "api.example.com"}); err != nil || a.Addrs[0] != netip.MustParseAddr("10.0.0.9") {
		t.Errorf("Lookup after SetHosts = %+v, %v, want 10.0.0.9", a, err)
	}
}
