package target

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// TestSplit checks how host and port are split.
func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name, authority, defaultPort string
		host                         string
		port                         uint16 // 0 means an error
	}{
		{"name_and_port", "api.corp.example:443", "", "api.corp.example", 443},
		{"ipv4_and_port", "192.0.2.1:443", "", "192.0.2.1", 443},
		{"ipv6_and_port", "[2001:db8::1]:443", "", "2001:db8::1", 443},
		{"last_port", "a:65535", "", "a", 65535},
		{"default_port", "api.corp.example", "80", "api.corp.example", 80},
		{"default_port_ipv6", "[2001:db8::1]", "80", "2001:db8::1", 80},
		{"default_port_not_taken", "a:8080", "80", "a", 8080},
		{"empty_port", "a:", "80", "a", 80},
		{"empty_port_ipv6", "[::1]:", "80", "::1", 80},
		{"port_required", "a", "", "", 0},
		{"port_required_ipv6", "[::1]", "", "", 0},
		{"port_required_empty", "a:", "", "", 0},
		{"port_0", "a:0", "80", "", 0},
		{"port_65536", "a:65536", "80", "", 0},
		{"port_signed", "a:+80", "80", "", 0},
		{"port_negative", "a:-1", "80", "", 0},
		{"port_by_name", "a:http", "80", "", 0},
		{"no_host", ":80", "80", "", 0},
		{"no_host_in_brackets", "[]", "80", "", 0},
		{"no_host_in_brackets_and_port", "[]:80", "", "", 0},
		{"nothing", "", "80", "", 0},
		{"ipv6_without_brackets", "2001:db8::1", "80", "", 0},
		{"two_ports", "a:80:81", "80", "", 0},
		{"path", "a:443/x", "", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, port, err := Split(c.authority, c.defaultPort)
			if host != c.host || port != c.port || (err == nil) != (c.port != 0) {
				t.Errorf("Split(%q, %q) = %q, %d, %v; want %q, %d", c.authority, c.defaultPort, host, port, err, c.host, c.port)
			}
		})
	}
}

// TestAbsoluteForm checks AbsoluteForm.
func TestAbsoluteForm(t *testing.T) {
	for _, c := range []struct {
		name, line, want string // empty means an error
	}{
		{"connect", "CONNECT api.corp.example:443", "api.corp.example:443"},
		{"connect_ipv6", "CONNECT [2001:db8::1]:443", "[2001:db8::1]:443"},
		{"connect_without_port", "CONNECT api.corp.example", ""},
		{"connect_url", "CONNECT http://api.corp.example:443/", ""},
		{"absolute", "GET http://api.corp.example/x", "api.corp.example:80"},
		{"absolute_upper_case", "GET HTTP://api.corp.example:8080/x", "api.corp.example:8080"},
		{"absolute_beats_host", "GET http://other.example/", "other.example:80"},
		{"origin_form", "GET /x", ""},
		{"asterisk", "OPTIONS *", ""},
		{"https", "GET https://api.corp.example/", ""},
		{"ws", "GET ws://api.corp.example/x", "api.corp.example:80"},
		{"ws_with_port", "GET WS://api.corp.example:8080/x", "api.corp.example:8080"},
		{"wss", "GET wss://api.corp.example/", ""},
		{"ftp", "GET ftp://api.corp.example/", ""},
		{"user_name", "GET http://api.corp.example@evil.example/", ""},
		{"no_host", "GET http:///x", ""},
		{"opaque", "GET http:x", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := read(t, c.line+" HTTP/1.1\r\nHost: api.corp.example\r\n\r\n")
			host, port, err := AbsoluteForm(req)
			if c.want == "" {
				if flow.ClassOf(err) != flow.BadRequest || flow.HintOf(err) == "" {
					t.Fatalf("target %q, %d, error %v; want class %v and a hint", host, port, err, flow.BadRequest)
				}
				return
			}
			if got := (flow.Request{Host: host, Port: port}).Target(); err != nil || got != c.want {
				t.Errorf("target %q, error %v; want %q", got, err, c.want)
			}
		})
	}
}

// read parses a request head.
func read(t *testing.T, head string) *http.Request {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestByHost checks ByHost, and the request-target that the origin gets.
func TestByHost(t *testing.T) {
	for _, c := range []struct{ name, line, host, want, form string }{
		{"host", "GET /a?u=http://x/y", "api.corp.example", "api.corp.example:80", "/a?u=http://x/y"},
		{"port", "GET /", "api.corp.example:8080", "api.corp.example:8080", "/"},
		{"ipv6", "GET /", "[fd00::1]:8080", "[fd00::1]:8080", "/"},
		{"asterisk", "OPTIONS *", "api.corp.example", "api.corp.example:80", "*"},
		{"absolute_form", "GET http://api.corp.example/x", "api.corp.example", "api.corp.example:80", "/x"},
		{"no_host", "GET /", "", "", ""},
		{"connect", "CONNECT api.corp.example:443", "api.corp.example:443", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := read(t, c.line+" HTTP/1.1\r\nHost: "+c.host+"\r\n\r\n")
			host, port, err := ByHost(80)(req)
			if c.want == "" {
				if flow.ClassOf(err) != flow.BadRequest || flow.HintOf(err) == "" {
					t.Fatalf("target %q, %d, error %v; want class %v and a hint", host, port, err, flow.BadRequest)
				}
				return
			}
			if got := (flow.Request{Host: host, Port: port}).Target(); err != nil || got != c.want || wire.OriginForm(req) != c.form {
				t.Errorf("target %q, request-target %q, error %v; want %q, %q", got, wire.OriginForm(req), err, c.want, c.form)
			}
		})
	}
}

