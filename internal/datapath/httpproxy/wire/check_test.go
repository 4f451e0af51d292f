package wire

import (
	"net/http"
	"testing"
)

// TestMayTrail checks which fields are passed on behind a body.
func TestMayTrail(t *testing.T) {
	for name, want := range map[string]bool{
		"X-Checksum": true, "Etag": true, "Server-Timing": true, "Content-Digest": true, "Repr-Digest": true, "Grpc-Status": true,
		"Host": false, "Authorization": false, "Proxy-Authorization": false, "Cookie": false, "Set-Cookie": false,
		"Content-Length": false, "Transfer-Encoding": false, "Trailer": false, "Te": false, "Connection": false, "Upgrade": false,
		"Content-Type": false, "Content-Encoding": false, "Content-Range": false, "Content-Location": false,
		"Cache-Control": false, "Expect": false, "Max-Forwards": false, "If-Match": false, "If-None-Match": false, "Range": false,
		"Www-Authenticate": false, "Location": false, "Vary": false, "Age": false, "Date": false, "Expires": false, "Retry-After": false,
		"Via": false, "Forwarded": false, "X-Forwarded-For": false, "X Y": false, "X-A ": false,
	} {
		if got := MayTrail(name); got != want {
			t.Errorf("MayTrail(%q) = %v, want %v", name, got, want)
		}
	}
}

// TestCheckSwitch checks which answers to an upgrade are accepted.
func TestCheckSwitch(t *testing.T) {
	upgrade := func(v string) http.Header { return http.Header{"Connection": {"Upgrade"}, "Upgrade": {v}} }
	for _, c := range []struct {
		name     string
		asked    http.Header
		minor    int
		answered http.Header
		ok       bool
	}{
		{"asked", upgrade("websocket"), 1, upgrade("WebSocket"), true},
		{"one_of_two", upgrade("h2c, websocket"), 1, upgrade("websocket"), true},
		{"another_protocol", upgrade("websocket"), 1, upgrade("h2c"), false},
		{"two_of_which_one_was_asked", upgrade("websocket"), 1, upgrade("websocket, h2c"), false},
		{"empty_answer", upgrade("websocket"), 1, upgrade(""), false},
		{"answer_of_commas", upgrade("websocket"), 1, upgrade(" , "), false},
		{"no_field_in_the_answer", upgrade("websocket"), 1, nil, false},
		{"empty_question", upgrade(""), 1, upgrade("websocket"), false},
		{"no_connection_option", http.Header{"Upgrade": {"websocket"}}, 1, upgrade("websocket"), false},
		{"unasked", nil, 1, upgrade("websocket"), false},
		{"http_1_0", upgrade("websocket"), 0, upgrade("websocket"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := &http.Request{Header: c.asked, ProtoMajor: 1, ProtoMinor: c.minor}
			if err := CheckSwitch(req, &http.Response{Header: c.answered}); (err == nil) != c.ok {
				t.Errorf("CheckSwitch = %v, want accepted: %v", err, c.ok)
			}
		})
	}
}
