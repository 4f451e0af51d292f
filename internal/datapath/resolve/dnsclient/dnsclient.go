// Package dnsclient asks DNS servers for the addresses of a name. It asks for
// both families at once, over UDP and if need be over TCP (RFC 7766), without
// EDNS if a server does not understand it, and it asks the next server if one
// fails. It does not know sources, zones or a cache: package resolve chooses the
// servers.
package dnsclient

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/flow"
)

const (
	// TCPAfter is how long UDP may be silent before the same question is also
	// sent over TCP: some resolvers, and some paths, support TCP only.
	TCPAfter = 300 * time.Millisecond
	// ServerTimeout bounds one server, so that time is left for the next, unless
	// Client.Timeout is set.
	ServerTimeout = 2 * time.Second
	// UDPSize is the largest reply over UDP that we accept (DNS flag day 2020).
	UDPSize = 1232
	// maxRecords bounds the records of a reply that are parsed. A reply of 64 KiB can
	// have 4,000, which take a MiB.
	maxRecords = 256
)

// DialFunc opens a connection ("udp" or "tcp") to one address.
type DialFunc func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)

// Client asks servers, and remembers which of them failed. The zero value is
// ready for use. Its methods may be called at the same time.
type Client struct {
	// Timeout bounds one server, so that time is left for the next. Zero means
	// ServerTimeout.
	Timeout time.Duration

	health health
}

// Query is one question to one server, and its outcome.
type Query struct {
	Server  string
	Type    string // "A" or "AAAA"
	Took    time.Duration
	Rcode   string // of the reply, such as NOERROR
	Records int    // in the reply
	Err     error  // there is no usable reply
}

// String says what the server answered, and how long it took.
func (q Query) String() string {
	took := q.Took.Round(10 * time.Microsecond)
	if q.Err != nil {
		return fmt.Sprintf("%s: failed after %v: %v", q.Type, took, q.Err)
	}
	return fmt.Sprintf("%s: %s, %d records, in %v", q.Type, q.Rcode, q.Records, took)
}

// ServerAddr reads the address of a resolver as a tailnet gives it: "10.12.0.2",
// "10.12.0.2:5353", or the URL of a peer that answers over HTTP. The default port is 53.
func ServerAddr(s string) (netip.AddrPort, error) {
	if isPeer(s) {
		return peerAddr(s)
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("invalid resolver %q: only plain DNS at an IP address, and peers of the tailnet, are supported", s)
	}
	return ap, nil
}

