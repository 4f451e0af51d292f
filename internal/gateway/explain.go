package gateway

import (
	"errors"
	"net/netip"

	"github.com/pandoproxy/pando/internal/explain"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

// explainer answers why something fails here.
func (g *Gateway) explainer() *explain.Explainer {
	e := &explain.Explainer{Road: g.road, Admits: g.admits, Resolver: g.road.Resolver, Carrier: g.hop, AcceptRoutes: g.cfg.Tailnet.AcceptRoutes, Status: g.status}
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

// hop returns the peer that carries a, and its route.
func (g *Gateway) hop(a netip.Addr) (status.Hop, bool) {
	c, ok := g.node.Carrier(a)
	return status.NewHop(a, c.Route, peerStatus(c.Peer)), ok
}

// carrierSays is carrier in words; empty when nobody carries a.
func (g *Gateway) carrierSays(a netip.Addr) string {
	c, ok := g.node.Carrier(a)
	if !ok {
		return ""
	}
	return "carried by " + c.String()
}
