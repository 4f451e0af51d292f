package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// tcpAfter is how long UDP may be silent before the same question also
	// goes out over TCP: some resolvers, and some paths, only speak that.
	tcpAfter = 300 * time.Millisecond
	// serverTimeout bounds one server, so that the next has its turn.
	serverTimeout = 2 * time.Second
	// otherFamily is how long an answer with addresses waits for the other family's.
	otherFamily = 300 * time.Millisecond
	// halfTTL is how long an answer of one family alone is kept at most.
	halfTTL = 30 * time.Second
	// udpSize is what we say we can take over UDP (DNS flag day 2020).
	udpSize = 1232
)

// result is what one source says about a name.
type result struct {
	addrs []netip.Addr
	alias string // the end of the CNAME chain, when it has no address here
	nx    bool   // there is no such name; else it may be one without addresses
	ttl   time.Duration
	err   error // the source failed; the other fields mean nothing
}

func (r result) found() bool { return len(r.addrs) > 0 || r.alias != "" }

// ask puts the A and the AAAA question to one source and joins the answers.
// One family's failure is forgiven when the other has addresses, and so is its
// silence after otherFamily.
func (r *Resolver) ask(ctx context.Context, source, name string, exchange func(context.Context, *dns.Msg) (*dns.Msg, error)) result {
	leave, err := r.sources.enter(ctx, source)
	if err != nil {
		return result{err: err}
	}
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the question that is not waited for any more
	var answers [2]chan result
	for i, qtype := range []uint16{dns.TypeAAAA, dns.TypeA} {
		answers[i] = make(chan result, 1)
		q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
		q.SetEdns0(udpSize, false)
		go func() {
			reply, err := exchange(ctx, q)
			if err != nil {
				answers[i] <- result{err: err}
			} else {
				answers[i] <- read(reply, q.Question[0])
			}
		}()
	}
	var both [2]result
	select {
	case both[0] = <-answers[0]:
		both[1] = other(both[0], answers[1])
	case both[1] = <-answers[1]:
		both[0] = other(both[1], answers[0])
	}
	return join(both[0], both[1])
}

// other waits for the second family's answer: not for long when the first has
// addresses, as the Resolution Delay of RFC 8305 section 3.
func other(first result, second <-chan result) result {
	if len(first.addrs) == 0 {
		return <-second
	}
	t := time.NewTimer(otherFamily)
	defer t.Stop()
	select {
	case res := <-second:
		return res
	case <-t.C:
		return result{err: errors.New("no answer yet")}
	}
}

// join makes one result of those of both families.
func join(v6, v4 result) result {
	switch {
	case v4.err != nil && v6.err != nil:
		return result{err: v4.err}
	case v4.err != nil && !v6.found() && !v6.nx: // a name that does not exist has no type (RFC 8020)
		return v4
	case v6.err != nil && !v4.found() && !v4.nx:
		return v6
	case v4.err != nil:
		v6.ttl = min(v6.ttl, halfTTL)
		return v6
	case v6.err != nil:
		v4.ttl = min(v4.ttl, halfTTL)
		return v4
	}
	out := result{addrs: append(v6.addrs, v4.addrs...), alias: v4.alias, nx: v4.nx && v6.nx, ttl: min(v4.ttl, v6.ttl)}
	if out.alias == "" {
		out.alias = v6.alias
	}
	if len(out.addrs) > 0 {
		// A family without addresses must not cut the other's life short.
		if len(v6.addrs) == 0 {
			out.ttl = v4.ttl
		} else if len(v4.addrs) == 0 {
			out.ttl = v6.ttl
		}
	}
	sortAddrs(out.addrs)
	return out
}

// read takes the addresses that the reply gives for the question, following
// its CNAMEs (RFC 1034 section 3.6.2) and nothing else in it.
func read(m *dns.Msg, q dns.Question) result {
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	default:
		return result{err: fmt.Errorf("the resolver answered %s", dns.RcodeToString[m.Rcode])}
	}
	out := result{ttl: time.Hour}
	name := strings.ToLower(q.Name)
	for range maxAliases {
		next := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if strings.ToLower(h.Name) != name {
				continue
			}
			ttl := time.Duration(h.Ttl) * time.Second
			switch rr := rr.(type) {
			case *dns.A:
				if a, ok := netip.AddrFromSlice(rr.A); ok && q.Qtype == dns.TypeA {
					out.addrs, out.ttl = append(out.addrs, a.Unmap()), min(out.ttl, ttl)
				}
			case *dns.AAAA:
				if a, ok := netip.AddrFromSlice(rr.AAAA); ok && q.Qtype == dns.TypeAAAA {
					out.addrs, out.ttl = append(out.addrs, a.Unmap()), min(out.ttl, ttl)
				}
			case *dns.CNAME:
				next, out.ttl = strings.ToLower(rr.Target), min(out.ttl, ttl)
			}
		}
		if len(out.addrs) > 0 || next == "" {
			break
		}
		name = next
		out.alias = strings.TrimSuffix(name, ".")
	}
	if len(out.addrs) > 0 {
		out.alias = ""
	} else if m.Rcode == dns.RcodeNameError {
		out.alias, out.nx = "", true // the end of the chain does not exist (RFC 6604)
	}
	if !out.found() {
		out.ttl = negativeTTL
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				out.ttl = time.Duration(min(soa.Minttl, soa.Hdr.Ttl)) * time.Second // RFC 2308 section 5
			}
		}
	}
	return out
}

