// Package dnsserver answers the cluster's DNS for the zones that Pando serves:
// with the fleet's own address, where clients then find the transparent fronts,
// or with the real ones. Everything else is refused: it is no resolver for
// others. It does not look names up itself.
package dnsserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/flow"
)

// Zone is a suffix that is answered for.
type Zone struct {
	Suffix string // lower case, no trailing dot
	// Fleet answers with the fleet's addresses for every name that exists, or
	// whose existence can't be told at the moment; else the real ones are given.
	Fleet bool
}

// Server answers queries. Its fields must not change once it serves.
type Server struct {
	Zones []Zone
	// Addrs returns the addresses of the fleet, without waiting for anything.
	Addrs func() ([]netip.Addr, error)
	// Lookup resolves a name of a zone, in lower case without a trailing dot: its
	// addresses and how long they are good. The error is a *flow.Error, of class
	// NotFound when there is no such name, and with the cause flow.ErrNoAddress when
	// there is, but no address.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, time.Duration, error)
	// Denied reports whether the policy lets nobody reach the name: it is never
	// looked up then.
	Denied func(name string) bool
	// TTL is how long answers may be kept at most. Zero means DefaultTTL.
	TTL time.Duration
	// Answered is told of each answer's code, as DNS spells it, such as NXDOMAIN.
	Answered func(rcode string)
	// Dropped is told of each query that got no answer, because too many wait for
	// theirs.
	Dropped func()
	// Enter lets a client in who comes over TCP, or says why not; each that came in
	// Leaves. Nil lets everybody in.
	Enter func(client netip.Addr) error
	Leave func(client netip.Addr)
	Log   *slog.Logger

	slots chan struct{}
}

// DefaultTTL is short: a fleet or a policy that changes is to be noticed.
const DefaultTTL = 5 * time.Second

const (
	headerSize = 12 // bytes of a message's header

	most    = 1024            // queries at a time; more are dropped, and asked again
	patient = 4 * time.Second // for one answer: resolvers ask again after 5 s
	// fleetPatience is how long it is tried to tell whether a name exists. CoreDNS
	// waits 2 s for an answer, and the fleet says better than it what is wrong.
	fleetPatience = 1500 * time.Millisecond
)

// Serve answers on each pair of sockets, in order, until ctx ends. It closes them.
func (s *Server) Serve(ctx context.Context, packets []net.PacketConn, listeners []net.Listener) error {
	s.slots = make(chan struct{}, most)
	var servers []*dns.Server
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.serve(ctx, w, q) })
	for _, pc := range packets {
		servers = append(servers, &dns.Server{PacketConn: pc, UDPSize: dns.DefaultMsgSize})
	}
	for _, ln := range listeners {
		servers = append(servers, &dns.Server{Listener: &listener{Listener: ln, ctx: ctx, server: s}})
	}
	errs := make(chan error, len(servers))
	var up, down sync.WaitGroup
	for _, srv := range servers {
		up.Add(1)
		started := sync.OnceFunc(up.Done)
		srv.NotifyStartedFunc, srv.Handler = started, handler
		srv.MsgAcceptFunc, srv.MsgInvalidFunc = s.accept, s.invalid
		down.Go(func() {
			errs <- srv.ActivateAndServe()
			started()
		})
	}
	up.Wait()
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs: // a socket that broke
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, srv := range servers {
		srv.ShutdownContext(end)
	}
	down.Wait()
	return err
}

func (s *Server) answered(rcode string) {
	if s.Answered != nil {
		s.Answered(rcode)
	}
}

// accept and invalid count what the library answers by itself.
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

func (s *Server) invalid(m []byte, _ error) {
	if len(m) >= headerSize { // less is not answered
		s.answered("FORMERR")
	}
}

func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		if s.Dropped != nil {
			s.Dropped()
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	m := s.Answer(ctx, q)
	size := dns.MaxMsgSize
	if w.LocalAddr().Network() == "udp" {
		size = dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = int(max(o.UDPSize(), dns.MinMsgSize))
		}
	}
	m.Truncate(size)
	rcode := dns.RcodeToString[m.Rcode]
	if m.Rcode == dns.RcodeBadVers { // which the table calls by its other name, of TSIG
		rcode = "BADVERS"
	}
	s.answered(rcode)
	if err := w.WriteMsg(m); err != nil {
		s.Log.Debug("dns answer not sent", "client", w.RemoteAddr().String(), "err", err)
	}
}

