package httpproxy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
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
	target := s.p.Target
	if target == nil {
		target = AbsoluteForm
	}
	host, port, err := target(req)
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
