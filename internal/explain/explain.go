// Package explain answers the question "why does it fail?". For a target, it
// takes the same road as a client's request on a running replica, by the same
// code, and reports what each stage did. Without a target it checks the replica
// itself. It changes nothing, does not count as a flow, and dials only what the policy
// allows the client that it stands for. Its words are package status.
package explain

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
	"github.com/pandoproxy/pando/internal/status"
)

// Explainer answers POST /explain. All its functions but Password are required.
type Explainer struct {
	Road     Road
	Resolver Resolver
	// Admits returns why a client at that address would be turned away at the
	// proxy port, a *flow.Error. It returns nil if the client would be let in.
	Admits func(client netip.Addr) error
	// Password reports whether a user has this password. It is nil when clients
	// need no password.
	Password func(user, password string) bool
	// Carrier returns the peer that carries an address. ok is false when no peer
	// does.
	Carrier func(netip.Addr) (carrier status.Carrier, ok bool)
	// AcceptRoutes reports whether this replica uses the routes of peers.
	AcceptRoutes bool
	// Status returns the state of the replica, with at most that many flows.
	Status func(flows int) status.Replica
}

// Road connects to targets as clients do: a *datapath.Road.
type Road interface {
	Probe(context.Context, *flow.Record, *datapath.Trace) (net.Conn, error)
	Policy() *policy.Policy
}

// Resolver queries the sources of names, past the cache: a *resolve.Resolver.
type Resolver interface {
	Explain(context.Context, host.Host, resolve.Judge) (resolve.Answer, []resolve.Step, error)
	CheckZones(context.Context) []resolve.Check
}

// explainTime bounds one explanation: two lookups, a dial, a handshake and an
// answer.
const explainTime = time.Minute

// Explain explains one request. It returns when all is said, or after a minute.
func (e *Explainer) Explain(ctx context.Context, q status.ExplainRequest) status.Explanation {
	ctx, cancel := context.WithTimeout(ctx, explainTime)
	defer cancel()
	x := &explanation{
		Explainer: e,
		request:   q,
		Explanation: status.Explanation{
			Target: q.Target,
			Device: e.Status(0).Tailnet.Name,
			Class:  flow.OK.String(),
		},
	}
	if q.Target == "" {
		x.checkReplica(ctx)
		return x.Explanation
	}
	if err := x.parse(); err != nil {
		x.fail("target", 0, err)
		return x.Explanation
	}
	if x.admit() {
		x.takeRoad(ctx)
	}
	return x.Explanation
}

// explanation is one explanation in progress.
type explanation struct {
	*Explainer
	status.Explanation
	request status.ExplainRequest
	rec     flow.Record
	url     *url.URL // nil when the target is host:port
}

// add adds a stage that did not fail.
func (x *explanation) add(name string, outcome status.Outcome, took time.Duration, says string, detail ...string) {
	x.Stages = append(x.Stages, status.Stage{
		Name:   name,
		Status: outcome,
		Says:   says,
		Detail: detail,
		Millis: float64(took.Microseconds()) / 1000,
	})
}

// fail adds a stage that failed with err. The first failure decides the class
// and the hint.
func (x *explanation) fail(name string, took time.Duration, err error, detail ...string) {
	says := err.Error()
	if fe, ok := errors.AsType[*flow.Error](err); ok && fe.Err != nil {
		says = fe.Err.Error()
	}
	x.add(name, status.Fail, took, says, detail...)
	if x.Class == flow.OK.String() {
		x.setFailure(err)
	}
}

// setFailure takes the class and the hint of the explanation from err.
func (x *explanation) setFailure(err error) {
	class := flow.ClassOf(err)
	x.Class = class.String()
	x.Hint = flow.HintOf(err)
	if class == flow.NoRoute {
		x.Hint = x.unlessRoutesAreOff(x.Hint)
	}
}

// unlessRoutesAreOff returns hint if this replica uses the routes of peers.
// Otherwise the hint is to use them.
func (x *explanation) unlessRoutesAreOff(hint string) string {
	if x.AcceptRoutes {
		return hint
	}
	return "tailnet.acceptRoutes is off; switch it on to reach anything behind a subnet router"
}
