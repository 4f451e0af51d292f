package httpproxy

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// check reads the target and the credentials from req into rec.
func (s *session) check(req *http.Request, rec *flow.Record) error {
	if err := wire.ValidHead(req); err != nil {
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
	if wire.HasVia(req.Header["Via"], s.p.name()) {
		return &flow.Error{
			Class:  flow.Loop,
			Op:     "http",
			Target: rec.Target(),
			Hint:   "the request came back to the proxy that sent it: the target's name leads to a proxy",
			Err:    errors.New("own name in Via"),
		}
	}
	return nil
}

// malformed is what makes all of a head doubtful.
type malformed struct{ error }

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

func badRequest(hint string, err error) error {
	return &flow.Error{Class: flow.BadRequest, Op: "http", Hint: hint, Err: err}
}
