package resolve

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
	"github.com/pandoproxy/pando/internal/datapath/resolve/owner"
)

// outcome is a step of a plan and what it gave. The result of a step with skip
// means nothing.
type outcome struct {
	step
	dnsclient.Result
	ended bool // the plan ended with this step
}

// lookup asks the sources of name without the cache. It does not follow an alias
// that leads to another source: Answer.next names it. If it fails, the Answer names
// the source that failed. all has the outcomes of all steps, in order.
func (r *Resolver) lookup(ctx context.Context, v *view, name string) (answer Answer, ttl time.Duration, all []outcome, err error) {
	end, all := r.run(ctx, v, v.plan(name))
	v.withTables(name, &end)
	answer.Source = end.source
	if end.ended && end.name != name {
		answer.Name = end.name
	}
	if end.Err != nil {
		return answer, 0, all, unanswered(name, end)
	}
	answer.Aliases = end.Chain
	answer.records = append(end.Links, end.Records...)
	if len(end.Addrs) > 0 || len(end.Records) > 0 {
		answer.Addrs = end.Addrs
		return answer, end.TTL, all, nil
	}
	if end.Alias == "" || end.Alias == name {
		return answer, end.TTL, all, notFound(name, end)
	}
	answer.next = end.Alias
	return answer, end.TTL, all, nil
}

// run runs steps until one ends the plan. It returns the outcome of the plan, and
// those of the steps so far. If no step ends the plan, its outcome is the failure
// of the pod's resolvers, if they failed, or that of the last step.
func (r *Resolver) run(ctx context.Context, v *view, steps []step) (end outcome, all []outcome) {
	var failure *outcome
	for _, s := range steps {
		if s.skip != "" {
			all = append(all, outcome{step: s})
			continue
		}
		end = outcome{step: s, Result: r.ask(ctx, v, s)}
		end.ended = s.ends.endedBy(&end.Result)
		all = append(all, end)
		if end.ended {
			return end, all
		}
		if end.Err != nil && s.source == SourceBase {
			last := end
			failure = &last
		}
	}
	if failure != nil {
		return *failure, all
	}
	return end, all
}

// ask runs one step.
func (r *Resolver) ask(ctx context.Context, v *view, s step) dnsclient.Result {
	if s.known != nil {
		return *s.known
	}
	if r.opts.Enter != nil {
		leave, err := r.opts.Enter(v.client, s.source)
		if err != nil {
			return dnsclient.Result{Err: err}
		}
		defer leave()
	}
	if v.qtype != 0 && s.via != magicDNS {
		return dnsclient.LookupRecords(ctx, s.name, v.qtype, r.asker(v, s))
	}
	res := dnsclient.Lookup(ctx, s.name, s.guess, r.asker(v, s))
	if v.qtype != 0 { // MagicDNS has only addresses, and asks others for some types
		res.Addrs = nil
	}
	if !v.whole {
		res.Keep()
	}
	return res
}

// asker returns what sends the questions of a step.
func (r *Resolver) asker(v *view, s step) dnsclient.AskFunc {
	if s.via == magicDNS {
		return r.askMagic
	}
	dial := r.dialer(s.via)
	return func(ctx context.Context, q *dns.Msg) (*dns.Msg, []dnsclient.Query, error) {
		reply, queries, err := r.client.Ask(ctx, dial, s.servers, q)
		if err == nil {
			discardForeign(&v.Owners, reply, s.source)
		}
		return reply, queries, err
	}
}

// askMagic asks MagicDNS. There are no queries, because MagicDNS is in this process.
func (r *Resolver) askMagic(ctx context.Context, q *dns.Msg) (*dns.Msg, []dnsclient.Query, error) {
	wire, err := q.Pack()
	if err != nil {
		return nil, nil, err
	}
	wire, err = r.opts.QueryMagic(ctx, wire)
	if err != nil {
		return nil, nil, err
	}
	reply := new(dns.Msg)
	return reply, nil, reply.Unpack(wire)
}

// dialer returns how servers are reached.
func (r *Resolver) dialer(via network) DialFunc {
	switch via {
	case podNetwork:
		return r.dialBase
	case globalNetwork:
		if r.opts.DialGlobal != nil {
			return r.opts.DialGlobal
		}
	}
	return r.opts.DialTailnet
}

// dialHost opens a connection through the pod's own network.
func dialHost(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr.String())
}

// discardForeign removes from a reply of source what it says about names that
// another source owns. A CNAME that leads to such a name is followed at its owner.
// If the reply says that the name does not exist, that means nothing: the public
// DNS does not know private names.
func discardForeign(o *owner.Owners, reply *dns.Msg, source string) {
	foreign := func(fqdn string) bool {
		owns := ownerOf(o, strings.ToLower(strings.TrimSuffix(fqdn, ".")))
		return owns != "" && owns != source
	}
	reply.Answer = slices.DeleteFunc(reply.Answer, func(rr dns.RR) bool { return foreign(rr.Header().Name) })
	for _, rr := range reply.Answer {
		if c, ok := rr.(*dns.CNAME); ok && foreign(c.Target) {
			reply.Rcode = dns.RcodeSuccess
		}
	}
}
