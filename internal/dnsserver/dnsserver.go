// Package dnsserver answers queries of cluster DNS for the zones that Pando serves.
// It answers with the fleet's own address, where clients find the fronts
// that need no proxy setting, or with the real addresses. It refuses all other
// queries, because it is not an open resolver. It does not look up names itself.
package dnsserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/socket"
)

// Zone is a suffix whose names are answered.
type Zone struct {
	Suffix string // lower case, no trailing dot
	// Fleet answers with the fleet's addresses for each name that exists, and for
	// each name whose lookup fails. Otherwise the real addresses are given.
	Fleet bool
}

// Server answers queries. Its fields must not change once it serves.
type Server struct {
	Zones []Zone
	// Addrs returns the addresses of the fleet. It must not block. It is required
	// if a zone has Fleet.
	Addrs func() ([]netip.Addr, error)
	// Lookup returns the addresses of a name for client and how long they are valid.
	// The name is in one of Zones, in lower case and without trailing dot. The error is a
	// *flow.Error. Its class is NotFound if the name does not exist. It wraps
	// flow.ErrNoAddress if the name exists without an address. Its class is Denied if
	// the name is an alias of one that the policy denies to every client. Required.
	Lookup func(ctx context.Context, client netip.Addr, name string) ([]netip.Addr, time.Duration, error)
	// Records returns the records of a name of another type than A and AAAA, with the
	// CNAMEs on the way, and whether the name exists. The arguments and the error are
	// those of Lookup. Required.
	Records func(ctx context.Context, client netip.Addr, name string, qtype uint16) (answer []dns.RR, exists bool, err error)
	// Begin admits a lookup for client in a zone, by its suffix, or returns why it does
	// not: a *flow.Error of class Overloaded. The query is then answered as one whose
	// lookup fails. end is called once, when the lookup has ended. Nil admits all.
	Begin func(client netip.Addr, zone string) (end func(), err error)
	// Denied reports whether the policy denies the name to every client: the name
	// then does not exist, and is not looked up. Nil means that no name is denied.
	Denied func(name string) bool
	// TTL bounds how long answers may be kept. Zero means DefaultTTL.
	TTL time.Duration
	// Answered is called for each answer, with its code as DNS spells it, such as
	// NXDOMAIN. It may be nil.
	Answered func(rcode string)
	// Panicked is called with the panic of an answer. The query then gets no answer.
	// It may be nil.
	Panicked func(error)
	// Enter admits a client over TCP, or returns why it does not. Leave is called
	// once for each client that Enter has admitted. If Enter is nil, every client is
	// admitted, and Leave is not called.
	Enter func(client netip.Addr) error
	Leave func(client netip.Addr)
	Log   *slog.Logger // required
}

// DefaultTTL is short, so that a change of the fleet or of the policy takes effect
// soon.
const DefaultTTL = 5 * time.Second

const (
	headerSize = 12 // bytes of a message's header

	answerTimeout = 4 * time.Second // for one answer: resolvers ask again after 5 s
	// fleetTimeout bounds the lookup that tells whether a name exists. CoreDNS waits
	// 2 s for an answer. An answer with the fleet's address in time is better than
	// none: the fleet then reports what is wrong.
	fleetTimeout = 1500 * time.Millisecond
)

// Serve answers queries on all sockets until ctx ends, or until a socket fails. It
// closes the sockets. The error is that of the socket.
func (s *Server) Serve(ctx context.Context, packets []net.PacketConn, listeners []net.Listener) error {
	ctx = flow.WithPanics(ctx, s.panicked)
	var servers []*dns.Server
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.serve(ctx, w, q) })
	for _, pc := range packets {
		servers = append(servers, &dns.Server{PacketConn: pc, UDPSize: dns.DefaultMsgSize})
	}
	for _, ln := range listeners {
		servers = append(servers, &dns.Server{
			Listener:       &listener{Listener: ln, ctx: ctx, server: s},
			DecorateReader: func(r dns.Reader) dns.Reader { return shortQueries{r} },
		})
	}
	errs := make(chan error, len(servers))
	var up, down sync.WaitGroup
	for _, srv := range servers {
		up.Add(1)
		started := sync.OnceFunc(up.Done)
		srv.NotifyStartedFunc = started
		srv.Handler = handler
		srv.MsgAcceptFunc = s.accept
		srv.MsgInvalidFunc = s.invalid
		down.Go(func() {
			errs <- srv.ActivateAndServe()
			started()
		})
	}
	up.Wait()
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, srv := range servers {
		srv.ShutdownContext(end)
	}
	down.Wait()
	return err
}

