package httpproxy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/pandoproxy/pando/internal/flow"
)

// hopByHop are the fields that concern one connection alone (RFC 9110 section
// 7.6.1, and the two that clients made up for proxies). Framing is written
// anew, so its fields are among them.
var hopByHop = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Proxy-Authorization": true, "Proxy-Authenticate": true,
	"Content-Length": true,
}

// check reads the target and the credentials from req into rec.
func (s *session) check(req *http.Request, rec *flow.Record) error {
	if err := validHead(req); err != nil {
		return badRequest("send a well-formed HTTP/1.1 request", &malformed{err})
	}
	host, port, err := s.p.target(req)
	if err != nil {
		return err
	}
	rec.Host, rec.Port = host, port
	if s.p.Authenticate != nil {
		user, password, ok := basicAuth(req.Header.Get("Proxy-Authorization"))
		if !ok || !s.p.Authenticate(user, password) {
			return &flow.Error{Class: flow.Unauthenticated, Op: "http", Target: rec.Target(),
				Hint: "this gateway asks for a username and password", Err: errors.New("no valid credentials")}
		}
		rec.User = user
	}
	for _, v := range req.Header["Via"] {
		if hasVia(v, s.p.name()) {
			return &flow.Error{Class: flow.Loop, Op: "http", Target: rec.Target(),
				Hint: "the request came back to the proxy that sent it: the target's name leads to a proxy", Err: errors.New("own name in Via")}
		}
	}
	return nil
}

// malformed is what makes all of a head doubtful.
type malformed struct{ error }

// validHead holds req to what net/http's own server demands of a request
// beyond what its parser does.
func validHead(req *http.Request) error {
	if req.ProtoMajor != 1 {
		return fmt.Errorf("version %s", req.Proto)
	}
	if !httpguts.ValidHostHeader(req.Host) {
		return errors.New("malformed Host")
	}
	for k, vs := range req.Header {
		if !httpguts.ValidHeaderFieldName(k) {
			return fmt.Errorf("malformed field name %q", k)
		}
		for _, v := range vs {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("malformed value of field %q", k)
			}
		}
	}
	return nil
}

// framingError is what makes it unclear where a request ends or whom it is
// for. Its text is for the client.
type framingError string

func (e framingError) Error() string { return string(e) }

// checkFraming looks at a request's head as it came, for what the next server
// might read otherwise than we do: RFC 9112 sections 3.2 and 6.1.
func checkFraming(req *http.Request, head []byte) error {
	var host, length, encoding bool
	for line := range bytes.Lines(head) {
		name, _, ok := bytes.Cut(line, []byte(":"))
		if ok && len(name) > 0 && (name[len(name)-1] == ' ' || name[len(name)-1] == '\t') {
			return framingError("a field's name is followed by its colon, without a space (RFC 9112 section 5.1)")
		}
		switch strings.ToLower(string(bytes.TrimSpace(name))) {
		case "host":
			host = true
		case "content-length":
			length = true
		case "transfer-encoding":
			encoding = true
		}
	}
	switch {
	case !host && req.ProtoAtLeast(1, 1) && req.Method != http.MethodConnect: // simple clients leave it out of CONNECT
		return framingError("an HTTP/1.1 request needs a Host field")
	case encoding && length:
		return framingError("a request has Content-Length or Transfer-Encoding, not both")
	case encoding && !req.ProtoAtLeast(1, 1):
		return framingError("HTTP/1.0 knows no Transfer-Encoding")
	}
	return nil
}

// target returns the host and port that req is for.
func (p *Proxy) target(req *http.Request) (host string, port uint16, err error) {
	if p.HostPort != 0 {
		if req.Method == http.MethodConnect {
			return "", 0, badRequest("this port is no proxy: ask it as you would ask the target itself", errors.New("CONNECT"))
		}
		// An absolute-form says it again (RFC 9112 section 3.2.2); req.Host has it then.
		if host, port, err = splitTarget(req.Host, strconv.Itoa(int(p.HostPort))); err != nil {
			return "", 0, badRequest("the request wants a Host field with the name of the target", err)
		}
		return host, port, nil
	}
	if req.Method == http.MethodConnect {
		if host, port, err = splitTarget(req.RequestURI, ""); err != nil {
			return "", 0, badRequest("CONNECT wants host:port, such as api.example.com:443", err)
		}
		return host, port, nil
	}
	u := req.URL
	switch {
	case u.Scheme == "" && u.Host == "":
		return "", 0, badRequest("this port is a proxy, not a web server: set it as http_proxy, or use curl -x http://this:1055 http://target/", errors.New("not in absolute-form"))
	case u.Scheme == "https":
		return "", 0, badRequest("use CONNECT for https, as clients do with https_proxy", errors.New("https in absolute-form"))
	case u.Scheme != "http":
		return "", 0, badRequest("only http targets can be asked for in absolute-form", fmt.Errorf("scheme %q", u.Scheme))
	case u.User != nil:
		// RFC 9110 section 4.2.4: treat it as an error, it is used to deceive.
		return "", 0, badRequest("leave the user name out of the URL", errors.New("userinfo in the target"))
	}
	if host, port, err = splitTarget(u.Host, "80"); err != nil {
		return "", 0, badRequest("the URL wants a host, and a port from 1 to 65535 if it gives one", err)
	}
	return host, port, nil
}

// splitTarget reads host[:port]; an empty defaultPort means that the port is
// required.
func splitTarget(authority, defaultPort string) (string, uint16, error) {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		if defaultPort == "" || strings.Contains(strings.Trim(authority, "[]"), ":") && !strings.HasPrefix(authority, "[") {
			return "", 0, err
		}
		host, port = strings.TrimSuffix(strings.TrimPrefix(authority, "["), "]"), defaultPort
	}
	if port == "" && defaultPort != "" {
		port = defaultPort // "host:" is legal, RFC 3986 section 6.2.3
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

// originForm returns the request-target for the origin: what the client sent
// behind the authority, byte for byte (RFC 9112 section 3.2.1).
func originForm(req *http.Request) string {
	if strings.HasPrefix(req.RequestURI, "/") || req.RequestURI == "*" {
		return req.RequestURI // it is that already
	}
	_, rest, _ := strings.Cut(req.RequestURI, "://")
	i := strings.IndexAny(rest, "/?#")
	if i < 0 {
		if req.Method == http.MethodOptions {
			return "*" // RFC 9112 section 3.2.4
		}
		return "/"
	}
	rest, _, _ = strings.Cut(rest[i:], "#")
	if !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	return rest
}

// basicAuth reads credentials of the Basic scheme, RFC 7617.
func basicAuth(field string) (user, password string, ok bool) {
	scheme, rest, _ := strings.Cut(field, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(b), ":")
}

// hasVia reports whether one element of a Via field names us.
func hasVia(field, name string) bool {
	for v := range strings.SplitSeq(field, ",") {
		f := strings.Fields(v)
		if len(f) >= 2 && strings.EqualFold(f[1], name) {
			return true
		}
	}
	return false
}

// connectionOptions returns the fields that Connection names, canonical.
func connectionOptions(h http.Header) map[string]bool {
	vs := h["Connection"]
	if len(vs) == 0 {
		return nil
	}
	m := map[string]bool{}
	for _, v := range vs {
		for o := range strings.SplitSeq(v, ",") {
			if o = strings.TrimSpace(o); o != "" {
				m[http.CanonicalHeaderKey(o)] = true
			}
		}
	}
	return m
}

func badRequest(hint string, err error) error {
	return &flow.Error{Class: flow.BadRequest, Op: "http", Hint: hint, Err: err}
}
