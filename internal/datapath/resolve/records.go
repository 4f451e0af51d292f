package resolve

import (
	"context"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
)

// Records asks the source that owns name for its records of a type other than A and
// AAAA, for client. name is lower case and has no trailing dot. answer is the answer
// section of the reply, with the CNAMEs on the way. exists reports whether the name
// exists; an answer without records then means that it has none of the type.
//
// Records asks judge about each name to which a CNAME leads; its error may be that of
// judge. Otherwise it is a *flow.Error, as that of Lookup. Nothing is cached.
func (r *Resolver) Records(ctx context.Context, client netip.Addr, name string, qtype uint16, judge Judge) (answer []dns.RR, exists bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	v := r.view()
	v.client = client
	for _, s := range v.plan(name) {
		if s.skip != "" {
			continue
		}
		reply, err := r.recordsOf(ctx, &v, s, qtype) // the first source owns the name
		if err != nil {
			return nil, false, unanswered(name, outcome{step: s, Result: dnsclient.Result{Err: err}})
		}
		for _, rr := range reply.Answer {
			c, ok := rr.(*dns.CNAME)
			if !ok || judge == nil {
				continue
			}
			if err := judge(strings.ToLower(strings.TrimSuffix(c.Target, "."))); err != nil {
				return nil, false, err
			}
		}
		return reply.Answer, reply.Rcode == dns.RcodeSuccess, nil
	}
	return nil, false, nil
}

// recordsOf asks the source of a step for records.
func (r *Resolver) recordsOf(ctx context.Context, v *view, s step, qtype uint16) (*dns.Msg, error) {
	if s.known != nil {
		reply := new(dns.Msg)
		if s.known.NX {
			reply.Rcode = dns.RcodeNameError
		}
		return reply, s.known.Err
	}
	if r.opts.Enter != nil {
		leave, err := r.opts.Enter(v.client, s.source)
		if err != nil {
			return nil, err
		}
		defer leave()
	}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(s.name), qtype)
	q.SetEdns0(dnsclient.UDPSize, false)
	reply, _, err := r.asker(v, s)(ctx, q)
	return reply, err
}
