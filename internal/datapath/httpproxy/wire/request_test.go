package wire

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
)

// TestOriginForm checks that the request-target stays as the client sent it.
func TestOriginForm(t *testing.T) {
	for _, c := range []struct{ name, line, want string }{
		{"path", "GET http://a/x/y", "/x/y"},
		{"root", "GET http://a/", "/"},
		{"no_path", "GET http://a", "/"},
		{"query_without_path", "GET http://a?q=1", "/?q=1"},
		{"escapes_stay", "GET http://a:80/%2e%2E/a%2Fb;c?x=%20&y", "/%2e%2E/a%2Fb;c?x=%20&y"},
		{"dots_and_slashes_stay", "GET http://a//x/../y", "//x/../y"},
		{"url_inside", "GET http://a/http://b/c", "/http://b/c"},
		{"url_in_query", "GET http://a?u=http://b/c", "/?u=http://b/c"},
		{"fragment_goes", "GET http://a/x#y?z", "/x"},
		{"options_of_the_server", "OPTIONS http://a", "*"},
		{"options_of_the_root", "OPTIONS http://a/", "/"},
		{"options_with_query", "OPTIONS http://a?x", "/?x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(c.line + " HTTP/1.1\r\nHost: a\r\n\r\n")))
			if err != nil {
				t.Fatal(err)
			}
			if got := OriginForm(req); got != c.want {
				t.Errorf("OriginForm of %q = %q, want %q", c.line, got, c.want)
			}
		})
	}
}
