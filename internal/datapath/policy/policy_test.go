package policy

import (
	"net/netip"
	"testing"

	"github.com/pandoproxy/pando/internal/testkit"
)

const (
	client = "10.244.1.7"
	target = "100.64.0.9"
	name   = "api.corp.example"
)

var (
	allow    = Verdict{Tailnet: true}
	anywhere = prefixes("0.0.0.0/0", "::/0")
)

func byRule(label string) Verdict {
	return Verdict{Deny: true, Reason: ByRule, Rule: label, Tailnet: true}
}

func allowedBy(label string) Verdict { return Verdict{Rule: label, Tailnet: true} }

// TestAddressRules checks which rule decides. A peer routes every address here.
func TestAddressRules(t *testing.T) {
	deny := func(r Rule) []Rule { return []Rule{r} }
	for _, c := range []struct {
		name           string
		rules          []Rule
		client, target string // empty means the constants
		q              Query  // Port 0 means 443
		want           Verdict
	}{
		{name: "no_rules", want: allow},
		{name: "empty_rule_matches_everything", rules: deny(Rule{}), want: byRule("#1")},
		{name: "first_match_denies", rules: []Rule{{Name: "deny"}, {Name: "allow", Allow: true}}, want: byRule("deny")},
		{name: "first_match_allows", rules: []Rule{{Name: "allow", Allow: true}, {Name: "deny"}}, want: allowedBy("allow")},
		{name: "skips_what_does_not_match", rules: []Rule{{Ports: []PortRange{{22, 22}}}, {Allow: true}, {}}, want: allowedBy("#2")},

		{name: "from_inside", rules: deny(Rule{From: prefixes("10.0.0.0/8")}), want: byRule("#1")},
		{name: "from_second_prefix", rules: deny(Rule{From: prefixes("192.0.2.0/24", "10.0.0.0/8")}), want: byRule("#1")},
		{name: "from_outside", rules: deny(Rule{From: prefixes("10.245.0.0/16")}), want: allow},
		{name: "from_ipv4_mapped_client", rules: deny(Rule{From: prefixes("10.0.0.0/8")}), client: "::ffff:10.244.1.7", want: byRule("#1")},
		{name: "from_ipv6_client", rules: deny(Rule{From: prefixes("fe80::/10")}), client: "fe80::1", want: byRule("#1")},
		{name: "from_client_with_zone", rules: deny(Rule{From: prefixes("fe80::/10")}), client: "fe80::1%eth0", want: byRule("#1")},
		{name: "from_all_ipv4_leaves_ipv6_out", rules: deny(Rule{From: prefixes("0.0.0.0/0")}), client: "2001:db8::1", want: allow},

		{name: "name_exact", rules: deny(Rule{Names: []string{name}}), q: Query{Name: name}, want: byRule("#1")},
		{name: "name_exact_is_no_suffix", rules: deny(Rule{Names: []string{"corp.example"}}), q: Query{Name: name}, want: allow},
		{name: "name_suffix", rules: deny(Rule{Names: []string{"*.corp.example"}}), q: Query{Name: name}, want: byRule("#1")},
		{name: "name_suffix_many_labels", rules: deny(Rule{Names: []string{"*.example"}}), q: Query{Name: name}, want: byRule("#1")},
		{name: "name_suffix_not_itself", rules: deny(Rule{Names: []string{"*.corp.example"}}), q: Query{Name: "corp.example"}, want: allow},
		{name: "name_suffix_not_its_dot", rules: deny(Rule{Names: []string{"*.corp.example"}}), q: Query{Name: ".corp.example"}, want: allow},
		{name: "name_suffix_whole_labels", rules: deny(Rule{Names: []string{"*.corp.example"}}), q: Query{Name: "api.notcorp.example"}, want: allow},
		{name: "name_second_pattern", rules: deny(Rule{Names: []string{"db.corp.example", "*.corp.example"}}), q: Query{Name: name}, want: byRule("#1")},
		{name: "name_by_search_domain", rules: deny(Rule{Names: []string{"*.corp.example"}}), q: Query{Name: "api", Also: name}, want: byRule("#1")},
		{name: "name_as_given_beside_search_domain", rules: deny(Rule{Names: []string{"api"}}), q: Query{Name: "api", Also: name}, want: byRule("#1")},
		{name: "name_by_search_domain_allows", rules: []Rule{{Names: []string{name}, Allow: true}, {}}, q: Query{Name: "api", Also: name}, want: allowedBy("#1")},
		{name: "name_by_another_search_domain", rules: deny(Rule{Names: []string{name}}), q: Query{Name: "api", Also: "api.other.example"}, want: allow},
		{name: "names_do_not_match_an_address", rules: deny(Rule{Names: []string{target, "*.9"}}), want: allow},

		{name: "prefix_inside", rules: deny(Rule{Prefixes: prefixes("100.64.0.0/16")}), want: byRule("#1")},
		{name: "prefix_outside", rules: deny(Rule{Prefixes: prefixes("100.65.0.0/16", "fd00::/8")}), want: allow},
		{name: "prefix_ipv4_mapped_target", rules: deny(Rule{Prefixes: prefixes("100.64.0.0/16")}), target: "::ffff:100.64.0.9", want: byRule("#1")},
		{name: "prefix_target_with_zone", rules: deny(Rule{Prefixes: prefixes("fd00::/8")}), target: "fd00::1%eth0", want: byRule("#1")},

		{name: "prefix_inside_nat64", rules: deny(Rule{Prefixes: prefixes("8.8.8.8/32")}), target: "64:ff9b::808:808", want: byRule("#1")},
		{name: "prefix_inside_nat64_of_another", rules: deny(Rule{Prefixes: prefixes("8.8.4.4/32")}), target: "64:ff9b::808:808", want: allow},
		{name: "prefix_inside_nat64_local", rules: deny(Rule{Prefixes: prefixes("10.12.0.0/16")}), target: "64:ff9b:1::10.12.3.4", want: byRule("#1")},
		{name: "prefix_inside_4via6", rules: deny(Rule{Prefixes: prefixes("10.12.0.0/16")}), target: "fd7a:115c:a1e0:b1a:0:7:a0c:304", want: byRule("#1")},
		{name: "prefix_inside_6to4", rules: deny(Rule{Prefixes: prefixes("10.12.0.0/16")}), target: "2002:a0c:304::1", want: byRule("#1")},
		{name: "prefix_inside_translated", rules: deny(Rule{Prefixes: prefixes("10.12.0.0/16")}), target: "::ffff:0:10.12.3.4", want: byRule("#1")},
		{name: "prefix_around_4via6", rules: deny(Rule{Prefixes: prefixes("fd7a:115c:a1e0:b1a::/64")}), target: "fd7a:115c:a1e0:b1a:0:7:a0c:304", want: byRule("#1")},
		{name: "prefix_inside_does_not_allow", rules: []Rule{{Prefixes: prefixes("10.12.0.0/16"), Allow: true}, {}}, target: "fd7a:115c:a1e0:b1a:0:7:a0c:304", want: byRule("#2")},

		{name: "port_first_of_range", rules: deny(Rule{Ports: []PortRange{{443, 500}}}), want: byRule("#1")},
		{name: "port_last_of_range", rules: deny(Rule{Ports: []PortRange{{22, 22}, {1, 443}}}), want: byRule("#1")},
		{name: "port_below", rules: deny(Rule{Ports: []PortRange{{444, 65535}}}), want: allow},
		{name: "port_above", rules: deny(Rule{Ports: []PortRange{{1, 442}}}), want: allow},
		{name: "port_65535", rules: deny(Rule{Ports: []PortRange{{65535, 65535}}}), q: Query{Port: 65535}, want: byRule("#1")},

		{name: "all_fields", rules: deny(all(nil)), q: Query{Name: name}, want: byRule("#1")},
		{name: "all_fields_but_from", rules: deny(all(func(r *Rule) { r.From = prefixes("192.0.2.0/24") })), q: Query{Name: name}, want: allow},
		{name: "all_fields_but_name", rules: deny(all(func(r *Rule) { r.Names = []string{"db"} })), q: Query{Name: name}, want: allow},
		{name: "all_fields_but_prefix", rules: deny(all(func(r *Rule) { r.Prefixes = prefixes("fd00::/8") })), q: Query{Name: name}, want: allow},
		{name: "all_fields_but_port", rules: deny(all(func(r *Rule) { r.Ports = []PortRange{{80, 80}} })), q: Query{Name: name}, want: allow},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := c.q
			q.Client = netip.MustParseAddr(or(c.client, client))
			q.Port = or(q.Port, 443)
			p := Policy{Rules: c.rules}
			if got := p.Address(q, netip.MustParseAddr(or(c.target, target)), true); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// all is a rule whose every field matches, before edit.
func all(edit func(*Rule)) Rule {
	r := Rule{From: prefixes("10.0.0.0/8"), Names: []string{name}, Prefixes: prefixes("100.64.0.0/10"), Ports: []PortRange{{443, 443}}}
	if edit != nil {
		edit(&r)
	}
	return r
}

// TestName checks that Name denies only if every address would be denied.
func TestName(t *testing.T) {
	undecided := Verdict{}
	denied := func(label string) Verdict { return Verdict{Deny: true, Reason: ByRule, Rule: label} }
	for _, c := range []struct {
		name  string
		rules []Rule
		want  Verdict
	}{
		{"no_rules", nil, undecided},
		{"deny_any_address", []Rule{{Name: "closed", Names: []string{name}}}, denied("closed")},
		{"deny_every_prefix", []Rule{{Prefixes: anywhere}}, denied("#1")},
		{"deny_every_prefix_among_others", []Rule{{Prefixes: prefixes("10.0.0.0/8", "::/0", "0.0.0.0/0")}}, denied("#1")},
		{"deny_all_ipv4", []Rule{{Prefixes: prefixes("0.0.0.0/0")}}, undecided},
		{"deny_all_ipv6", []Rule{{Prefixes: prefixes("::/0")}}, undecided},
		{"deny_two_halves", []Rule{{Prefixes: prefixes("0.0.0.0/1", "128.0.0.0/1", "::/0")}}, undecided},
		{"deny_prefix_first", []Rule{{Prefixes: prefixes("10.0.0.0/8")}, {}}, undecided},
		{"allow_first", []Rule{{Allow: true}, {}}, undecided},
		{"allow_prefix_first", []Rule{{Allow: true, Prefixes: prefixes("10.0.0.0/8")}, {}}, undecided},
		{"allow_of_another_name_first", []Rule{{Allow: true, Names: []string{"db"}}, {}}, denied("#2")},
		{"allow_of_another_client_first", []Rule{{Allow: true, From: prefixes("192.0.2.0/24")}, {}}, denied("#2")},
		{"deny_prefix_of_another_port_first", []Rule{{Prefixes: prefixes("10.0.0.0/8"), Ports: []PortRange{{22, 22}}}, {}}, denied("#2")},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Policy{Rules: c.rules}
			q := Query{Client: netip.MustParseAddr(client), Name: name, Port: 443}
			if got := p.Name(q); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestDirect(t *testing.T) {
	const (
		none       = "none"
		publicOnly = "public"
		all        = "any"
	)
	for _, c := range []struct {
		name, addr string
		least      Direct // the strictest value that allows the address
	}{
		{"public_ipv4", "8.8.8.8", publicOnly},
		{"public_ipv6", "2606:4700::1111", publicOnly},
		{"public_ipv4_mapped", "::ffff:8.8.8.8", publicOnly},
		{"public_behind_nat64", "64:ff9b::8.8.8.8", publicOnly},
		{"private_10", "10.0.0.1", all},
		{"private_172", "172.31.255.255", all},
		{"private_192", "192.168.0.1", all},
		{"private_ipv4_mapped", "::ffff:10.0.0.1", all},
		{"private_behind_nat64", "64:ff9b::10.0.0.1", all},
		{"private_behind_6to4", "2002:a00:1::1", all},
		{"shared", "100.64.0.1", all},
		{"documentation_ipv4", "192.0.2.1", all},
		{"documentation_ipv6", "2001:db8::1", all},
		{"benchmarking", "198.19.0.1", all},
		{"reserved", "240.0.0.1", all},
		{"teredo", "2001:0:4136:e378:8000:63bf:3fff:fdd2", all},
		{"unique_local", "fd00::1", all},
		{"outside_global_unicast", "4000::1", all},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, d := range []Direct{"", none, publicOnly, all} {
				want := Verdict{Deny: true, Reason: NotRouted}
				if d == all || d == c.least {
					want = Verdict{}
				}
				p := Policy{Direct: d}
				if got := p.Address(Query{Port: 443}, netip.MustParseAddr(c.addr), false); got != want {
					t.Errorf("direct %q: got %+v, want %+v", d, got, want)
				}
				if got := p.Address(Query{Port: 443}, netip.MustParseAddr(c.addr), true); got != allow {
					t.Errorf("direct %q, routed: got %+v, want %+v", d, got, allow)
				}
			}
		})
	}
	t.Run("rule_is_named_with_not_routed", func(t *testing.T) {
		p := Policy{Rules: []Rule{{Name: "ok", Allow: true}}}
		want := Verdict{Deny: true, Reason: NotRouted, Rule: "ok"}
		if got := p.Address(Query{Port: 443}, netip.MustParseAddr("8.8.8.8"), false); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestPublic checks the addresses that a resolver of the tailnet may have to be asked
// directly.
func TestPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"8.8.8.8":                true,
		"::ffff:8.8.8.8":         true,
		"2606:4700:4700::1111":   true,
		"64:ff9b::8.8.8.8":       true,
		"10.0.0.2":               false,
		"172.16.0.2":             false,
		"192.168.0.2":            false,
		"::ffff:10.0.0.2":        false,
		"64:ff9b::10.0.0.2":      false,
		"100.64.0.7":             false,
		"100.100.100.100":        false,
		"fd00::53":               false,
		"fd7a:115c:a1e0::53":     false,
		"127.0.0.1":              false,
		"127.0.0.53":             false,
		"::1":                    false,
		"0.0.0.0":                false,
		"169.254.169.253":        false, // the resolver of AWS, in each network another one
		"168.63.129.16":          false, // that of Azure
		"fd00:ec2::253":          false,
		"fe80::1%eth0":           false,
		"2002:a00:2::1":          false,
		"2a00:1::200:5efe:a00:2": false,
		"224.0.0.251":            false,
	} {
		if got := Public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Public(%s) = %v, want %v", addr, got, want)
		}
	}
}

// TestForbidden checks the addresses that no rule, no route and no spelling reaches.
func TestForbidden(t *testing.T) {
	p := Policy{Direct: DirectAny, Rules: []Rule{{Allow: true}}}
	for _, c := range []struct{ name, addr string }{
		{"this_network", "0.0.0.0"},
		{"loopback", "127.0.0.1"},
		{"loopback_last", "127.255.255.255"},
		{"metadata", "169.254.169.254"},
		{"multicast", "239.255.255.250"},
		{"broadcast", "255.255.255.255"},
		{"tailscale_service", "100.100.100.100"},
		{"tailscale_service_ipv6", "fd7a:115c:a1e0::53"},
		{"metadata_alibaba", "100.100.100.200"},
		{"metadata_oracle", "192.0.0.192"},
		{"wireserver_azure", "168.63.129.16"},
		{"wireserver_azure_nat64", "64:ff9b::168.63.129.16"},
		{"metadata_aws_ipv6", "fd00:ec2::254"},
		{"metadata_gcp_ipv6", "fd20:ce::254"},
		{"unspecified_ipv6", "::"},
		{"loopback_ipv6", "::1"},
		{"link_local_ipv6", "fe80::1"},
		{"link_local_ipv6_with_zone", "fe80::1%eth0"},
		{"loopback_ipv6_with_zone", "::1%lo"},
		{"site_local", "fec0::1"},
		{"multicast_ipv6", "ff02::1"},
		{"loopback_mapped", "::ffff:127.0.0.1"},
		{"loopback_mapped_with_zone", "::ffff:127.0.0.1%eth0"},
		{"loopback_compatible", "::127.0.0.1"},
		{"loopback_translated", "::ffff:0:127.0.0.1"},
		{"loopback_nat64", "64:ff9b::127.0.0.1"},
		{"loopback_nat64_local", "64:ff9b:1::127.0.0.1"},
		{"metadata_nat64_local_48", "64:ff9b:1:a9fe:a9:fe00::"},
		{"metadata_nat64_local_56", "64:ff9b:1:aaa9:fe:a9fe::"},
		{"metadata_nat64_local_64", "64:ff9b:1:aaaa:a9:fea9:fe00::"},
		{"loopback_6to4", "2002:7f00:1::1"},
		{"loopback_4via6", "fd7a:115c:a1e0:b1a:0:1:7f00:1"},
		{"metadata_mapped", "::ffff:169.254.169.254"},
		{"metadata_compatible", "::169.254.169.254"},
		{"metadata_translated", "::ffff:0:a9fe:a9fe"},
		{"metadata_nat64", "64:ff9b::a9fe:a9fe"},
		{"metadata_nat64_with_zone", "64:ff9b::a9fe:a9fe%eth0"},
		{"metadata_6to4", "2002:a9fe:a9fe::"},
		{"metadata_teredo_server", "2001:0:a9fe:a9fe::1"},
		{"metadata_teredo_client", "2001:0:4136:e378:8000:63bf:5601:5601"},
		{"metadata_isatap", "2001:db8::5efe:169.254.169.254"},
		{"metadata_isatap_unique", "2001:db8::200:5efe:169.254.169.254"},
		{"metadata_isatap_private", "fd00::5efe:a9fe:a9fe"},
		{"loopback_isatap", "2a00:1::200:5efe:127.0.0.1"},
		{"metadata_ecs", "169.254.170.2"},
		{"metadata_eks_ipv6", "fd00:ec2::23"},
		{"metadata_oracle_ipv6", "fd00:c1::a9fe:a9fe"},
		{"metadata_scaleway_ipv6", "fd00:42::42"},
		{"metadata_linode_ipv6", "fd00:a9fe:a9fe::1"},
		{"metadata_openstack_ipv6", "fe80::a9fe:a9fe"},
		{"wireserver_azure_6to4", "2002:a83f:8110::"},
		{"metadata_alibaba_compatible", "::100.100.100.200"},
		{"metadata_4via6", "fd7a:115c:a1e0:b1a:0:7:a9fe:a9fe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := netip.MustParseAddr(c.addr)
			for _, routed := range []bool{false, true} {
				v := p.Address(Query{Port: 80}, addr, routed)
				if !v.Deny || v.Reason != Forbidden {
					t.Errorf("routed %v: got %+v, want forbidden", routed, v)
				}
			}
			if Public(addr) {
				t.Error("Public = true, want false")
			}
		})
	}
	t.Run("zero_address", func(t *testing.T) {
		if v := p.Address(Query{Port: 80}, netip.Addr{}, true); v.Reason != Forbidden || Public(netip.Addr{}) {
			t.Errorf("got %+v, and Public = %v; want forbidden, and false", v, Public(netip.Addr{}))
		}
	})
	for _, c := range []struct{ name, addr string }{
		{"neighbour_of_tailscale_service", "100.100.100.101"},
		{"neighbour_of_wireserver_azure", "168.63.129.17"},
		{"private_compatible", "::10.0.0.1"},
		{"private_translated", "::ffff:0:10.0.0.1"},
		{"private_nat64", "64:ff9b::10.0.0.1"},
		{"private_nat64_local", "64:ff9b:1::10.0.0.1"},
		{"private_4via6", "fd7a:115c:a1e0:b1a:0:7:a00:1"},
	} {
		t.Run("not_"+c.name, func(t *testing.T) {
			if v := p.Address(Query{Port: 80}, netip.MustParseAddr(c.addr), true); v.Deny {
				t.Errorf("got %+v, want an allowing verdict", v)
			}
		})
	}
}

func TestOwn(t *testing.T) {
	own := netip.MustParseAddrPort("10.244.0.2:1055")
	p := Policy{Rules: []Rule{{Allow: true}}, Own: func(a netip.AddrPort) bool { return a == own }}
	for _, c := range []struct {
		name, addr string
		port       uint16
		want       Reason
	}{
		{"itself", "10.244.0.2", 1055, Forbidden},
		{"itself_mapped", "::ffff:10.244.0.2", 1055, Forbidden},
		{"another_port", "10.244.0.2", 1056, NoReason},
		{"another_address", "10.244.0.3", 1055, NoReason},
	} {
		t.Run(c.name, func(t *testing.T) {
			if v := p.Address(Query{Port: c.port}, netip.MustParseAddr(c.addr), true); v.Reason != c.want || v.Deny != (c.want != NoReason) {
				t.Errorf("got %+v, want reason %q", v, c.want)
			}
		})
	}
}

func TestFinal(t *testing.T) {
	for _, c := range []struct {
		reason          Reason
		text            string
		enforce, report bool
	}{
		{NoReason, "", false, false},
		{ByRule, "rule", true, false},
		{ByDefault, "default", true, false},
		{PrivateAnswer, "private answer", true, true},
		{NotRouted, "not routed", true, true},
		{Forbidden, "forbidden address", true, true},
	} {
		t.Run(or(c.text, "allowed"), func(t *testing.T) {
			v := Verdict{Deny: c.reason != NoReason, Reason: c.reason}
			for mode, want := range map[Mode]bool{"": c.enforce, Enforce: c.enforce, Report: c.report} {
				if got := v.Final(mode); got != want {
					t.Errorf("mode %q: got %v, want %v", mode, got, want)
				}
			}
			if got := c.reason.String(); got != c.text {
				t.Errorf("String() = %q, want %q", got, c.text)
			}
		})
	}
}

// FuzzNameNeverDeniesWhatAddressAllows builds a small policy from each input, and
// checks that Name denies only what Address denies.
func FuzzNameNeverDeniesWhatAddressAllows(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 2})          // one rule that denies everything
	f.Add([]byte{2, 1, 0, 3, 0, 0, 0, 7, 0, 0}) // an allow with a prefix, then a deny with all of them
	f.Add([]byte("\x03\x02\x01\x04\x05\x06\x07\x01\x02\x03\x04\x05\x06\x07\x08\x09"))
	f.Fuzz(func(t *testing.T, b []byte) { nameThenAddress(t, b) })
}