// Answer answers one query.
func (s *Server) Answer(ctx context.Context, q *dns.Msg) *dns.Msg {
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
	case len(q.Question) != 1:
		return fail(m, dns.RcodeFormatError, 0, "")
	}
	question := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	zone, ok := s.zone(name)
	if !ok || question.Qclass != dns.ClassINET {
		return fail(m, dns.RcodeRefused, dns.ExtendedErrorCodeNotAuthoritative, "this gateway does not serve the zone")
	}
	m.Authoritative = true
	if name == zone.Suffix && question.Qtype == dns.TypeSOA {
		m.Answer = []dns.RR{s.soa(zone)}
		return m
	}
	if s.Denied != nil && s.Denied(name) {
		return s.negative(fail(m, dns.RcodeNameError, dns.ExtendedErrorCodeProhibited, "the policy denies this name to everybody"), zone)
	}
	if zone.Fleet {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, fleetPatience)
		defer cancel()
	}
	addrs, ttl, err := s.Lookup(ctx, name)
	switch class := flow.ClassOf(err); {
	case class == flow.NotFound && name != zone.Suffix && !errors.Is(err, flow.ErrNoAddress): // a zone itself exists
		return s.negative(fail(m, dns.RcodeNameError, 0, ""), zone)
	case class == flow.NotFound:
	case err != nil && !zone.Fleet:
		return fail(m, dns.RcodeServerFailure, dns.ExtendedErrorCodeNoReachableAuthority, flow.HintOf(err))
	case zone.Fleet: // also when it can't be told: the fleet says what is wrong better than DNS can
		ttl = s.ttl()
		if addrs, err = s.Addrs(); err != nil {
			return fail(m, dns.RcodeServerFailure, dns.ExtendedErrorCodeNotReady, "the fleet's own address is not known yet")
		}
	}
	h := dns.RR_Header{Name: question.Name, Class: dns.ClassINET, Ttl: seconds(min(ttl, s.ttl()))}
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case question.Qtype == dns.TypeA && a.Is4():
			h.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		case question.Qtype == dns.TypeAAAA && a.Is6():
			h.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	}
	if len(m.Answer) == 0 {
		return s.negative(m, zone) // the name exists, without this type
	}
	return m
}

// zone finds the most specific zone of name.
func (s *Server) zone(name string) (best Zone, ok bool) {
	for _, z := range s.Zones {
		if dns.IsSubDomain(dns.Fqdn(z.Suffix), dns.Fqdn(name)) && (!ok || len(z.Suffix) > len(best.Suffix)) {
			best, ok = z, true
		}
	}
	return best, ok
}

// negative says how long the answer may be kept (RFC 2308 section 3).
func (s *Server) negative(m *dns.Msg, z Zone) *dns.Msg {
	m.Ns = []dns.RR{s.soa(z)}
	return m
}

func (s *Server) soa(z Zone) dns.RR {
	ttl := seconds(s.ttl())
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: dns.Fqdn(z.Suffix), Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  dns.Fqdn("pando." + z.Suffix), Mbox: dns.Fqdn("hostmaster." + z.Suffix),
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}

func (s *Server) ttl() time.Duration {
	if s.TTL == 0 {
		return DefaultTTL
	}
	return s.TTL
}

// seconds is a TTL: a second at least, for what lasts no time is asked without end.
func seconds(d time.Duration) uint32 { return uint32(max(d, time.Second) / time.Second) }

// fail sets the code, and says why to those who understand EDNS (RFC 8914).
func fail(m *dns.Msg, rcode int, extended uint16, text string) *dns.Msg {
	m.Rcode = rcode
	if o := m.IsEdns0(); o != nil && text != "" {
		o.Option = append(o.Option, &dns.EDNS0_EDE{InfoCode: extended, ExtraText: text})
	}
	return m
}

// Listen binds addr for UDP and TCP, as lc says.
func Listen(ctx context.Context, lc net.ListenConfig, addr string) (net.PacketConn, net.Listener, error) {
	var errs []error
	for range 10 { // a port that the system chose may be taken for the other
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
