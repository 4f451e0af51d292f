package explain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
	"github.com/pandoproxy/pando/internal/status"
)

// takeRoad connects to the target by the road that clients take, reports each
// stage, and then probes the target.
func (x *explanation) takeRoad(ctx context.Context) {
	var trace datapath.Trace
	conn, err := x.Road.Probe(ctx, &x.rec, &trace)
	if conn != nil {
		defer conn.Close()
	}
	x.rec.Total = time.Since(x.rec.Start)
	x.rec.Err = err
	if !x.reportName(ctx, &trace, err) || !x.reportAddresses(&trace, err) {
		return
	}
	if err != nil {
		x.fail("connect", x.rec.Dial, err)
		return
	}
	x.add("connect", status.OK, x.rec.Dial, x.rec.Addr.String()+" answered")
	x.probeTarget(ctx, conn)
	x.rec.Total = time.Since(x.rec.Start)
}

// reportName reports the stages up to the name's addresses, of a road that ended
// with err. It returns false if the road ended in one of them.
func (x *explanation) reportName(ctx context.Context, trace *datapath.Trace, err error) bool {
	switch {
	case trace.Name == nil: // the target is not a valid host
		x.fail("target", 0, err)
		return false
	case trace.Name.Final(x.Road.Policy().Mode):
		x.fail("policy (name)", 0, err)
		return false
	}
	x.addVerdict("policy (name)", "", *trace.Name, "no rule denies the name before its address is known")
	if trace.Answer == nil {
		x.fail("tailnet", 0, err)
		return false
	}
	for _, a := range trace.Aliases {
		if a.Final(x.Road.Policy().Mode) {
			x.fail("policy (alias)", 0, err)
			return false
		}
		x.addVerdict("policy (alias)", a.Name+": ", a.Verdict, "no rule denies this alias before its address is known")
	}
	return x.reportLookup(ctx, trace.Answer, err)
}

// reportAddresses reports the verdict on each address of the target, and the
// peer that carries it. It returns false if the policy denies them all.
func (x *explanation) reportAddresses(trace *datapath.Trace, err error) bool {
	allowed := x.rec.Addr.IsValid()
	denied := status.Fail
	if allowed { // another address was allowed
		denied = status.Warn
	}
	for _, a := range trace.Addrs {
		if a.Final(x.Road.Policy().Mode) {
			x.add("policy (address)", denied, 0, a.Addr.String()+": denied: "+verdict(a.Verdict, "no rule matches"))
			continue
		}
		x.addVerdict("policy (address)", a.Addr.String()+": ", a.Verdict, "no rule matches, so it is allowed")
		x.reportRoute(a)
	}
	if !allowed {
		x.setFailure(err)
	}
	return allowed
}

// addVerdict adds a verdict that lets the request pass, be it because of report
// mode. subject comes before it. without is what to say when no rule matched.
func (x *explanation) addVerdict(stage, subject string, v policy.Verdict, without string) {
	if v.Deny {
		x.add(stage, status.Warn, 0, subject+verdict(v, without)+": allowed only because policy.mode is report")
		return
	}
	x.add(stage, status.OK, 0, subject+verdict(v, without))
}

// verdict says what v rests on; without is for a verdict of no rule.
func verdict(v policy.Verdict, without string) string {
	switch {
	case v.Reason == policy.Forbidden:
		return "the address is never reachable through a proxy"
	case v.Reason == policy.ByDefault:
		return "no rule allows it, and policy.default is deny"
	case v.Reason == policy.PrivateAnswer:
		return "it is a private address of a public name, and resolve.privateAnswers is deny"
	case v.Reason == policy.NotRouted:
		return "no peer of the tailnet routes it, and policy.direct does not allow a direct connection"
	case v.Alias != "":
		return "rule " + v.Rule + " denies the alias " + v.Alias
	case v.Deny:
		return "rule " + v.Rule + " denies it"
	case v.Rule != "":
		return "rule " + v.Rule + " allows it"
	}
	return without
}

// reportLookup reports the answer that clients get, which may be cached, and
// what the sources of names say now. It returns false if the lookup failed.
func (x *explanation) reportLookup(ctx context.Context, answer *resolve.Answer, err error) bool {
	h, parseErr := host.Parse(x.rec.Host)
	if parseErr != nil {
		x.fail("resolve", 0, parseErr)
		return false
	}
	fresh, steps, freshErr := x.Resolver.Explain(ctx, h, x.judgeAlias(h))
	var detail []string
	for _, s := range steps {
		x.Steps = append(x.Steps, status.Step(s))
		detail = append(detail, fmt.Sprintf("%s: %s (%s)", s.Source, s.Says, s.Name))
	}
	if len(answer.Addrs) == 0 {
		if answer.Cached && freshErr == nil {
			detail = append(detail, "clients still get a cached answer; it will change to "+status.Join(fresh.Addrs)+" shortly")
		}
		x.fail("resolve", x.rec.Resolve, err, detail...)
		return false
	}
	says := status.Join(answer.Addrs) + " from " + answer.Source
	if answer.TTL > 0 {
		says += ", valid for " + answer.TTL.Round(time.Second).String()
	}
	outcome := status.OK
	if answer.Cached {
		says += ", cached"
		switch {
		case freshErr != nil:
			outcome = status.Warn
			detail = append(detail, "the source now fails: "+freshErr.Error())
		case status.Join(fresh.Addrs) != status.Join(answer.Addrs):
			detail = append(detail, "the source now answers "+status.Join(fresh.Addrs))
		}
	}
	x.add("resolve", outcome, x.rec.Resolve, says, detail...)
	return true
}

// judgeAlias returns the judge of the names to which aliases of h lead, as clients
// have it.
func (x *explanation) judgeAlias(h host.Host) resolve.Judge {
	p := x.Road.Policy()
	q := policy.Query{Client: x.rec.Client.Addr(), Name: h.Name, Port: x.rec.Port}
	return func(alias string) error {
		v := p.Alias(q, alias)
		if !v.Final(p.Mode) {
			return nil
		}
		return &flow.Error{
			Class:  flow.Denied,
			Op:     "policy",
			Target: alias,
			Err:    errors.New("rule " + v.Rule + " denies this alias"),
		}
	}
}

// reportRoute reports how packets reach an address that the policy allows.
func (x *explanation) reportRoute(a datapath.Judged) {
	if !a.Tailnet {
		x.add("route", status.OK, 0, a.Addr.String()+" is dialled directly, through the pod's own network")
		return
	}
	carrier, ok := x.Carrier(a.Addr)
	if !ok {
		x.add("route", status.Warn, 0, a.Addr.String()+": its route disappeared a moment ago")
		return
	}
	x.Carriers = append(x.Carriers, carrier)
	outcome := status.OK
	if !carrier.Online {
		outcome = status.Warn
	}
	x.add("route", outcome, 0, a.Addr.String()+": "+carrier.String())
}
