package dnsclient

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// reply answers q with code and with records in zone file form.
func reply(t testing.TB, q *dns.Msg, code int, records ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetRcode(q, code)
	for _, s := range records {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	return m
}

// FuzzRead checks that no reply makes read return a result that contradicts
// itself.
func FuzzRead(f *testing.F) {
	q := new(dns.Msg).SetQuestion("www.corp.example.", dns.TypeA)
	for _, m := range []*dns.Msg{
		reply(f, q, dns.RcodeSuccess, "www.corp.example. 60 IN CNAME api.corp.example.", "api.corp.example. 60 IN A 10.0.0.1"),
		reply(f, q, dns.RcodeSuccess, "www.corp.example. 60 IN CNAME www.corp.example."),
		reply(f, q, dns.RcodeNameError),
		reply(f, q, dns.RcodeServerFailure),
	} {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := new(dns.Msg)
		if m.Unpack(wire) != nil || len(m.Question) == 0 {
			return
		}
		r := read(m, m.Question[0])
		usable := m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError
		switch {
		case usable == (r.Err != nil):
			t.Errorf("read of rcode %d: error %v, want an error: %v", m.Rcode, r.Err, !usable)
		case r.TTL < 0:
			t.Errorf("TTL = %s, want 0 or more", r.TTL)
		case len(r.Addrs) > 0 && r.Alias != "":
			t.Errorf("got addresses %v and alias %s, want one of them", r.Addrs, r.Alias)
		case len(r.Addrs) > len(m.Answer):
			t.Errorf("got %d addresses from %d records", len(r.Addrs), len(m.Answer))
		}
		for _, a := range r.Addrs {
			if !a.IsValid() || a.Is4In6() || m.Question[0].Qtype == dns.TypeA && !a.Is4() {
				t.Errorf("got address %v for type %d", a, m.Question[0].Qtype)
			}
		}
	})
}

// TestKeep checks which addresses of a large name are kept.
func TestKeep(t *testing.T) {
	for _, tc := range []struct{ v6, v4, want6, want4 int }{
		{0, 0, 0, 0}, {1, 1, 1, 1}, {16, 16, 16, 16}, {17, 16, 16, 16}, {4000, 4000, 16, 16},
		{4000, 0, 32, 0}, {0, 4000, 0, 32}, {4000, 3, 29, 3}, {3, 4000, 3, 29},
	} {
		var r Result
		for i := range tc.v6 {
			r.Addrs = append(r.Addrs, netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}))
		}
		for i := range tc.v4 {
			r.Addrs = append(r.Addrs, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		}
		all := r.Addrs
		r.Keep()
		want := append(slices.Clone(all[:tc.want6]), all[tc.v6:tc.v6+tc.want4]...)
		if !slices.Equal(r.Addrs, want) || r.Left != len(all)-len(want) {
			t.Errorf("of %d IPv6 and %d IPv4 addresses, kept %v and left %d, want the first %d and %d", tc.v6, tc.v4, r.Addrs, r.Left, tc.want6, tc.want4)
		}
	}
}

// TestShorten checks that a reply with thousands of records is parsed in part, and a
// smaller one whole.
func TestShorten(t *testing.T) {
	q := new(dns.Msg).SetQuestion("many.corp.example.", dns.TypeA)
	for _, n := range []int{0, 1, maxRecords, maxRecords + 1, 4000} {
		m := new(dns.Msg).SetReply(q)
		m.Compress = true
		for i := range n {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{10, 0, byte(i >> 8), byte(i)}})
		}
		m.SetEdns0(1232, false)
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		got := new(dns.Msg)
		if err := got.Unpack(shorten(wire)); err != nil || len(got.Answer) != min(n, maxRecords) || (got.IsEdns0() == nil) != (n > maxRecords) {
			t.Errorf("%d records: %d, EDNS %v, %v, want at most %d, and EDNS if that is all", n, len(got.Answer), got.IsEdns0(), err, maxRecords)
		}
	}
}