func (s *Server) panicked(err error) {
	if s.Panicked != nil {
		s.Panicked(err)
	}
}

func (s *Server) answered(rcode string) {
	if s.Answered != nil {
		s.Answered(rcode)
	}
}

// accept counts the answers that the library gives to the header of a query.
func (s *Server) accept(h dns.Header) dns.MsgAcceptAction {
	action := dns.DefaultMsgAcceptFunc(h)
	switch action {
	case dns.MsgReject:
		s.answered("FORMERR")
	case dns.MsgRejectNotImplemented:
		s.answered("NOTIMP")
	}
	return action
}

// invalid counts the answers that the library gives to a malformed query.
func (s *Server) invalid(m []byte, _ error) {
	if len(m) >= headerSize { // a shorter message gets no answer
		s.answered("FORMERR")
	}
}

func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) {
	defer flow.CatchTo(s.panicked)
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	m := s.Answer(ctx, socket.ClientAt(w.RemoteAddr()).Addr(), q)
	size := dns.MaxMsgSize
	if w.LocalAddr().Network() == "udp" {
		size = dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = int(max(o.UDPSize(), dns.MinMsgSize))
		}
	}
	m.Truncate(size)
	rcode := dns.RcodeToString[m.Rcode]
	if m.Rcode == dns.RcodeBadVers { // the table has only the other name of this code, BADSIG
		rcode = "BADVERS"
	}
	s.answered(rcode)
	if err := w.WriteMsg(m); err != nil {
		s.Log.Debug("dns answer not sent", "client", w.RemoteAddr().String(), "err", err)
	}
}

// Answer returns the answer to one query of client.
func (s *Server) Answer(ctx context.Context, client netip.Addr, q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(1232, o.Do())
		if o.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	switch {
	case q.Opcode != dns.OpcodeQuery:
		return fail(m, dns.RcodeNotImplemented, 0, "")
	case len(q.Question) != 1, countOPT(q) > 1: // RFC 6891 section 6.1.1
		return fail(m, dns.RcodeFormatError, 0, "")
	}
	question := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	zone, ok := s.zone(name)
	if !ok || question.Qclass != dns.ClassINET {
		return fail(m, dns.RcodeRefused, dns.ExtendedErrorCodeNotAuthoritative, "this replica does not serve the zone")
	}
	m.Authoritative = true
	denied := s.Denied != nil && (s.Denied(name) || s.Denied(hostOf(name)))
	switch {
	case name == zone.Suffix && question.Qtype == dns.TypeSOA:
		return s.answerSOA(ctx, m, client, zone, denied)
	case denied:
		return s.denied(m, zone)
	}
	switch question.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		return s.answerName(ctx, m, client, name, zone)
	case dns.TypeANY:
		m.Answer = []dns.RR{notAny(question.Name)}
		return m
	case dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILA, dns.TypeMAILB, dns.TypeTSIG, dns.TypeTKEY, dns.TypeOPT, dns.TypeNone:
		return fail(m, dns.RcodeRefused, dns.ExtendedErrorCodeNotSupported, "this replica does not answer queries of this type")
	}
	return s.answerRecords(ctx, m, client, name, zone)
}

// countOPT returns how many OPT records q has.
func countOPT(q *dns.Msg) (n int) {
	for _, rr := range q.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			n++
		}
	}
	return n
}

// hostOf returns the host to which a name of a service or of a property belongs: name
// without its first labels that begin with an underscore (RFC 8552).
func hostOf(name string) string {
	for strings.HasPrefix(name, "_") {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			break
		}
		name = rest
	}
	return name
}

// denied completes m, the answer for a name that the policy denies to everybody.
func (s *Server) denied(m *dns.Msg, zone Zone) *dns.Msg {
	return s.negative(fail(m, dns.RcodeNameError, dns.ExtendedErrorCodeProhibited, "the policy denies this name to every client"), zone)
}

