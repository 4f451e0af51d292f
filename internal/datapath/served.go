package datapath

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// Served is the road of a port for clients without a proxy setting: it leads only to
// the targets that the port is for. DNS leads clients there, for some names. Without
// this, the port would be an open proxy for everything that the policy allows.
type Served struct {
	*Road
	// Names are the names that are served: exact, or "*.suffix", in lower case. "*"
	// stands for every target, addresses too. Empty means every name.
	Names []string
	Port  uint16 // the target's port; 0 means every port
}

// Connect is Road.Connect for the targets that are served.
func (s *Served) Connect(ctx context.Context, rec *flow.Record) (net.Conn, error) {
	if err := s.check(rec); err != nil {
		return nil, err
	}
	return s.Road.Connect(ctx, rec)
}

// Judge is Road.Judge for the targets that are served.
func (s *Served) Judge(ctx context.Context, rec *flow.Record) ([]flow.Target, error) {
	if err := s.check(rec); err != nil {
		return nil, err
	}
	return s.Road.Judge(ctx, rec)
}

// check returns the *flow.Error for a target that is not served.
func (s *Served) check(rec *flow.Record) error {
	h, err := host.Parse(rec.Host)
	if err != nil {
		return err
	}
	switch {
	case !s.serves(h):
		return notServed(rec, "this port serves only certain names: those of dns.zones, or those in serves of its own section; use the proxy port for other targets", "the port does not serve this name")
	case s.Port != 0 && rec.Port != s.Port:
		return notServed(rec, "this port serves only targets on port "+strconv.Itoa(int(s.Port))+"; use the proxy port for other targets, or set anyPort", "the port does not serve this port of targets")
	}
	return nil
}

func notServed(rec *flow.Record, hint, cause string) error {
	return &flow.Error{
		Class:  flow.Denied,
		Op:     "port",
		Target: rec.Target(),
		Hint:   hint,
		Err:    errors.New(cause),
	}
}

func (s *Served) serves(h host.Host) bool {
	if h.Addr.IsValid() {
		return slices.Contains(s.Names, "*")
	}
	return len(s.Names) == 0 || slices.ContainsFunc(s.Names, func(pattern string) bool {
		suffix, below := strings.CutPrefix(pattern, "*")
		return below && strings.HasSuffix(h.Name, suffix) && len(h.Name) > len(suffix) || h.Name == pattern
	})
}
