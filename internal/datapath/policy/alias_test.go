package policy

import (
	"net/netip"
	"testing"
)

// TestAliasRules checks which rules decide about a name to which an alias leads:
// before it is looked up, and with an address.
func TestAliasRules(t *testing.T) {
	const alias = "db.internal"
	byName := Rule{Name: "no-db", Names: []string{"*.internal"}}
	public := Rule{Name: "public", Names: []string{name}, Allow: true}
	for _, c := range []struct {
		name   string
		rules  []Rule
		before bool // Alias denies
		after  bool // Address denies
		rule   string
	}{
		{name: "no_rules"},
		{name: "denied_by_name", rules: []Rule{byName}, before: true, after: true, rule: "no-db"},
		{name: "denied_though_the_first_name_is_allowed", rules: []Rule{public, byName}, before: true, after: true, rule: "no-db"},
		{name: "denied_by_name_and_prefix", rules: []Rule{public, {Name: "p", Names: []string{alias}, Prefixes: prefixes("100.64.0.0/10")}}, after: true, rule: "p"},
		{name: "denied_by_name_and_another_prefix", rules: []Rule{public, {Names: []string{alias}, Prefixes: prefixes("10.0.0.0/8")}}, rule: "public"},
		{name: "denied_on_this_port", rules: []Rule{{Name: "p", Names: []string{alias}, Ports: []PortRange{{443, 443}}}}, before: true, after: true, rule: "p"},
		{name: "denied_on_another_port", rules: []Rule{{Names: []string{alias}, Ports: []PortRange{{22, 22}}}}},
		{name: "denied_to_another_client", rules: []Rule{{Names: []string{alias}, From: prefixes("192.0.2.0/24")}}},
		{name: "allowed_before", rules: []Rule{{Name: "ok", Names: []string{alias, name}, Allow: true}, byName}, rule: "ok"},
		{name: "client_may_anything", rules: []Rule{{Name: "admin", From: prefixes("10.0.0.0/8"), Allow: true}, byName}, rule: "admin"},
		{name: "client_may_another_address", rules: []Rule{{Prefixes: prefixes("10.0.0.0/8"), Allow: true}, byName}, after: true, rule: "no-db"},
		{name: "client_may_this_address", rules: []Rule{{Name: "net", Prefixes: prefixes("100.64.0.0/10"), Allow: true}, byName}, rule: "net"},
		{name: "deny_the_rest_is_no_rule_about_aliases", rules: []Rule{public, {}}, rule: "public"},
		{name: "allowing_the_alias_allows_no_other_name", rules: []Rule{{Names: []string{alias}, Allow: true}, {Name: "rest"}}, after: true, rule: "rest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Policy{Rules: c.rules}
			q := Query{Client: netip.MustParseAddr(client), Name: name, Port: 443}
			v := p.Alias(q, alias)
			if v.Deny != c.before || v.Deny && (v.Rule != c.rule || v.Alias != alias || v.Reason != ByRule) {
				t.Errorf("Alias = %+v, want a denial: %v, of rule %s", v, c.before, c.rule)
			}
			q.Aliases = []string{"other.example", alias}
			v = p.Address(q, netip.MustParseAddr(target), true)
			if v.Deny != c.after || v.Rule != c.rule {
				t.Errorf("Address = %+v, want a denial: %v, of rule %q", v, c.after, c.rule)
			}
			p.Mode = Report
			if v := p.Address(q, netip.MustParseAddr(target), true); v.Deny != c.after || v.Final(Report) {
				t.Errorf("Address in report mode = %+v, want a denial: %v, that is not final", v, c.after)
			}
			if v := p.Address(q, netip.MustParseAddr(target), false); v.Reason != NotRouted || !v.Final(Report) || v.Alias != "" {
				t.Errorf("Address in report mode = %+v, want not routed", v)
			}
		})
	}
}

// TestNobodyMayAlias checks when no client may use a name through an alias.
func TestNobodyMayAlias(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy Policy
		want   bool
	}{
		{"no_rules", Policy{}, false},
		{"denied_by_name", Policy{Rules: []Rule{{Names: []string{name}}}}, true},
		{"report", Policy{Mode: Report, Rules: []Rule{{Names: []string{name}}}}, false},
		{"denied_to_one_client", Policy{Rules: []Rule{{Names: []string{name}, From: prefixes("10.0.0.0/8")}}}, false},
		{"allowed_to_one_client", Policy{Rules: []Rule{{Allow: true, From: prefixes("10.0.0.0/8")}, {Names: []string{name}}}}, false},
		{"denied_with_the_rest", Policy{Rules: []Rule{{}}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.policy.NobodyMayAlias(name); got != c.want {
				t.Errorf("NobodyMayAlias(%s) = %v, want %v", name, got, c.want)
			}
		})
	}
}