// Ask asks servers in turn until one gives a usable reply. It asks those last
// that failed a moment ago. queries lists the servers that it has asked.
func (c *Client) Ask(ctx context.Context, dial DialFunc, servers []string, q *dns.Msg) (reply *dns.Msg, queries []Query, err error) {
	var errs []error
	for _, s := range c.health.order(servers) {
		start := time.Now()
		reply, err := c.AskOne(ctx, dial, s, q)
		asked := Query{
			Server: s,
			Type:   dns.TypeToString[q.Question[0].Qtype],
			Took:   time.Since(start),
			Err:    err,
		}
		if err == nil {
			asked.Rcode = dns.RcodeToString[reply.Rcode]
			asked.Records = len(reply.Answer)
			return reply, append(queries, asked), nil
		}
		queries = append(queries, asked)
		errs = append(errs, fmt.Errorf("resolver %s: %w", s, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, queries, errors.Join(errs...)
}

// AskOne asks one server, and records the outcome in its health.
func (c *Client) AskOne(ctx context.Context, dial DialFunc, server string, q *dns.Msg) (reply *dns.Msg, err error) {
	defer flow.CatchIn(ctx, &err)
	addr, err := ServerAddr(server)
	if err != nil {
		return nil, err
	}
	ctxServer, cancel := context.WithTimeout(ctx, cmp.Or(c.Timeout, ServerTimeout))
	defer cancel()
	if isPeer(server) {
		reply, err = exchangePeer(ctxServer, dial, server, addr, q)
	} else {
		reply, err = c.exchange(ctxServer, dial, addr, q)
	}
	unusable := err == nil && reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError
	if unusable {
		err = fmt.Errorf("answered %s", dns.RcodeToString[reply.Rcode])
	}
	// A canceled query says nothing about the server. It may end with a timeout,
	// because canceling moves the deadline of its connection. Nor does an error about a
	// type of records: some servers refuse those that they do not know.
	canceled := errors.Is(err, context.Canceled) || errors.Is(ctx.Err(), context.Canceled)
	if err == nil || !canceled && !(unusable && !isAddressType(q.Question[0].Qtype)) {
		c.health.record(addr.String(), err)
	}
	return reply, err
}

func isAddressType(qtype uint16) bool { return qtype == dns.TypeA || qtype == dns.TypeAAAA }

// exchange asks one server. If the server does not understand EDNS, it asks once
// more without it (RFC 6891 section 7), and does so at once the next time.
func (c *Client) exchange(ctx context.Context, dial DialFunc, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	if q.IsEdns0() == nil {
		return exchangeBoth(ctx, dial, server, q)
	}
	knows := !c.health.lacksEDNS(server.String())
	if knows {
		reply, err := exchangeBoth(ctx, dial, server, q)
		if err == nil && !rejectsEDNS(reply.Rcode) || err != nil && !errors.Is(err, errGarbled) {
			return reply, err
		}
	}
	plain := q.Copy()
	plain.Extra = nil
	reply, err := exchangeBoth(ctx, dial, server, plain)
	if knows && err == nil && !rejectsEDNS(reply.Rcode) {
		c.health.noteNoEDNS(server.String())
	}
	return reply, err
}

// errGarbled means that a reply cannot be read. The OPT record may be what is wrong with
// it: some servers send back that of the query, or a part of it.
var errGarbled = errors.New("the reply is malformed")

// rejectsEDNS reports whether a server that does not understand EDNS answers so: it
// does not know the OPT record, or not its version.
func rejectsEDNS(rcode int) bool {
	return rcode == dns.RcodeFormatError || rcode == dns.RcodeNotImplemented || rcode == dns.RcodeBadVers
}

// exchangeBoth asks over UDP. It also asks over TCP as soon as UDP fails, gives a
// truncated reply, or is silent for TCPAfter. It returns the first good reply.
func exchangeBoth(ctx context.Context, dial DialFunc, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the other attempt
	type attempt struct {
		reply *dns.Msg
		err   error
		tcp   bool
	}
	out := make(chan attempt, 2) // both may answer after this function has returned
	try := func(network string) {
		a := attempt{tcp: network == "tcp"}
		defer func() { out <- a }()
		defer flow.CatchIn(ctx, &a.err)
		a.reply, a.err = exchangeOver(ctx, dial, network, server, q)
	}
	go try("udp")
	timer := time.NewTimer(TCPAfter)
	defer timer.Stop()
	tcpStarted := false
	waiting := 1
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
		case a := <-out:
			waiting--
			if a.err == nil && (a.tcp || !a.reply.Truncated || rejectsEDNS(a.reply.Rcode)) {
				return a.reply, nil
			}
			if a.err != nil {
				errs = append(errs, a.err)
			}
			if a.tcp && errors.Is(a.err, errGarbled) {
				return nil, errors.Join(errs...) // the server answers, if UDP does not
			}
			if !a.tcp {
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
	conn := &dns.Conn{Conn: c, UDPSize: UDPSize}
	reply, err := sendAndReceive(conn, network, q.Copy()) // the other network uses q, and Pack changes it
	if err != nil {
		return nil, fmt.Errorf("%s: %w", network, err)
	}
	if !isReplyTo(reply, q.Question[0]) {
		return nil, fmt.Errorf("%s: the reply is for another question", network)
	}
	return reply, nil
}

// sendAndReceive sends q and returns the reply with its ID. Over UDP, other replies
// are ignored: they may be late answers to earlier queries.
func sendAndReceive(c *dns.Conn, network string, q *dns.Msg) (*dns.Msg, error) {
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(wire); err != nil {
		return nil, err
	}
	for {
		wire, err := c.ReadMsgHeader(nil)
		if err != nil {
			return nil, err
		}
		reply := new(dns.Msg)
		err = reply.Unpack(shorten(wire)) // it reads the header first
		switch {
		case reply.Id == q.Id && err != nil && reply.Response && rejectsEDNS(reply.Rcode):
			// The server may have copied what it does not understand.
			return &dns.Msg{MsgHdr: reply.MsgHdr}, nil
		case reply.Id == q.Id && err != nil:
			return nil, fmt.Errorf("%w: %w", errGarbled, err)
		case reply.Id == q.Id:
			return reply, nil
		case network != "udp":
			return nil, dns.ErrId
		}
	}
}

// shorten makes wire, a message of at least a header, one of at most maxRecords
// answers. If it has more, the message loses its other sections, too: they come
// after the answers (RFC 1035 section 4.1.1).
func shorten(wire []byte) []byte {
	counts := wire[4:12] // of questions, answers, authority and additional records
	if binary.BigEndian.Uint16(counts[2:]) > maxRecords {
		binary.BigEndian.PutUint16(counts[2:], maxRecords)
		binary.BigEndian.PutUint32(counts[4:], 0)
	}
	return wire
}

// isReplyTo reports whether reply is for question. A server that could not read the
// query may leave the question out of its error, or change it.
func isReplyTo(reply *dns.Msg, question dns.Question) bool {
	switch {
	case !reply.Response:
		return false
	case rejectsEDNS(reply.Rcode):
		return true
	case len(reply.Question) == 0:
		return reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError
	}
	return len(reply.Question) == 1 &&
		strings.EqualFold(reply.Question[0].Name, question.Name) && reply.Question[0].Qtype == question.Qtype
}