// exchangeAny asks servers in turn until one gives a usable reply: those first
// that did not fail the last time.
func (r *Resolver) exchangeAny(ctx context.Context, dial DialFunc, servers []string, q *dns.Msg) (*dns.Msg, error) {
	var errs []error
	for _, s := range r.health.order(servers) {
		start, kind, name := time.Now(), dns.TypeToString[q.Question[0].Qtype], strings.TrimSuffix(q.Question[0].Name, ".")
		reply, err := r.exchangeOne(ctx, dial, s, q)
		if err == nil {
			note(ctx, "resolver "+s, name, "%s: %s, %d records, in %v", kind, dns.RcodeToString[reply.Rcode], len(reply.Answer), time.Since(start).Round(10*time.Microsecond))
			return reply, nil
		}
		note(ctx, "resolver "+s, name, "%s: failed after %v: %v", kind, time.Since(start).Round(10*time.Microsecond), err)
		errs = append(errs, fmt.Errorf("resolver %s: %w", s, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// exchangeOne asks one server, and remembers how it fared.
func (r *Resolver) exchangeOne(ctx context.Context, dial DialFunc, server string, q *dns.Msg) (*dns.Msg, error) {
	addr, err := ServerAddr(server)
	if err != nil {
		return nil, err
	}
	reply, err := exchange(ctx, dial, addr, q)
	if err == nil && reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		err = fmt.Errorf("answered %s", dns.RcodeToString[reply.Rcode])
	}
	if !errors.Is(err, context.Canceled) {
		r.health.note(addr.String(), err)
	}
	return reply, err
}

// ServerAddr reads the address of a resolver as a tailnet gives it, "10.12.0.2"
// or "10.12.0.2:5353"; port 53 where none is said.
func ServerAddr(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("resolver %q: only plain DNS at an IP address is supported", s)
	}
	return ap, nil
}

// exchange asks one server, and once more without EDNS when it does not
// understand it (RFC 6891 section 7).
func exchange(ctx context.Context, dial DialFunc, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	reply, err := exchangeBoth(ctx, dial, server, q)
	if err == nil && (reply.Rcode == dns.RcodeFormatError || reply.Rcode == dns.RcodeNotImplemented) && q.IsEdns0() != nil {
		plain := q.Copy()
		plain.Extra = nil
		return exchangeBoth(ctx, dial, server, plain)
	}
	return reply, err
}

// exchangeBoth asks over UDP, and over TCP as soon as UDP fails, is truncated, or
// has been silent for tcpAfter. The first good reply wins.
func exchangeBoth(ctx context.Context, dial DialFunc, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the one that lost
	type outcome struct {
		reply *dns.Msg
		err   error
		tcp   bool
	}
	out := make(chan outcome, 2) // both may answer after we left
	try := func(network string) {
		reply, err := exchangeOver(ctx, dial, network, server, q)
		out <- outcome{reply, err, network == "tcp"}
	}
	go try("udp")
	timer := time.NewTimer(tcpAfter)
	defer timer.Stop()
	tcpStarted, waiting := false, 1
	startTCP := func() {
		if !tcpStarted {
			tcpStarted = true
			waiting++
			go try("tcp")
		}
	}
	var errs []error
	for waiting > 0 {
		select {
		case <-timer.C:
			startTCP()
		case o := <-out:
			waiting--
			if o.err == nil && (o.tcp || !o.reply.Truncated) {
				return o.reply, nil
			}
			if o.err != nil {
				errs = append(errs, o.err)
			}
			if !o.tcp {
				startTCP()
			}
		}
	}
	return nil, errors.Join(errs...)
}

func exchangeOver(ctx context.Context, dial DialFunc, network string, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	c, err := dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if d, ok := ctx.Deadline(); ok {
		c.SetDeadline(d)
	}
	client := dns.Client{Net: network, Timeout: serverTimeout}
	reply, _, err := client.ExchangeWithConnContext(ctx, q.Copy(), &dns.Conn{Conn: c, UDPSize: udpSize})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", network, err)
	}
	if !reply.Response || len(reply.Question) != 1 || !strings.EqualFold(reply.Question[0].Name, q.Question[0].Name) || reply.Question[0].Qtype != q.Question[0].Qtype {
		return nil, fmt.Errorf("%s: the reply is for another question", network)
	}
	return reply, nil
}

// dialHost opens a connection through the host's own network.
func dialHost(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr.String())
}