// answerName completes m, the answer for a name of zone that the policy allows.
func (s *Server) answerName(ctx context.Context, m *dns.Msg, client netip.Addr, name string, zone Zone) *dns.Msg {
	if zone.Fleet {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, fleetTimeout)
		defer cancel()
	}
	addrs, ttl, err := s.lookUp(ctx, client, name, zone)
	class := flow.ClassOf(err)
	switch {
	case class == flow.Denied:
		return s.denied(m, zone)
	case class == flow.NotFound && name != zone.Suffix && !errors.Is(err, flow.ErrNoAddress): // the zone itself exists
		return s.negative(fail(m, dns.RcodeNameError, 0, ""), zone)
	case class == flow.NotFound:
		return s.negative(m, zone)
	case class == flow.Overloaded && !zone.Fleet:
		return fail(m, dns.RcodeServerFailure, dns.ExtendedErrorCodeOther, flow.HintOf(err))
	case err != nil && !zone.Fleet:
		return fail(m, dns.RcodeServerFailure, dns.ExtendedErrorCodeNoReachableAuthority, flow.HintOf(err))
	case zone.Fleet: // also if the lookup failed: the fleet reports the cause better than DNS can
		addrs, err = s.Addrs()
		if err != nil {
			return fail(m, dns.RcodeServerFailure, dns.ExtendedErrorCodeNotReady, "the fleet's own address is not known yet")
		}
		ttl = s.ttl()
	}
	addAddrs(m, addrs, seconds(min(ttl, s.ttl())))
	if len(m.Answer) == 0 {
		return s.negative(m, zone) // the name exists, without this type
	}
	return m
}

// answerRecords completes m, the answer for records other than addresses of a name of
// zone that the policy allows.
func (s *Server) answerRecords(ctx context.Context, m *dns.Msg, client netip.Addr, name string, zone Zone) *dns.Msg {
	end, err := s.begin(client, zone)
	if err != nil {
		return fail(m, dns.RcodeServerFailure, dns.ExtendedErrorCodeOther, flow.HintOf(err))
	}
	defer end()
	question := m.Question[0]
	records, exists, err := s.Records(ctx, client, name, question.Qtype)
	switch {
	case flow.ClassOf(err) == flow.Denied:
		return s.denied(m, zone)
	case err != nil:
		return fail(m, dns.RcodeServerFailure, dns.ExtendedErrorCodeNoReachableAuthority, flow.HintOf(err))
	case !exists && name != zone.Suffix: // the zone itself exists
		m.Rcode = dns.RcodeNameError
	}
	for _, rr := range records {
		if zone.Fleet {
			rr = throughFleet(rr)
		}
		h := rr.Header()
		if strings.EqualFold(h.Name, question.Name) {
			h.Name = question.Name // as the client has spelt it
		}
		h.Ttl = min(max(h.Ttl, 1), seconds(s.ttl()))
		m.Answer = append(m.Answer, rr)
	}
	if len(m.Answer) == 0 {
		return s.negative(m, zone)
	}
	return m
}

// answerSOA completes m, the answer for the SOA record of zone: that of the zone's
// resolver. If it has none, or if the zone is denied, the record is our own: clients look
// for it to find out where a zone begins.
func (s *Server) answerSOA(ctx context.Context, m *dns.Msg, client netip.Addr, zone Zone, denied bool) *dns.Msg {
	if !denied {
		ctx, cancel := context.WithTimeout(ctx, fleetTimeout)
		defer cancel()
		theirs := s.answerRecords(ctx, m.Copy(), client, zone.Suffix, zone)
		if theirs.Rcode == dns.RcodeSuccess && len(theirs.Answer) > 0 {
			return theirs
		}
	}
	m.Answer = []dns.RR{s.soa(zone)}
	return m
}

// notAny is the answer to a query for all records (RFC 8482 section 4.2).
func notAny(name string) dns.RR {
	return &dns.HINFO{
		Hdr: dns.RR_Header{
			Name:   name,
			Rrtype: dns.TypeHINFO,
			Class:  dns.ClassINET,
			Ttl:    3600,
		},
		Cpu: "RFC8482",
	}
}

