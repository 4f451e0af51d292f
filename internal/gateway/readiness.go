package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/device"
	"github.com/pandoproxy/pando/internal/memory"
	"github.com/pandoproxy/pando/internal/status"
)

// configurationCheck is the check whose note quotes the configuration.
const configurationCheck = "configuration"

// view is the state of the replica at one moment. Each answer is made from one
// view, so that it cannot contradict itself.
type view struct {
	device        device.Snapshot
	configuration string // see reloads.state
	public        string // configuration without secrets
	checks        []status.Check
}

// look returns the state of the replica now.
func (g *Gateway) look() view {
	v := view{device: g.device.Snapshot()}
	v.configuration, v.public = g.reloads.state()
	v.checks = slices.Concat(
		v.device.Checks(),
		[]status.Check{
			checkNotDraining(g.draining.Load()),
			{Name: configurationCheck, Note: v.configuration},
			memory.Check(g.road.Limit.Memory),
			checkDials(g.road.Limit, g.road.Dialer.Silent()),
		},
		g.prober.Checks(),
	)
	return v
}

// publicChecks returns v.checks with texts that every pod may read.
func (v view) publicChecks() []status.Check {
	list := slices.Clone(v.checks)
	for i := range list {
		if list[i].Name == configurationCheck {
			list[i].Note = v.public
		}
	}
	return list
}

// checks returns the conditions under which the replica should be sent clients,
// as they are now.
func (g *Gateway) checks() []status.Check { return g.look().checks }

// ready reports whether all conditions hold.
func ready(checks []status.Check) bool {
	return !slices.ContainsFunc(checks, func(c status.Check) bool { return c.Err != nil })
}

// checkNotDraining fails once the drain has begun.
func checkNotDraining(draining bool) status.Check {
	c := status.Check{Name: status.NotDraining}
	if draining {
		c.Err = errDraining
	}
	return c
}

// checkDials notes whether clients are refused dials, and which targets do not
// answer. It never fails: to send clients elsewhere would move the load to the next
// replica.
func checkDials(gate *limit.Gate, silent []netip.AddrPort) status.Check {
	var words []string
	now := gate.Dials()
	most := gate.Limits().Dials
	if most > 0 && now >= most/2 {
		words = append(words, fmt.Sprintf("%d of %d dials are in progress; clients that have their share get no more", now, most))
	}
	if n := len(silent); n > 0 {
		const shown = 3
		text := "targets that do not answer, and are dialled only once a second:"
		for _, a := range silent[:min(n, shown)] {
			text += " " + a.String()
		}
		if n > shown {
			text += fmt.Sprintf(" and %d more", n-shown)
		}
		words = append(words, text)
	}
	return status.Check{Name: "dials", Note: strings.Join(words, "; ")}
}

var errDraining = errors.New("the replica is shutting down")
