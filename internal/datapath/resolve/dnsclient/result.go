package dnsclient

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/flow"
)

const (
	// OtherFamily is how long an answer with addresses waits for the answer of the
	// other family: the Resolution Delay of RFC 8305 section 3, but longer.
	OtherFamily = 300 * time.Millisecond
	// HalfTTL bounds how long an answer of one family alone is kept.
	HalfTTL = 30 * time.Second
	// NegativeTTL is how long it is kept that a name does not exist, if the zone
	// has no SOA record.
	NegativeTTL = 10 * time.Second

	// MaxAddrs is how many addresses of a name Result.Keep keeps.
	MaxAddrs = 32

	// maxChain bounds the CNAMEs in one reply.
	maxChain = 8
)

// Result is what one source says about a name.
type Result struct {
	Addrs []netip.Addr
	Alias string // the end of the CNAME chain, if it has no address or record here
	// Chain is the names to which CNAMEs of the replies lead, each once, lower case
	// and without the trailing dot.
	Chain []string
	// Records is the records of LookupRecords. Links is the CNAMEs that led to them, or to
	// Alias.
	Records, Links []dns.RR

	NX bool // the name does not exist; otherwise it may exist without addresses
	// Zone is the zone that said NX about the name itself, and not about an alias:
	// that of the SOA record. It is empty if there was none.
	Zone    string
	Left    int // addresses that Keep has left out
	TTL     time.Duration
	Err     error   // the source failed; the fields above mean nothing
	Queries []Query // that were sent for it
}

// Found reports whether r has an address, a record or an alias.
func (r *Result) Found() bool { return r.hasData() || r.Alias != "" }

func (r *Result) hasData() bool { return len(r.Addrs) > 0 || len(r.Records) > 0 }

// Keep keeps MaxAddrs addresses and counts the others in Left. The owner of a name
// chooses how many it has, and a connection tries only a few. Both families keep
// half of MaxAddrs, or all that they have if that is less. Within a family the first
// ones are kept: servers that balance load give them in another order each time.
func (r *Result) Keep() {
	v6 := 0
	for v6 < len(r.Addrs) && r.Addrs[v6].Is6() { // they come first
		v6++
	}
	v4 := len(r.Addrs) - v6
	keep6 := min(v6, max(MaxAddrs/2, MaxAddrs-v4))
	keep4 := min(v4, MaxAddrs-keep6)
	r.Left = v6 + v4 - keep6 - keep4
	r.Addrs = append(slices.Clone(r.Addrs[:keep6]), r.Addrs[v6:v6+keep4]...)
}

// String says what the source answered.
func (r *Result) String() string {
	switch {
	case r.Err != nil:
		return "failed: " + r.Err.Error()
	case r.Left > 0:
		return fmt.Sprintf("%s, and %d more that are not used, for %v", strings.Trim(fmt.Sprint(r.Addrs), "[]"), r.Left, r.TTL)
	case len(r.Addrs) > 0:
		return fmt.Sprintf("%s, for %v", strings.Trim(fmt.Sprint(r.Addrs), "[]"), r.TTL)
	case r.Alias != "":
		return "is an alias of " + r.Alias
	case r.NX:
		return "does not exist"
	}
	return "exists, without an address"
}

// errNoAnswerYet stands for the answer of a family that was not waited for.
var errNoAnswerYet = errors.New("no answer yet")

// AskFunc sends one question and returns the reply, and the queries that it took.
type AskFunc func(ctx context.Context, q *dns.Msg) (*dns.Msg, []Query, error)

// Lookup asks for the A and AAAA records of name and joins the answers. It forgives
// the failure of one family if the other has addresses, and its silence after
// OtherFamily. guess says that the name probably does not exist: then it first asks
// for A alone. It asks for AAAA if the name exists (RFC 8020), or if the answer takes
// longer than OtherFamily.
func Lookup(ctx context.Context, name string, guess bool, ask AskFunc) Result {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the question that is not waited for any more
	answers4 := start(ctx, name, dns.TypeA, ask)
	if guess {
		select {
		case v4 := <-answers4:
			if v4.Err == nil && v4.NX {
				return v4
			}
			answers4 <- v4
		case <-time.After(OtherFamily):
		}
	}
	answers6 := start(ctx, name, dns.TypeAAAA, ask)
	var v6, v4 Result
	select {
	case v6 = <-answers6:
		v4 = awaitOther(v6, answers4)
	case v4 = <-answers4:
		v6 = awaitOther(v4, answers6)
	}
	res := joinFamilies(v6, v4)
	res.Queries = append(v6.Queries, v4.Queries...)
	return res
}

// LookupRecords asks for the records of name of a type other than A and AAAA.
func LookupRecords(ctx context.Context, name string, qtype uint16, ask AskFunc) Result {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return <-start(ctx, name, qtype, ask)
}

// start asks for one type. The channel has room for the one answer.
func start(ctx context.Context, name string, qtype uint16, ask AskFunc) chan Result {
	answers := make(chan Result, 1)
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(UDPSize, false)
	go func() {
		var res Result
		defer func() { answers <- res }()
		defer flow.CatchIn(ctx, &res.Err)
		reply, queries, err := ask(ctx, q)
		res.Err = err
		if err == nil {
			res = read(reply, q.Question[0])
		}
		res.Queries = queries
	}()
	return answers
}