// throughFleet takes out of a record of type HTTPS or SVCB what leads past the fleet: the
// address hints, to which a client would connect (RFC 9460 section 7.3), and the key for
// Encrypted Client Hello, with which a client hides the server name that the fleet reads
// (RFC 9848).
func throughFleet(rr dns.RR) dns.RR {
	var svcb *dns.SVCB
	switch rr := rr.(type) {
	case *dns.HTTPS:
		svcb = &rr.SVCB
	case *dns.SVCB:
		svcb = rr
	default:
		return rr
	}
	isOut := func(k dns.SVCBKey) bool {
		return k == dns.SVCB_IPV4HINT || k == dns.SVCB_IPV6HINT || k == dns.SVCB_ECHCONFIG
	}
	for _, v := range svcb.Value {
		if m, ok := v.(*dns.SVCBMandatory); ok {
			m.Code = slices.DeleteFunc(m.Code, isOut)
		}
	}
	svcb.Value = slices.DeleteFunc(svcb.Value, func(v dns.SVCBKeyValue) bool {
		m, ok := v.(*dns.SVCBMandatory)
		return isOut(v.Key()) || ok && len(m.Code) == 0
	})
	return rr
}

// lookUp looks name up, if Begin admits it.
func (s *Server) lookUp(ctx context.Context, client netip.Addr, name string, zone Zone) ([]netip.Addr, time.Duration, error) {
	end, err := s.begin(client, zone)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	return s.Lookup(ctx, client, name)
}

// begin is Begin.
func (s *Server) begin(client netip.Addr, zone Zone) (end func(), err error) {
	if s.Begin == nil {
		return func() {}, nil
	}
	return s.Begin(client, zone.Suffix)
}

// addAddrs adds the addresses of the type that m's question asks for.
func addAddrs(m *dns.Msg, addrs []netip.Addr, ttl uint32) {
	question := m.Question[0]
	h := dns.RR_Header{
		Name:   question.Name,
		Rrtype: question.Qtype,
		Class:  dns.ClassINET,
		Ttl:    ttl,
	}
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case question.Qtype == dns.TypeA && a.Is4():
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		case question.Qtype == dns.TypeAAAA && a.Is6():
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	}
}

// zone returns the most specific zone that contains name.
func (s *Server) zone(name string) (best Zone, ok bool) {
	for _, z := range s.Zones {
		if dns.IsSubDomain(dns.Fqdn(z.Suffix), dns.Fqdn(name)) && (!ok || len(z.Suffix) > len(best.Suffix)) {
			best = z
			ok = true
		}
	}
	return best, ok
}

// negative adds how long a negative answer may be kept (RFC 2308 section 3).
func (s *Server) negative(m *dns.Msg, z Zone) *dns.Msg {
	m.Ns = []dns.RR{s.soa(z)}
	return m
}

func (s *Server) soa(z Zone) dns.RR {
	ttl := seconds(s.ttl())
	return &dns.SOA{
		Hdr: dns.RR_Header{
			Name:   dns.Fqdn(z.Suffix),
			Rrtype: dns.TypeSOA,
			Class:  dns.ClassINET,
			Ttl:    ttl,
		},
		Ns:      dns.Fqdn("pando." + z.Suffix),
		Mbox:    dns.Fqdn("hostmaster." + z.Suffix),
		Serial:  1,
		Refresh: 3600,
		Retry:   600,
		Expire:  86400,
		Minttl:  ttl,
	}
}

func (s *Server) ttl() time.Duration {
	if s.TTL == 0 {
		return DefaultTTL
	}
	return s.TTL
}

// seconds returns a TTL of at least one second: clients ask for an answer with TTL
// 0 again and again.
func seconds(d time.Duration) uint32 { return uint32(max(d, time.Second) / time.Second) }

// fail sets the code of m. If the client understands EDNS, it adds the reason
// (RFC 8914).
func fail(m *dns.Msg, rcode int, extended uint16, text string) *dns.Msg {
	m.Rcode = rcode
	if o := m.IsEdns0(); o != nil && text != "" {
		o.Option = append(o.Option, &dns.EDNS0_EDE{InfoCode: extended, ExtraText: text})
	}
	return m
}

// Listen binds addr for UDP and TCP with the options of lc. If addr has port 0,
// both get the same port.
func Listen(ctx context.Context, lc net.ListenConfig, addr string) (net.PacketConn, net.Listener, error) {
	var errs []error
	for range 10 { // the port that the system chose for TCP may be in use for UDP
		ln, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, nil, err
		}
		pc, err := lc.ListenPacket(ctx, "udp", ln.Addr().String())
		if err == nil {
			return pc, ln, nil
		}
		ln.Close()
		errs = append(errs, err)
		if !strings.HasSuffix(addr, ":0") {
			break
		}
	}
	return nil, nil, errors.Join(errs...)
}
