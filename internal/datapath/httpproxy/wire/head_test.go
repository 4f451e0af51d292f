package wire

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
)

// TestValidHead checks heads that net/http's parser accepts.
func TestValidHead(t *testing.T) {
	for _, c := range []struct {
		name, head string
		ok         bool
	}{
		{"plain", "GET http://a/ HTTP/1.1\r\nHost: a\r\nX: \t y \r\n\r\n", true},
		{"version_2", "GET http://a/ HTTP/2.0\r\nHost: a\r\n\r\n", false},
		{"version_0", "GET http://a/ HTTP/0.9\r\nHost: a\r\n\r\n", false},
		{"space_before_colon", "GET http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", false},
		{"bare_cr_in_value", "GET http://a/ HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", false},
		{"nul_in_value", "GET http://a/ HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", false},
		{"space_in_zone_of_host", "GET http://[fe80::1%25a%20b]/ HTTP/1.1\r\n\r\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(c.head)))
			if err == nil {
				err = ValidHead(req)
			}
			if (err == nil) != c.ok {
				t.Errorf("ValidHead of %q = %v, want valid: %v", c.head, err, c.ok)
			}
		})
	}
}
