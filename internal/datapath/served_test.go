package datapath

import (
	"slices"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/flow"
)

// TestServed checks which targets a port for clients without a proxy setting leads to.
func TestServed(t *testing.T) {
	zone := []string{"corp.example", "*.corp.example"}
	for _, tc := range []struct {
		name, host string
		port       uint16
		names      []string
		anyPort    bool
		served     bool
		words      string // in the hint
	}{
		{name: "name_of_the_zone", host: "api.corp.example", names: zone, served: true},
		{name: "mixed_case_and_dot", host: "API.Corp.example.", names: zone, served: true},
		{name: "name_outside", host: "www.example", names: zone, words: "dns.zones"},
		{name: "like_the_zone", host: "evilcorp.example", names: zone, words: "dns.zones"},
		{name: "another_port", host: "api.corp.example", port: 8105, names: zone, words: "port 443"},
		{name: "another_port_allowed", host: "api.corp.example", port: 8105, names: zone, anyPort: true, served: true},
		{name: "address", host: "10.0.0.1", names: zone, words: "serves"},
		{name: "address_in_hex", host: "0x0a000001", names: zone, words: "serves"},
		{name: "address_and_port", host: "10.0.0.1", port: 8105, names: zone, words: "serves"},
		{name: "without_zones", host: "api.corp.example", served: true},
		{name: "without_zones_another_port", host: "api.corp.example", port: 8105, words: "port 443"},
		{name: "without_zones_address", host: "10.0.0.1", words: "serves"},
		{name: "everything", host: "api.corp.example", names: []string{"*"}, served: true},
		{name: "everything_address", host: "10.0.0.1", names: []string{"*"}, served: true},
		{name: "everything_on_one_port", host: "10.0.0.1", port: 8105, names: []string{"*"}, words: "port 443"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := &outside{addrs: map[string][]string{"api.corp.example": {"10.0.0.1"}}}
			s := &Served{Road: newRoad(t, o, policy.Policy{}), Names: tc.names, Port: 443}
			if tc.anyPort {
				s.Port = 0
			}
			rec := record(tc.host)
			if tc.port != 0 {
				rec.Port = tc.port
			}
			_, judged := s.Judge(t.Context(), rec)
			conn, err := s.Connect(t.Context(), rec)
			if conn != nil {
				conn.Close()
			}
			if tc.served {
				if err != nil || judged != nil {
					t.Errorf("Connect: %v, Judge: %v, want no error", err, judged)
				}
				return
			}
			for _, err := range []error{err, judged} {
				if flow.ClassOf(err) != flow.Denied || !strings.Contains(flow.HintOf(err), tc.words) {
					t.Errorf("got %v with hint %q, want denied, and %q in the hint", err, flow.HintOf(err), tc.words)
				}
			}
			lookups, dialled := o.seen()
			if len(slices.Concat(lookups, dialled)) > 0 {
				t.Errorf("looked up %q and dialled %q, want nothing", lookups, dialled)
			}
		})
	}
}
