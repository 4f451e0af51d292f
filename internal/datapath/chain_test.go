package datapath

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// TestAliasOfDeniedName checks that a rule by name holds for an alias, that the
// record names the rule, and that the client's hint does not have the alias.
func TestAliasOfDeniedName(t *testing.T) {
	o := &aliases{next: map[string]string{"www": "cdn", "cdn": "db"}}
	r := o.road(t, &policy.Policy{Rules: []policy.Rule{{Name: "no-db", Names: []string{"db.corp.example"}}}})
	rec := record("WWW.corp.example.")
	_, err := r.Connect(t.Context(), rec)
	if flow.ClassOf(err) != flow.Denied || rec.Rule != "no-db" || !strings.Contains(err.Error(), "db.corp.example") || strings.Contains(flow.HintOf(err), "db.corp.example") {
		t.Errorf("Connect: %v with hint %q by rule %q, want denied by no-db, with the alias in the error and not in the hint", err, flow.HintOf(err), rec.Rule)
	}
	if slices.Contains(o.asked, "db") {
		t.Errorf("asked for %q, want no query for db", o.asked)
	}
	r.SetPolicy(&policy.Policy{Mode: policy.Report, Rules: r.Policy().Rules})
	rec = record("www.corp.example")
	if _, err := r.Judge(t.Context(), rec); err != nil || rec.Report != "rule no-db" {
		t.Errorf("in report mode: %v with report %q, want no error and rule no-db", err, rec.Report)
	}
	r.SetPolicy(&policy.Policy{Rules: []policy.Rule{{Name: "cached", Names: []string{"cdn.corp.example"}}}})
	if _, err := r.Judge(t.Context(), record("www.corp.example")); flow.ClassOf(err) != flow.Denied {
		t.Errorf("after a change of the policy: %v, want denied, though the answers are cached", err)
	}
}

// FuzzChain builds a small world of aliases and a policy from each input, and
// compares what the road does with a model of the rules about aliases.
func FuzzChain(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x01\x02\x03\x04\x05\x01\x00\x01\x02\x03\x01\x01\x00\x02"))
	f.Fuzz(func(t *testing.T, b []byte) { chain(t, b) })
}

// TestChain runs the fuzz target on random inputs, and checks that enough of them
// are denied because of an alias: the target alone could pass without one.
func TestChain(t *testing.T) {
	byAlias := testkit.CountInputs(3000, 48, func(b []byte) bool { return chain(t, b) })
	if byAlias < 100 {
		t.Errorf("got %d denials because of an alias in 3000 worlds, want 100 or more", byAlias)
	}
}

// labels are the names of a world, below corp.example.
var labels = []string{"a", "b", "c", "d", "e"}

// chain checks one world, built from b. It reports whether an alias was denied.
func chain(t *testing.T, b []byte) (byAlias bool) {
	pick := func(n int) int {
		if len(b) == 0 {
			return 0
		}
		v := int(b[0]) % n
		b = b[1:]
		return v
	}
	o := &aliases{next: map[string]string{}, whole: pick(2) == 1}
	for i, l := range labels {
		if pick(4) > 0 {
			o.next[l] = labels[(i+1+pick(len(labels)-1))%len(labels)]
		}
	}
	p := &policy.Policy{Direct: policy.DirectAny}
	for range pick(5) {
		r := policy.Rule{Allow: pick(2) == 0}
		for range pick(3) {
			r.Names = append(r.Names, labels[pick(len(labels))]+".corp.example")
		}
		if pick(3) == 0 {
			r.Prefixes = prefixes([]string{"10.0.0.0/8", "10.0.0.1/32"}[pick(2)])
		}
		p.Rules = append(p.Rules, r)
	}
	_, err := o.road(t, p).Judge(t.Context(), record(labels[0]+".corp.example"))
	want, byAlias := o.model(p)
	if flow.ClassOf(err) != want {
		t.Fatalf("aliases %v, rules %+v: %v, want class %s", o.next, p.Rules, err, want)
	}
	for _, l := range o.asked {
		if l != labels[0] && p.Alias(policy.Query{Client: record("a").Client.Addr(), Port: 443}, l+".corp.example").Deny {
			t.Fatalf("aliases %v, rules %+v: asked for %s, which is denied", o.next, p.Rules, l)
		}
	}
	return byAlias
}

// aliases is a world in which each name is an alias of another, or has the address
// 10.0.0.1.
type aliases struct {
	next  map[string]string // labels below corp.example
	whole bool              // an answer has the whole chain
	asked []string          // labels, in order
}

func (o *aliases) road(t *testing.T, p *policy.Policy) *Road {
	r := newRoad(t, &outside{}, *p)
	r.Resolver = resolve.New(resolve.Options{
		Tailnet: func() (resolve.TailnetDNS, bool) {
			return resolve.TailnetDNS{Magic: true, MagicSuffix: "corp.example"}, true
		},
		QueryMagic: o.answer,
		HostsFile:  "/dev/null",
		ResolvConf: "/dev/null",
	})
	return r
}

// answer answers a query. No name has an IPv6 address.
func (o *aliases) answer(_ context.Context, wire []byte) ([]byte, error) {
	q := new(dns.Msg)
	if err := q.Unpack(wire); err != nil {
		return nil, err
	}
	m := new(dns.Msg).SetReply(q)
	if q.Question[0].Qtype != dns.TypeA {
		return m.Pack()
	}
	label, _, _ := strings.Cut(q.Question[0].Name, ".")
	o.asked = append(o.asked, label)
	for range len(labels) {
		h := dns.RR_Header{Name: label + ".corp.example.", Class: dns.ClassINET, Ttl: 60}
		next := o.next[label]
		if next == "" {
			h.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.IPv4(10, 0, 0, 1)})
			break
		}
		h.Rrtype = dns.TypeCNAME
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: h, Target: strings.ToUpper(next) + ".Corp.example."})
		if !o.whole {
			break
		}
		label = next
	}
	return m.Pack()
}

// model says what becomes of a request for the first label, by the words of the
// documentation: a name is denied by the first rule that matches; an alias by the
// first rule that names it, or that allows whatever the name is.
func (o *aliases) model(p *policy.Policy) (class flow.Class, byAlias bool) {
	addr := prefixes("10.0.0.1/32")[0].Addr()
	decides := func(r policy.Rule, name string, alias, known bool) bool {
		named := slices.Contains(r.Names, name+".corp.example")
		if !named && (len(r.Names) > 0 || alias && !r.Allow) {
			return false
		}
		return !known || len(r.Prefixes) == 0 || r.Prefixes[0].Contains(addr)
	}
	denies := func(name string, alias, known bool) bool {
		for _, r := range p.Rules {
			if decides(r, name, alias, known) {
				return !r.Allow && (known || len(r.Prefixes) == 0)
			}
		}
		return false
	}
	if denies(labels[0], false, false) {
		return flow.Denied, false
	}
	var chain []string
	for name := o.next[labels[0]]; name != "" && len(chain) < 2*len(labels); name = o.next[name] {
		if denies(name, true, false) {
			return flow.Denied, true
		}
		chain = append(chain, name)
	}
	if len(chain) == 2*len(labels) {
		return flow.NotFound, false
	}
	for _, name := range chain {
		if denies(name, true, true) {
			return flow.Denied, true
		}
	}
	if denies(labels[0], false, true) {
		return flow.Denied, false
	}
	return flow.OK, false
}
