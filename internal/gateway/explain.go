package gateway

import (
	"net/netip"

	"github.com/pandoproxy/pando/internal/explain"
	"github.com/pandoproxy/pando/internal/flow"
)

// explainer returns what answers why a target cannot be reached from here.
func (g *Gateway) explainer() *explain.Explainer {
	return &explain.Explainer{
		Road:         g.road,
		Admits:       g.admits,
		Password:     verifier(g.users),
		Resolver:     g.road.Resolver,
		Carrier:      g.device.Carrier,
		AcceptRoutes: g.cfg.Tailnet.AcceptRoutes,
		Status:       g.status,
	}
}

// admits returns nil if a client would be accepted now, and otherwise the
// *flow.Error that says why not.
func (g *Gateway) admits(client netip.Addr) error {
	if g.draining.Load() {
		return &flow.Error{
			Class: flow.Cut,
			Op:    "drain",
			Err:   errDraining,
			Hint:  "ask another replica: this one is shutting down",
		}
	}
	return g.road.Limit.Full(client)
}
