package dnsclient

import (
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
