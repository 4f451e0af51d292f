package status

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// TestReplicaReadsItsOwnJSON checks that the golden of GET /status, read and
// written again, is the same: what pando status reads is all there is.
func TestReplicaReadsItsOwnJSON(t *testing.T) {
	golden, err := os.ReadFile("../admin/testdata/status.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var st Replica
	if err := json.Unmarshal(golden, &st); err != nil {
		t.Fatal(err)
	}
	again, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if string(again)+"\n" != string(golden) {
		t.Errorf("written again:\n%s\nwant:\n%s", again, golden)
	}
}

func TestCheckReadsItsOwnJSON(t *testing.T) {
	for _, c := range []struct {
		name  string
		check Check
		want  string
	}{
		{"holds", Check{Name: "a"}, `{"name":"a","ok":true}`},
		{"holds_with_a_note", Check{Name: "a", Note: "look"}, `{"name":"a","ok":true,"note":"look"}`},
		{"fails", Check{Name: "a", Err: errors.New("broken"), Note: "look"}, `{"name":"a","ok":false,"err":"broken","note":"look"}`},
		{"fails_without_text", Check{Name: "a", Err: errors.New("")}, `{"name":"a","ok":false}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := json.Marshal(c.check)
			if err != nil || string(got) != c.want {
				t.Fatalf("Marshal = %s, %v; want %s", got, err, c.want)
			}
			var read Check
			if err := json.Unmarshal(got, &read); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(read, c.check) {
				t.Errorf("read %+v, want %+v", read, c.check)
			}
		})
	}
}

func TestResolverFails(t *testing.T) {
	earlier := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	later := earlier.Add(time.Minute)
	for _, c := range []struct {
		name     string
		resolver Resolver
		want     bool
	}{
		{"never_used", Resolver{}, false},
		{"answered", Resolver{Answered: &earlier}, false},
		{"failed", Resolver{Failed: &earlier}, true},
		{"failed_after_an_answer", Resolver{Answered: &earlier, Failed: &later}, true},
		{"answered_after_a_failure", Resolver{Answered: &later, Failed: &earlier}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.resolver.Fails(); got != c.want {
				t.Errorf("Fails() = %v, want %v", got, c.want)
			}
		})
	}
}

// TestCarrier checks that every kind that NewCarrier returns is one of the documented
// ones, and how a carrier is described.
func TestCarrier(t *testing.T) { synctest.Test(t, testCarrier) }

func testCarrier(t *testing.T) {
	addr := netip.MustParseAddr("10.12.3.4")
	subnet := netip.MustParsePrefix("10.12.0.0/16")
	handshake := time.Now().Add(-90 * time.Second)
	router := Peer{Name: "router", Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.9")}, Online: true, Path: "direct 192.0.2.1:41641", LastHandshake: &handshake}
	offline := Peer{Name: "router"}
	for _, c := range []struct {
		name  string
		addr  netip.Addr
		route netip.Prefix
		peer  Peer
		kind  Kind
		want  string
	}{
		{"peer", router.Addrs[0], netip.PrefixFrom(router.Addrs[0], 32), router, "peer", "router, peer, direct 192.0.2.1:41641, last handshake 1m30s ago"},
		{"subnet_router", addr, subnet, router, "subnet router", "router, subnet router of 10.12.0.0/16, direct 192.0.2.1:41641, last handshake 1m30s ago"},
		{"exit_node", addr, netip.MustParsePrefix("0.0.0.0/0"), router, "exit node", "router, exit node of 0.0.0.0/0, direct 192.0.2.1:41641, last handshake 1m30s ago"},
		{"offline", addr, subnet, offline, "subnet router", "router, subnet router of 10.12.0.0/16, OFFLINE according to the control server, no path used yet, no handshake yet"},
	} {
		got := NewCarrier(c.addr, c.route, c.peer)
		if got.Kind != c.kind {
			t.Errorf("%s: Kind = %q, want %q", c.name, got.Kind, c.kind)
		}
		if got.String() != c.want {
			t.Errorf("%s: String() = %q, want %q", c.name, got.String(), c.want)
		}
	}
}

func TestJoin(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.1")
	b := netip.MustParseAddr("fd00::1")
	for _, c := range []struct {
		name  string
		items []netip.Addr
		want  string
	}{
		{"none", nil, ""},
		{"one", []netip.Addr{a}, "10.0.0.1"},
		{"two", []netip.Addr{a, b}, "10.0.0.1 fd00::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Join(c.items); got != c.want {
				t.Errorf("Join(%v) = %q, want %q", c.items, got, c.want)
			}
		})
	}
}