// TestNameNeverDeniesWhatAddressAllows runs the fuzz target on random policies, and
// checks that enough of them deny by name: the target alone could pass without one.
func TestNameNeverDeniesWhatAddressAllows(t *testing.T) {
	denials := testkit.CountInputs(5000, 64, func(b []byte) bool { return nameThenAddress(t, b) })
	if denials < 100 {
		t.Errorf("got %d denials by name in 5000 policies, want 100 or more", denials)
	}
}

// nameThenAddress checks one policy, built from b. It reports whether Name denied.
func nameThenAddress(t *testing.T, b []byte) bool {
	g := choices(b)
	pool := prefixes("0.0.0.0/0", "::/0", "0.0.0.0/1", "10.0.0.0/8", "fd00::/8", "::ffff:0.0.0.0/96", "100.64.0.9/32")
	var p Policy
	p.Direct = []Direct{"", DirectNone, DirectPublic, DirectAny}[g.next(4)]
	p.Default = []Default{"", Allow, Deny}[g.next(3)]
	for range g.next(4) {
		r := Rule{Allow: g.next(3) == 0}
		for range g.next(2) {
			r.From = append(r.From, pool[g.next(len(pool))])
		}
		for range g.next(2) {
			r.Names = append(r.Names, []string{name, "*.corp.example", "*.example", "db"}[g.next(4)])
		}
		for range g.next(4) {
			r.Prefixes = append(r.Prefixes, pool[g.next(len(pool))])
		}
		for range g.next(2) {
			r.Ports = append(r.Ports, []PortRange{{443, 443}, {1, 65535}, {22, 80}}[g.next(3)])
		}
		p.Rules = append(p.Rules, r)
	}
	q := Query{
		Client: netip.MustParseAddr([]string{client, "::ffff:10.0.0.1", "fd00::1", "fe80::1%eth0"}[g.next(4)]),
		Name:   []string{name, "db", "corp.example", ""}[g.next(4)],
		Port:   []uint16{443, 22, 65535}[g.next(3)],
	}
	v := p.Name(q)
	if !v.Deny {
		return false
	}
	if (v.Reason != ByRule || v.Rule == "") && (v.Reason != ByDefault || p.Default != Deny) {
		t.Errorf("Name = %+v, want the rule that denies, or the default", v)
	}
	addrs := []netip.Addr{{}}
	for _, s := range []string{target, "10.0.0.1", "::ffff:10.0.0.1", "8.8.8.8", "127.0.0.1", "2606:4700::1", "fd00::1", "fd00::1%eth0", "::1", "64:ff9b::8.8.8.8"} {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	var a16 [16]byte
	copy(a16[:], g)
	addrs = append(addrs, netip.AddrFrom16(a16), netip.AddrFrom4([4]byte(a16[:4])))
	for _, a := range addrs {
		for _, routed := range []bool{false, true} {
			got := p.Address(q, a, routed)
			same := got.Reason == ByRule && got.Rule == v.Rule
			if v.Reason == ByDefault { // a rule may deny this address before
				same = got.Reason == ByRule || got.Reason == ByDefault
			}
			if !got.Deny || got.Reason != Forbidden && !same {
				t.Fatalf("rules %+v, query %+v: Name denies by %q, but Address of %v = %+v", p.Rules, q, v.Rule, a, got)
			}
		}
	}
	return true
}

// choices are bytes. Each byte makes one choice. After the last byte, each choice
// is 0.
type choices []byte

func (c *choices) next(n int) int {
	if len(*c) == 0 {
		return 0
	}
	v := int((*c)[0]) % n
	*c = (*c)[1:]
	return v
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
