package resolve

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
	"github.com/pandoproxy/pando/internal/datapath/resolve/owner"
	"github.com/pandoproxy/pando/internal/datapath/resolve/podfiles"
	"github.com/pandoproxy/pando/internal/flow"
)

// TestPlan checks which sources are asked, in which order and through which
// network, and what ends the lookup. It sends no query.
func TestPlan(t *testing.T) {
	table := func(names ...string) map[string][]netip.Addr {
		m := map[string][]netip.Addr{}
		for _, n := range names {
			m[n] = addrs("10.0.0.1")
		}
		return m
	}
	pod := podfiles.Files{Conf: &dns.ClientConfig{Servers: []string{"192.0.2.1"}, Port: "53", Search: []string{"ns.svc.cluster.local", "cluster.local"}}}
	zones := func(suffixes ...string) map[string]Zone {
		m := map[string]Zone{}
		for _, s := range suffixes {
			m[s] = Zone{Servers: []string{"10.9.9.1"}}
		}
		return m
	}
	global := TailnetDNS{Resolvers: []string{"https://dns.example/", "192.0.2.53"}}
	for _, tc := range []struct {
		name, host string
		view       view
		want       []string // the steps that are run: "source name ending"
	}{
		{"host_table", "db.example", view{Owners: owner.Owners{Hosts: table("db.example")}, up: true}, []string{"hosts db.example known"}},
		{"hosts_file_while_not_up", "db.example", view{files: podfiles.Files{Hosts: table("db.example")}}, []string{"hosts_file db.example known"}},
		{"not_up", "db.example", view{files: pod}, []string{" db.example known error"}},
		{"pod_alone", "db.example", view{files: pod, up: true},
			[]string{"base db.example by pod", "base db.example.ns.svc.cluster.local by pod", "base db.example.cluster.local by pod"}},
		{"pod_short_name", "db", view{files: pod, up: true}, []string{"base db.ns.svc.cluster.local by pod", "base db.cluster.local by pod", "base db by pod"}},
		{"pod_service", "db.ns.svc", view{files: pod, up: true},
			[]string{"base db.ns.svc.ns.svc.cluster.local by pod", "base db.ns.svc.cluster.local by pod", "base db.ns.svc by pod"}},
		{"no_resolv_conf", "db.example", view{files: podfiles.Files{ConfErr: errors.New("gone")}, up: true}, []string{"base db.example known error"}},
		{"record", "db.example", view{Owners: owner.Owners{Tailnet: TailnetDNS{Records: table("db.example")}, Zones: zones("example")}, up: true}, []string{"record db.example known"}},
		{"magic", "db.ts.example", view{Owners: owner.Owners{Tailnet: TailnetDNS{Magic: true, MagicSuffix: "ts.example"}, Zones: zones("example")}, up: true}, []string{"magicdns db.ts.example by magic"}},
		{"magic_off", "db.ts.example", view{Owners: owner.Owners{Tailnet: TailnetDNS{MagicSuffix: "ts.example"}, Zones: zones("example")}, up: true}, []string{"zone example db.ts.example by tunnel"}},
		{"zone_of_the_magic_suffix", "db.ts.example", view{Owners: owner.Owners{Tailnet: TailnetDNS{Magic: true, MagicSuffix: "ts.example"}, Zones: zones("ts.example")}, up: true}, []string{"zone ts.example db.ts.example by tunnel"}},
		{"route_of_the_magic_suffix", "db.ts.example", view{Owners: owner.Owners{Tailnet: TailnetDNS{Magic: true, MagicSuffix: "ts.example", Routes: map[string][]string{"ts.example": {"10.9.9.1"}}}}, up: true}, []string{"magicdns db.ts.example by magic"}},
		{"longest_zone", "a.deep.example", view{Owners: owner.Owners{Zones: zones("example", "deep.example")}, files: pod, up: true}, []string{"zone deep.example a.deep.example by tunnel"}},
		{"direct_zone", "a.example", view{Owners: owner.Owners{Zones: map[string]Zone{"example": {Servers: []string{"192.0.2.3"}, Direct: true}}}, files: pod, up: true}, []string{"zone example a.example by pod"}},
		{"zone_without_resolvers", "a.example", view{Owners: owner.Owners{Zones: map[string]Zone{"example": {}}}, files: pod, up: true}, []string{"zone example a.example known nx"}},
		{"served_zone_with_an_owner", "a.example", view{Owners: owner.Owners{Zones: zones("example")}, served: []string{"example"}, files: pod, up: true}, []string{"zone example a.example by tunnel"}},
		{"served_zone_without_owner", "a.example", view{Owners: owner.Owners{Tailnet: global}, served: []string{"example"}, askGlobal: true, files: pod, up: true}, []string{"served a.example known error"}},
		{"global", "www.example", view{Owners: owner.Owners{Tailnet: global}, askGlobal: true, files: pod, up: true}, []string{"global www.example by global"}},
		{"global_that_cannot_be_dialled", "www.example.cluster.local", view{Owners: owner.Owners{Tailnet: global}, files: podfiles.Files{Conf: &dns.ClientConfig{Servers: []string{"192.0.2.1"}, Port: "53"}}, up: true}, []string{"base www.example.cluster.local by pod"}},
		{"global_over_https_alone", "www.example", view{Owners: owner.Owners{Tailnet: TailnetDNS{Resolvers: []string{"https://dns.example/"}}}, askGlobal: true, files: podfiles.Files{Conf: &dns.ClientConfig{Servers: []string{"192.0.2.1"}, Port: "53"}}, up: true}, []string{"base www.example by pod"}},
		{"global_but_of_the_cluster", "web.cluster.local", view{Owners: owner.Owners{Tailnet: global}, askGlobal: true, files: podfiles.Files{Conf: &dns.ClientConfig{Servers: []string{"192.0.2.1"}, Port: "53", Search: []string{"cluster.local"}}}, up: true},
			[]string{"base web.cluster.local by pod", "base web.cluster.local.cluster.local by pod"}},
		{"completed", "db", view{Owners: owner.Owners{Tailnet: TailnetDNS{Search: []string{"first.example", "second.example"}}, Zones: zones("second.example")}, files: podfiles.Files{Conf: &dns.ClientConfig{Servers: []string{"192.0.2.1"}, Port: "53"}}, up: true},
			[]string{"zone second.example db.second.example by tunnel, next if missing", "base db by pod"}},
		{"completed_in_the_host_table", "db", view{Owners: owner.Owners{Tailnet: TailnetDNS{Search: []string{"first.example", "second.example"}}, Zones: zones("first.example"), Hosts: table("db.second.example")}, files: pod, up: true},
			[]string{"zone first.example db.first.example by tunnel, next if missing", "hosts db.second.example known"}},
		{"completed_by_global", "db", view{Owners: owner.Owners{Tailnet: TailnetDNS{Search: []string{"corp.example"}, Resolvers: []string{"192.0.2.53"}}}, askGlobal: true, files: podfiles.Files{Conf: &dns.ClientConfig{Servers: []string{"192.0.2.1"}, Port: "53"}}, up: true},
			[]string{"global db.corp.example by global, next if missing or failed", "base db by pod"}},
		{"completed_by_the_pod_into_a_zone", "db", view{Owners: owner.Owners{Zones: zones("corp.example")}, files: podfiles.Files{Conf: &dns.ClientConfig{Servers: []string{"192.0.2.1"}, Port: "53", Search: []string{"corp.example"}}}, up: true},
			[]string{"zone corp.example db.corp.example by tunnel, next if missing", "base db by pod"}},
		{"completed_by_the_pod_into_the_host_table", "db", view{Owners: owner.Owners{Hosts: table("db.corp.example")}, files: podfiles.Files{Conf: &dns.ClientConfig{Servers: []string{"192.0.2.1"}, Port: "53", Search: []string{"corp.example"}}}, up: true},
			[]string{"hosts db.corp.example known"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, s := range tc.view.plan(tc.host) {
				if s.skip == "" {
					got = append(got, sketch(s))
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("plan(%q) runs\n%s\nwant\n%s", tc.host, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// sketch describes a step in a few words.
func sketch(s step) string {
	out := s.source + " " + s.name
	switch {
	case s.known != nil && s.known.Err != nil:
		return out + " known error"
	case s.known != nil && s.known.NX:
		return out + " known nx"
	case s.known != nil:
		return out + " known"
	}
	out += " by " + [...]string{tunnel: "tunnel", podNetwork: "pod", globalNetwork: "global", magicDNS: "magic"}[s.via]
	switch s.ends {
	case onAnswer:
		out += ", next if missing or failed"
	case onAnswerOrFailure:
		out += ", next if missing"
	}
	return out
}

// TestPlanSaysWhyNot checks the reasons for which sources are not asked.
func TestPlanSaysWhyNot(t *testing.T) {
	conf := podfiles.Files{Conf: &dns.ClientConfig{Servers: []string{"192.0.2.1"}, Port: "53", Search: []string{"cluster.local"}}}
	for _, tc := range []struct {
		name, host, source, want string
		view                     view
	}{
		{"no_entry", "www.example", SourceHosts, "no entry", view{up: true, files: conf}},
		{"magic_is_off", "www.example", SourceMagicDNS, "not asked: MagicDNS is off", view{up: true, files: conf}},
		{"not_below_magic", "www.example", SourceMagicDNS, "not asked: the name is not below ts.example", view{Owners: owner.Owners{Tailnet: TailnetDNS{Magic: true, MagicSuffix: "ts.example"}}, up: true, files: conf}},
		{"more_specific", "a.b.ts.example", SourceMagicDNS, "not asked: a zone is more specific", view{Owners: owner.Owners{Tailnet: TailnetDNS{Magic: true, MagicSuffix: "ts.example"}, Zones: map[string]Zone{"b.ts.example": {}}}, up: true, files: conf}},
		{"no_zone", "www.example", "zone", "no zone contains the name", view{up: true, files: conf}},
		{"https_resolver", "www.example", SourceGlobal, "not asked: invalid resolver \"https://dns.example/\": only plain DNS at an IP address, and peers of the tailnet, are supported", view{Owners: owner.Owners{Tailnet: TailnetDNS{Resolvers: []string{"https://dns.example/"}}}, askGlobal: true, up: true, files: conf}},
		{"no_global", "www.example", SourceGlobal, "not asked: the tailnet has no usable global resolver", view{up: true, files: conf}},
		{"of_the_cluster", "web.cluster.local", SourceGlobal, "not asked: the name belongs to the cluster", view{Owners: owner.Owners{Tailnet: TailnetDNS{Resolvers: []string{"192.0.2.53"}}}, askGlobal: true, up: true, files: conf}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			steps := tc.view.plan(tc.host)
			i := slices.IndexFunc(steps, func(s step) bool { return s.source == tc.source })
			if i < 0 || steps[i].skip != tc.want {
				t.Errorf("plan(%q) says of %s in %+v, want %q", tc.host, tc.source, steps, tc.want)
			}
		})
	}
}

// TestEnding checks which outcomes end a plan.
func TestEnding(t *testing.T) {
	outcomes := map[string]*dnsclient.Result{
		"answer":  {Addrs: addrs("10.0.0.1")},
		"alias":   {Alias: "a.example"},
		"missing": {NX: true},
		"failure": {Err: errors.New("refused")},
		"timeout": {Err: timeout{}},
		"whole":   {NX: true, Zone: "corp.example"},
		"partial": {NX: true, Zone: "example"},
		"refused": {Err: &flow.Error{Class: flow.Overloaded}},
	}
	for e, ends := range map[ending][]string{
		onAnswer:          {"alias", "answer", "refused"},
		onAnswerOrFailure: {"alias", "answer", "failure", "timeout", "refused"},
		onAnswerOrTimeout: {"alias", "answer", "timeout", "refused"},
		unlessPartial:     {"alias", "answer", "timeout", "refused", "whole"},
		onAnything:        {"alias", "answer", "failure", "missing", "timeout", "refused", "whole", "partial"},
	} {
		for what, res := range outcomes {
			want := slices.Contains(ends, what)
			if got := e.endedBy(res); got != want {
				t.Errorf("ending %d: endedBy(%s) = %v, want %v", e, what, got, want)
			}
		}
	}
}

// timeout is an error of a network that timed out.
type timeout struct{}

func (timeout) Error() string   { return "timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }
