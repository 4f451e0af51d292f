package flow

import (
	"encoding/json"
	"net/netip"
	"testing"
)

// TestRecordReadsItsOwnJSON checks that a record read from JSON is written as
// the same JSON, and that what the JSON holds is there.
func TestRecordReadsItsOwnJSON(t *testing.T) {
	client := netip.MustParseAddrPort("10.244.1.7:40122")
	failed := *fullRecord()
	full := failed
	full.Err = nil
	for _, c := range []struct {
		name   string
		record Record
	}{
		{"full", full},
		{"failed", failed},
		{"ipv6_target", Record{Request: Request{Front: SOCKS5, Client: client, Host: "2001:db8::1", Port: 443}}},
		{"before_its_target_is_known", Record{Request: Request{Front: Connect, Client: client}}},
		{"zero", Record{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, err := json.Marshal(c.record)
			if err != nil {
				t.Fatal(err)
			}
			var read Record
			if err := json.Unmarshal(first, &read); err != nil {
				t.Fatalf("Unmarshal(%s): %v", first, err)
			}
			second, err := json.Marshal(read)
			if err != nil {
				t.Fatal(err)
			}
			if string(second) != string(first) {
				t.Errorf("written again: %s, want %s", second, first)
			}
			if want := HintOf(c.record.Err); HintOf(read.Err) != want {
				t.Errorf("hint = %q, want %q", HintOf(read.Err), want)
			}
			if c.record.Err == nil && read != c.record {
				t.Errorf("got %+v, want %+v", read, c.record)
			}
			if c.record.Err != nil && ClassOf(read.Err) != Internal {
				t.Errorf("class of the error that was read = %v, want %v", ClassOf(read.Err), Internal)
			}
		})
	}
}

func TestRecordRejectsBadJSON(t *testing.T) {
	for _, c := range []struct{ name, json string }{
		{"not_an_object", `[]`},
		{"target_without_port", `{"target": "api.corp.example"}`},
		{"port_too_large", `{"target": "api.corp.example:70000"}`},
		{"addr", `{"addr": "nowhere"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Record
			if err := json.Unmarshal([]byte(c.json), &r); err == nil {
				t.Errorf("Unmarshal(%s) = %+v, want an error", c.json, r)
			}
		})
	}
}
