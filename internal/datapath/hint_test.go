package datapath

import (
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/flow"
)

// TestHintsKeepAddresses checks that no hint, which clients see, tells the address
// of a name or the peer that carries it. The error, which the log has, does.
func TestHintsKeepAddresses(t *testing.T) {
	addrs := map[string][]string{"far.corp.example": {"192.0.2.1"}, "near.corp.example": {"10.0.0.1"}, "local.corp.example": {"169.254.169.254"}}
	for name, p := range map[string]policy.Policy{
		"far.corp.example":   {},
		"near.corp.example":  {},
		"local.corp.example": {Direct: policy.DirectAny},
	} {
		for what, p := range map[string]policy.Policy{
			"as_it_is":      p,
			"denied":        {Rules: []policy.Rule{{Prefixes: prefixes(addrs[name][0] + "/32")}}},
			"denied_by_all": {Default: policy.Deny, Rules: []policy.Rule{{Allow: true, Prefixes: prefixes("8.8.8.8/32")}}},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				_, err := newRoad(t, &outside{addrs: addrs, silent: true}, p).Connect(t.Context(), record(name))
				if err == nil || !strings.Contains(err.Error(), addrs[name][0]) {
					t.Errorf("Connect: %v, want an error with the address", err)
				}
				if hint := flow.HintOf(err); hint == "" || strings.Contains(hint, addrs[name][0]) || strings.Contains(hint, "carrier") {
					t.Errorf("the hint is %q, want one without the address and the peer", hint)
				}
			})
		}
	}
}
