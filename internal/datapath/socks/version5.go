package socks

import (
	"errors"
	"slices"

	"github.com/pandoproxy/pando/internal/flow"
)

// handshake5 goes through greeting, authentication and request, and fills in
// rec. A reply is still due for its errors, except those of class Canceled and
// Unauthenticated, and those that are answered.
func (s *Server) handshake5(in *reader, rec *flow.Record) error {
	method, err := s.chooseMethod(in)
	if err != nil {
		return err
	}
	if method == methodPassword {
		if err := s.authenticate(in, rec); err != nil {
			return err
		}
	}
	req, err := parse(in, parseRequest)
	if err != nil {
		return err
	}
	rec.Host = req.host
	rec.Port = req.port
	switch {
	case req.command != commandConnect:
		return unsupported(commandNotSupported)
	case req.host == "":
		return badRequest("empty host name")
	case req.port == 0:
		return badRequest("port 0 is not a port to connect to")
	}
	return nil
}

// chooseMethod reads the greeting and answers with the authentication method.
func (s *Server) chooseMethod(in *reader) (method byte, err error) {
	methods, err := parse(in, parseGreeting)
	if err != nil {
		return 0, err
	}
	method = methodNone
	if s.Authenticate != nil || !slices.Contains(methods, methodNone) && slices.Contains(methods, methodPassword) {
		method = methodPassword // some clients offer nothing else, even if no password is needed
	}
	if !slices.Contains(methods, method) {
		in.conn.Write([]byte{version5, methodNoneAcceptable})
		hint := "offer the method \"no authentication required\""
		if method == methodPassword {
			hint = "Pando requires a username and password"
		}
		return 0, &flow.Error{
			Class: flow.Unauthenticated,
			Op:    "socks",
			Hint:  hint,
			Err:   errors.New("no acceptable method"),
		}
	}
	if _, err := in.conn.Write([]byte{version5, method}); err != nil {
		return 0, connError(err)
	}
	return method, nil
}

// authenticate reads a username and password and checks them, if the server
// checks any.
func (s *Server) authenticate(in *reader, rec *flow.Record) error {
	cred, err := parse(in, parseCredentials)
	if err != nil {
		return err
	}
	status := byte(0)
	var wrong error
	if s.Authenticate != nil {
		wrong = s.Authenticate(rec.Client.Addr(), cred.user, cred.password)
	}
	if wrong != nil {
		status = 1
	}
	if _, err := in.conn.Write([]byte{passwordVersion, status}); err != nil {
		return connError(err)
	}
	if wrong != nil {
		return answered{wrong}
	}
	if s.Authenticate != nil {
		rec.User = cred.user
	}
	return nil
}
