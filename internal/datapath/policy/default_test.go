package policy

import (
	"net/netip"
	"testing"
)

// TestDefaultDeny checks what a default of deny denies, before the lookup and with
// an address.
func TestDefaultDeny(t *testing.T) {
	for _, c := range []struct {
		name          string
		rules         []Rule
		before, after Reason
	}{
		{"no_rules", nil, ByDefault, ByDefault},
		{"allowed_name", []Rule{{Names: []string{name}, Allow: true}}, NoReason, NoReason},
		{"allowed_prefix", []Rule{{Prefixes: prefixes("100.64.0.0/10"), Allow: true}}, NoReason, NoReason},
		{"allowed_name_at_another_prefix", []Rule{{Names: []string{name}, Prefixes: prefixes("10.0.0.0/8"), Allow: true}}, NoReason, ByDefault},
		{"another_name", []Rule{{Names: []string{"db"}, Allow: true}}, ByDefault, ByDefault},
		{"another_port", []Rule{{Ports: []PortRange{{22, 22}}, Allow: true}}, ByDefault, ByDefault},
		{"another_client", []Rule{{From: prefixes("192.0.2.0/24"), Allow: true}}, ByDefault, ByDefault},
		{"denied_by_rule", []Rule{{Names: []string{name}}, {Allow: true}}, ByRule, ByRule},
		{"partly_denied_and_never_allowed", []Rule{{Prefixes: prefixes("10.0.0.0/8")}}, ByDefault, ByDefault},
		{"partly_then_wholly_denied", []Rule{{Prefixes: prefixes("10.0.0.0/8")}, {}, {Allow: true}}, ByDefault, ByRule},
		{"partly_denied_then_allowed", []Rule{{Prefixes: prefixes("10.0.0.0/8")}, {Allow: true}}, NoReason, NoReason},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Policy{Default: Deny, Rules: c.rules}
			q := Query{Client: netip.MustParseAddr(client), Name: name, Port: 443}
			if v := p.Name(q); v.Reason != c.before || v.Deny != (c.before != NoReason) {
				t.Errorf("Name = %+v, want reason %q", v, c.before)
			}
			q.Aliases = []string{"lb.example"} // the default does not concern it
			if v := p.Address(q, netip.MustParseAddr(target), true); v.Reason != c.after || v.Deny != (c.after != NoReason) {
				t.Errorf("Address = %+v, want reason %q", v, c.after)
			}
			if v := p.Alias(q, "lb.example"); v.Deny {
				t.Errorf("Alias = %+v, want no denial", v)
			}
			p.Mode = Report
			if v := p.Address(q, netip.MustParseAddr(target), true); v.Final(Report) {
				t.Errorf("Address in report mode = %+v, want a verdict that is not final", v)
			}
			if v := p.Address(q, netip.MustParseAddr(target), false); v.Reason != NotRouted {
				t.Errorf("Address in report mode = %+v, want not routed", v)
			}
		})
	}
	if p := (&Policy{Default: Deny, Rules: []Rule{{Names: []string{"db"}, Allow: true}}}); !p.NobodyMay(name) || p.NobodyMay("db") || p.NobodyMayAlias(name) {
		t.Error("with a default of deny, want NobodyMay for what no rule allows, and not for aliases")
	}
}

// TestNotPublic checks the networks that DirectPublic does not open.
func TestNotPublic(t *testing.T) {
	p := Policy{
		Direct:    DirectPublic,
		NotPublic: prefixes("8.8.8.0/24", "2606:4700::/32"),
		Near:      func(a netip.Addr) bool { return netip.MustParsePrefix("2a00:1::/64").Contains(a) },
	}
	for addr, open := range map[string]bool{
		"8.8.8.8": false, "::ffff:8.8.8.8": false, "64:ff9b::8.8.8.8": false, "8.8.4.4": true, "64:ff9b::8.8.4.4": true,
		"2606:4700::1111": false, "2606:4701::1": true, "2a00:1::1": false, "2a00:1:0:1::1": true,
		"2a00:2::5efe:10.0.0.1": false, "2a00:2::5efe:8.8.4.4": true, "2a00:2::5efe:8.8.8.8": false,
	} {
		a := netip.MustParseAddr(addr)
		if v := p.Address(Query{Port: 443}, a, false); v.Deny == open || v.Deny && v.Reason != NotRouted {
			t.Errorf("Address(%s) = %+v, want it open: %v", addr, v, open)
		}
		if v := p.Address(Query{Port: 443}, a, true); v.Deny {
			t.Errorf("Address(%s) through the tailnet = %+v, want no denial", addr, v)
		}
		if got := p.public(spellings(a)); got != open {
			t.Errorf("public(%s) = %v, want %v", addr, got, open)
		}
	}
}

// TestPrivateAnswers checks which private addresses of public names are denied.
func TestPrivateAnswers(t *testing.T) {
	p := Policy{PrivateAnswers: Deny, PrivateZones: []string{"rds.example"}, Rules: []Rule{{Allow: true}}}
	for _, c := range []struct {
		name, owner, addr string
		deny              bool
	}{
		{"private", "evil.example", "10.12.3.4", true},
		{"private_behind_nat64", "evil.example", "64:ff9b::10.12.3.4", true},
		{"public", "www.example", "8.8.8.8", false},
		{"zone", "db.rds.example", "10.12.3.4", false},
		{"zone_itself", "rds.example", "10.12.3.4", false},
		{"like_the_zone", "evilrds.example", "10.12.3.4", true},
		{"private_name", "", "10.12.3.4", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := Query{Name: name, Port: 443, PublicName: c.owner}
			if v := p.Address(q, netip.MustParseAddr(c.addr), true); v.Deny != c.deny || v.Deny && (v.Reason != PrivateAnswer || !v.Final(Report)) {
				t.Errorf("Address = %+v, want a final denial: %v", v, c.deny)
			}
			allowing := Policy{}
			if v := allowing.Address(q, netip.MustParseAddr(c.addr), true); v.Deny {
				t.Errorf("Address with the default = %+v, want no denial", v)
			}
		})
	}
}
