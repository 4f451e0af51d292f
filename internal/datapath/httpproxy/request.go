package httpproxy

import (
	"errors"
	"net/http"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/target"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// check reads the target and the user of req into rec, and rejects requests
// that are malformed, without valid credentials, or in a loop.
func (s *session) check(req *http.Request, rec *flow.Record) error {
	if err := wire.ValidHead(req); err != nil {
		return badRequest("send a well-formed HTTP/1.1 request", &malformed{err})
	}
	find := s.p.Target
	switch {
	case find != nil:
	case s.p.Secure != nil:
		find = target.AbsoluteFormTLS
	default:
		find = target.AbsoluteForm
	}
	host, port, err := find(req)
	if err != nil {
		return err
	}
	rec.Host = host
	rec.Port = port
	if s.p.Authenticate != nil {
		user, password, ok := wire.BasicAuth(req.Header.Get("Proxy-Authorization"))
		if !ok {
			return &flow.Error{
				Class:  flow.Unauthenticated,
				Op:     "http",
				Target: rec.Target(),
				Hint:   "Pando requires a username and password",
				Err:    errors.New("no valid credentials"),
			}
		}
		if err := s.p.Authenticate(rec.Client.Addr(), user, password); err != nil {
			return err
		}
		rec.User = user
	}
	if wire.HasVia(req.Header["Via"], s.p.name()) {
		return &flow.Error{
			Class:  flow.Loop,
			Op:     "http",
			Target: rec.Target(),
			Hint:   "the target's name resolves to a proxy; check the DNS records of the name",
			Err:    errors.New("own name in Via"),
		}
	}
	return nil
}

// malformed is the error for a head whose fields can't be relied on.
type malformed struct{ error }

func badRequest(hint string, err error) error {
	return &flow.Error{
		Class: flow.BadRequest,
		Op:    "http",
		Hint:  hint,
		Err:   err,
	}
}
