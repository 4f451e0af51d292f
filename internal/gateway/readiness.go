package gateway

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/device"
	"github.com/pandoproxy/pando/internal/memory"
	"github.com/pandoproxy/pando/internal/status"
)

// configurationCheck is the check whose note quotes the configuration.
const configurationCheck = "configuration"

// dialsCheck is the check whose note names targets of clients.
const dialsCheck = "dials"

// view is the state of the replica at one moment. Each answer is made from one
// view, so that it cannot contradict itself.
type view struct {
	device        device.Snapshot
	configuration string            // see reloads.state
	public        map[string]string // other notes of these checks, which every pod may read
	checks        []status.Check
}

// look returns the state of the replica now.
func (g *Gateway) look() view {
	v := view{device: g.device.Snapshot()}
	named, counted := dial.DescribeSilent(g.road.Dialer.Silent())
	var public string
	v.configuration, public = g.reloads.state()
	v.public = map[string]string{
		configurationCheck: public,
		dialsCheck:         dialsNote(g.road.Limit, counted),
	}
	v.checks = slices.Concat(
		v.device.Checks(),
		[]status.Check{
			checkNotDraining(g.draining.Load()),
			{Name: configurationCheck, Note: v.configuration},
			memory.Check(g.road.Limit.Memory),
			{Name: dialsCheck, Note: dialsNote(g.road.Limit, named)},
		},
		g.prober.Checks(),
	)
	return v
}

// publicChecks returns v.checks with texts that every pod may read.
func (v view) publicChecks() []status.Check {
	list := slices.Clone(v.checks)
	for i := range list {
		if note, ok := v.public[list[i].Name]; ok {
			list[i].Note = note
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

// dialsNote says whether clients are refused dials; silent is about the targets that do
// not answer. The check never fails: to send clients elsewhere would move the load to
// the next replica.
func dialsNote(gate *limit.Gate, silent string) string {
	now := gate.Dials()
	most := gate.Limits().Dials
	if most == 0 || now < most/2 {
		return silent
	}
	note := fmt.Sprintf("%d of %d dials are in progress; clients that have their share get no more", now, most)
	if silent == "" {
		return note
	}
	return note + "; " + silent
}

var errDraining = errors.New("the replica is shutting down")
