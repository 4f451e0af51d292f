// Package target finds the target of a request: the host and the port that its
// client asks for. It reads what net/http has parsed. It does not decide, and it
// does not look up names.
package target

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// AbsoluteForm is the Target of a proxy: requests name their target in the
// request line, as CONNECT does (RFC 9110 section 9.3.6) or in absolute-form
// (RFC 9112 section 3.2.2). Some clients of WebSocket write ws:// there, which is
// http:// for a proxy (RFC 6455 section 3).
//
// AbsoluteForm refuses https:// and wss://, for which clients send CONNECT.
func AbsoluteForm(req *http.Request) (host string, port uint16, err error) {
	if IsSecure(req) {
		return "", 0, invalid("use CONNECT for https:// targets: set HTTPS_PROXY (and https_proxy) in the client to the same URL as HTTP_PROXY. If the client ignores it, such as BusyBox wget, use another client, or set http.originTLS in Pando's configuration", errors.New(req.URL.Scheme+" in absolute-form"))
	}
	return AbsoluteFormTLS(req)
}

// IsSecure reports whether req is in absolute-form, for a URL that demands TLS.
func IsSecure(req *http.Request) bool {
	return req.Method != http.MethodConnect && (req.URL.Scheme == "https" || req.URL.Scheme == "wss")
}

// AbsoluteFormTLS is AbsoluteForm, and also takes https:// and wss://.
func AbsoluteFormTLS(req *http.Request) (host string, port uint16, err error) {
	if req.Method == http.MethodConnect {
		host, port, err = Split(req.RequestURI, "")
		if err != nil {
			return "", 0, invalid("CONNECT needs host:port, such as api.example.com:443", err)
		}
		return host, port, nil
	}
	u := req.URL
	switch {
	case u.Scheme == "" && u.Host == "":
		return "", 0, invalid("this port is a proxy, not a web server: set it as http_proxy, or use curl -x http://this:1055 http://target/", errors.New("not in absolute-form"))
	case !slices.Contains([]string{"http", "ws", "https", "wss"}, u.Scheme):
		return "", 0, invalid("only http:// and ws:// URLs can be requested in absolute-form", fmt.Errorf("scheme %q", u.Scheme))
	case u.User != nil:
		// RFC 9110 section 4.2.4: user information in a URL is used to deceive, so
		// treat it as an error.
		return "", 0, invalid("remove the user name from the URL", errors.New("userinfo in the target"))
	}
	host, port, err = Split(u.Host, strconv.Itoa(defaultPort(req)))
	if err != nil {
		return "", 0, invalid("the URL needs a host; its port, if it has one, must be from 1 to 65535", err)
	}
	return host, port, nil
}

// ByHost returns the Target of a port for clients without a proxy setting. Their
// requests are in origin-form, and the Host field names the target (RFC 9112
// section 3.2). defaultPort is the target's port where Host has none.
func ByHost(defaultPort uint16) func(*http.Request) (host string, port uint16, err error) {
	def := strconv.Itoa(int(defaultPort))
	return func(req *http.Request) (string, uint16, error) {
		if req.Method == http.MethodConnect {
			return "", 0, invalid("this port is not a proxy; send requests as to the target itself, without a proxy setting", errors.New("CONNECT"))
		}
		if IsSecure(req) {
			return "", 0, invalid("this port serves http:// URLs; https:// is for ports of sni", errors.New("https in absolute-form"))
		}
		// If a request is in absolute-form all the same, req.Host is the host of its
		// URL, as RFC 9112 section 3.2.2 requires.
		host, port, err := Split(req.Host, def)
		if err != nil {
			return "", 0, invalid("the request needs a Host field with the name of the target", err)
		}
		return host, port, nil
	}
}

// Split splits host[:port]. An empty defaultPort means that the port is
// required. The host has no brackets.
func Split(authority, defaultPort string) (string, uint16, error) {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		if defaultPort == "" || strings.Contains(strings.Trim(authority, "[]"), ":") && !strings.HasPrefix(authority, "[") {
			return "", 0, err
		}
		host = strings.TrimSuffix(strings.TrimPrefix(authority, "["), "]")
		port = defaultPort
	}
	if port == "" && defaultPort != "" {
		port = defaultPort // "host:" is valid, RFC 3986 section 6.2.3
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("port %q", port)
	}
	if host == "" {
		return "", 0, errors.New("no host")
	}
	return host, uint16(n), nil
}

// HostField returns the Host field of req, whose target is name and port, as an origin
// gets it: spelled as the target that was judged, so that the origin cannot read another
// one (RFC 9112 section 3.2.2). It has no port if that is the scheme's. server is the
// same without a port if req demands TLS, and empty otherwise. The error is a *flow.Error
// of class BadRequest, as host.Parse returns it.
func HostField(req *http.Request, name string, port uint16) (field, server string, err error) {
	h, err := host.Parse(name)
	if err != nil {
		return "", "", err
	}
	field = h.Name
	if h.Addr.IsValid() {
		field = h.Addr.String()
	}
	if IsSecure(req) {
		server = field
	}
	switch {
	case int(port) != defaultPort(req):
		field = net.JoinHostPort(field, strconv.Itoa(int(port)))
	case h.Addr.Is6():
		field = "[" + field + "]"
	}
	return field, server, nil
}

// defaultPort returns the port of a URL without one.
func defaultPort(req *http.Request) int {
	if IsSecure(req) {
		return 443
	}
	return 80
}

func invalid(hint string, err error) error {
	return &flow.Error{
		Class: flow.BadRequest,
		Op:    "http",
		Hint:  hint,
		Err:   err,
	}
}