// TestHostField checks that an origin gets the target as it was judged.
func TestHostField(t *testing.T) {
	for _, c := range []struct {
		name, host string
		port       uint16
		want       string // empty means an error
	}{
		{"name", "api.corp.example", 80, "api.corp.example"},
		{"name_and_port", "api.corp.example", 8080, "api.corp.example:8080"},
		{"upper_case", "API.Corp.Example", 80, "api.corp.example"},
		{"trailing_dot", "api.corp.example.", 80, "api.corp.example"},
		{"not_ascii", "b\u00fccher.example", 80, "xn--bcher-kva.example"},
		{"ipv4", "10.12.3.4", 80, "10.12.3.4"},
		{"ipv4_decimal", "168559364", 80, "10.12.3.4"},
		{"ipv4_trailing_dot", "10.12.3.4.", 8090, "10.12.3.4:8090"},
		{"ipv4_hexadecimal", "0x0a.0x0c.0x03.0x04", 80, "10.12.3.4"},
		{"ipv4_mapped", "::ffff:10.12.3.4", 80, "10.12.3.4"},
		{"ipv6", "FD00:0::4", 80, "[fd00::4]"},
		{"ipv6_and_port", "fd00::4", 8080, "[fd00::4]:8080"},
		{"ipv6_with_zone", "fe80::4%eth0", 80, ""},
		{"not_an_address", "1.2.3.4.5", 80, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, server, err := HostField(read(t, "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), c.host, c.port)
			if got != c.want || server != "" || (err == nil) != (c.want != "") {
				t.Errorf("HostField(%q, %d) = %q, %q, %v; want %q and no server", c.host, c.port, got, server, err, c.want)
			}
		})
	}
}

// TestSecure checks requests for URLs that demand TLS.
func TestSecure(t *testing.T) {
	for _, c := range []struct{ name, url, target, host, server string }{
		{"https", "https://api.corp.example/x", "api.corp.example:443", "api.corp.example", "api.corp.example"},
		{"wss", "WSS://API.corp.example", "API.corp.example:443", "api.corp.example", "api.corp.example"},
		{"port", "https://api.corp.example:8443/", "api.corp.example:8443", "api.corp.example:8443", "api.corp.example"},
		{"its_own_port", "https://api.corp.example:443/", "api.corp.example:443", "api.corp.example", "api.corp.example"},
		{"port_of_http", "https://api.corp.example:80/", "api.corp.example:80", "api.corp.example:80", "api.corp.example"},
		{"trailing_dot", "https://api.corp.example./", "api.corp.example.:443", "api.corp.example", "api.corp.example"},
		{"ipv4", "https://0x0a.12.3.4/", "0x0a.12.3.4:443", "10.12.3.4", "10.12.3.4"},
		{"ipv6", "https://[FD00::0:4]/", "[FD00::0:4]:443", "[fd00::4]", "fd00::4"},
		{"ipv6_and_port", "https://[fd00::4]:8443/", "[fd00::4]:8443", "[fd00::4]:8443", "fd00::4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := read(t, "GET "+c.url+" HTTP/1.1\r\nHost: other.example\r\n\r\n")
			host, port, err := AbsoluteFormTLS(req)
			if got := (flow.Request{Host: host, Port: port}).Target(); err != nil || got != c.target {
				t.Fatalf("target %q, error %v; want %q", got, err, c.target)
			}
			field, server, err := HostField(req, host, port)
			if field != c.host || server != c.server || err != nil {
				t.Errorf("HostField = %q, %q, %v; want %q, %q", field, server, err, c.host, c.server)
			}
			_, _, err = AbsoluteForm(req)
			if hint := flow.HintOf(err); flow.ClassOf(err) != flow.BadRequest || !strings.Contains(hint, "HTTPS_PROXY") || !strings.Contains(hint, "http.originTLS") {
				t.Errorf("without TLS: %v, hint %q; want one with the variable and the setting", err, hint)
			}
			if _, _, err := ByHost(80)(req); flow.ClassOf(err) != flow.BadRequest {
				t.Errorf("on a port for clients without a proxy setting: error %v, want %v", err, flow.BadRequest)
			}
		})
	}
	req := read(t, "CONNECT https://api.corp.example:443 HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, _, err := AbsoluteFormTLS(req); err == nil {
		t.Error("CONNECT with a URL is accepted")
	}
}
