package gateway

import (
	"errors"
	"net/netip"

	"github.com/pandoproxy/pando/internal/admin"
	"github.com/pandoproxy/pando/internal/explain"
	"github.com/pandoproxy/pando/internal/flow"
)

// explainer answers why something fails here.
func (g *Gateway) explainer() *explain.Explainer {
	e := &explain.Explainer{Road: g.road, Admits: g.admits, Carrier: g.carrier, AcceptRoutes: g.cfg.Tailnet.AcceptRoutes, Status: g.status}
	if g.users.Load() != nil {
		e.Password = g.http.Authenticate
	}
	return e
}

// admits says why a client would be turned away at the port.
func (g *Gateway) admits(client netip.Addr) error {
	if g.draining.Load() {
		return &flow.Error{Class: flow.Cut, Op: "drain", Err: errors.New("the replica is leaving"), Hint: "ask another replica: this one is shutting down"}
	}
	return g.limit.Full(client)
}

func (g *Gateway) carrier(a netip.Addr) (admin.Peer, netip.Prefix, bool) {
	c, ok := g.node.Carrier(a)
	return peerStatus(c.Peer), c.Route, ok
}

// carrierSays is carrier in words; empty when nobody carries a.
func (g *Gateway) carrierSays(a netip.Addr) string {
	c, ok := g.node.Carrier(a)
	if !ok {
		return ""
	}
	return "carried by " + c.String()
}