// awaitOther waits for the answer of the second family. If the first has
// addresses, it waits at most the Resolution Delay of RFC 8305 section 3.
func awaitOther(first Result, second <-chan Result) Result {
	if len(first.Addrs) == 0 {
		return <-second
	}
	t := time.NewTimer(OtherFamily)
	defer t.Stop()
	select {
	case res := <-second:
		return res
	case <-t.C:
		return Result{Err: errNoAnswerYet}
	}
}

// joinFamilies makes one result of those of both families.
func joinFamilies(v6, v4 Result) Result {
	switch {
	case v4.Err != nil && v6.Err != nil:
		return Result{Err: v4.Err}
	case v4.Err != nil && !v6.Found() && !v6.NX: // a name that does not exist has no type (RFC 8020)
		return v4
	case v6.Err != nil && !v4.Found() && !v4.NX:
		return v6
	case v4.Err != nil:
		v6.TTL = min(v6.TTL, HalfTTL)
		return v6
	case v6.Err != nil:
		v4.TTL = min(v4.TTL, HalfTTL)
		return v4
	}
	out := Result{
		Addrs: append(v6.Addrs, v4.Addrs...),
		Alias: v4.Alias,
		Chain: v4.Chain,
		NX:    v4.NX && v6.NX,
		TTL:   min(v4.TTL, v6.TTL),
	}
	if out.Alias == "" {
		out.Alias = v6.Alias
	}
	if out.NX {
		out.Zone = v4.Zone
	}
	for _, name := range v6.Chain {
		if !slices.Contains(out.Chain, name) { // a server may give each family a chain of its own
			out.Chain = append(out.Chain, name)
		}
	}
	if len(out.Addrs) > 0 {
		// A family without addresses must not shorten the TTL of the other.
		if len(v6.Addrs) == 0 {
			out.TTL = v4.TTL
		} else if len(v4.Addrs) == 0 {
			out.TTL = v6.TTL
		}
	}
	sortAddrs(out.Addrs)
	return out
}

// sortAddrs puts IPv6 addresses first (RFC 8305 section 4). Within a family it
// keeps the order of the server.
func sortAddrs(a []netip.Addr) {
	slices.SortStableFunc(a, func(x, y netip.Addr) int {
		switch {
		case x.Is6() == y.Is6():
			return 0
		case x.Is6():
			return -1
		}
		return 1
	})
}

// read takes from a reply the addresses or records for the question. It follows the CNAMEs of
// the question's name (RFC 1034 section 3.6.2) and ignores everything else.
func read(m *dns.Msg, q dns.Question) Result {
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	default:
		return Result{Err: fmt.Errorf("the resolver answered %s", dns.RcodeToString[m.Rcode])}
	}
	out := Result{TTL: time.Hour}
	name := strings.ToLower(q.Name)
	for range maxChain {
		next := out.addRecords(m.Answer, name, q.Qtype)
		if out.hasData() || next == "" {
			break
		}
		name = next
		out.Alias = strings.TrimSuffix(name, ".")
		if out.Alias != "" && !slices.Contains(out.Chain, out.Alias) {
			out.Chain = append(out.Chain, out.Alias)
		}
	}
	if out.hasData() {
		out.Alias = ""
	} else if m.Rcode == dns.RcodeNameError { // the end of the chain does not exist (RFC 6604)
		out.Alias = ""
		out.NX = true
	}
	if !out.Found() {
		out.TTL = NegativeTTL
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				out.TTL = time.Duration(min(soa.Minttl, soa.Hdr.Ttl)) * time.Second // RFC 2308 section 5
				if out.NX && len(out.Chain) == 0 && dns.IsSubDomain(soa.Hdr.Name, name) {
					out.Zone = strings.ToLower(strings.TrimSuffix(soa.Hdr.Name, "."))
				}
			}
		}
	}
	return out
}

// addRecords adds the addresses or records of name, which is lower case, and lowers the
// TTL to that of its records. It returns the target of its CNAME, or "". A CNAME that was
// asked for is not followed, but its target is a name of the chain.
func (r *Result) addRecords(answer []dns.RR, name string, qtype uint16) (next string) {
	for _, rr := range answer {
		h := rr.Header()
		if strings.ToLower(h.Name) != name {
			continue
		}
		switch rr := rr.(type) {
		case *dns.A:
			a, ok := netip.AddrFromSlice(rr.A)
			if !ok || qtype != dns.TypeA {
				continue
			}
			r.Addrs = append(r.Addrs, a.Unmap())
		case *dns.AAAA:
			a, ok := netip.AddrFromSlice(rr.AAAA)
			if !ok || qtype != dns.TypeAAAA {
				continue
			}
			r.Addrs = append(r.Addrs, a.Unmap())
		case *dns.CNAME:
			if qtype == dns.TypeCNAME {
				r.Records = append(r.Records, rr)
				r.Chain = append(r.Chain, strings.ToLower(strings.TrimSuffix(rr.Target, ".")))
				break
			}
			next = strings.ToLower(rr.Target)
			if !isAddressType(qtype) {
				r.Links = append(r.Links, rr)
			}
		default:
			if h.Rrtype != qtype || h.Class != dns.ClassINET {
				continue
			}
			r.Records = append(r.Records, rr)
		}
		r.TTL = min(r.TTL, time.Duration(h.Ttl)*time.Second)
	}
	return next
}
