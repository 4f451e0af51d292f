package resolve

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// answer returns a server's reply to a query over network. Nil means no reply.
type answer func(network string, q *dns.Msg) *dns.Msg

// server is a DNS server on loopback, over UDP and TCP on one port.
type server struct {
	addr netip.AddrPort

	mu   sync.Mutex
	seen []string // such as "udp A api.example.com", one for each query
}

// newServer starts a server that stops at the end of the test. networks says which
// of "udp" and "tcp" it supports; the default is both.
func newServer(t *testing.T, answer answer, networks ...string) *server {
	t.Helper()
	var ln net.Listener
	var pc net.PacketConn
	for range 20 { // until a port is free for both
		var err error
		ln, err = net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err = net.ListenPacket("udp", ln.Addr().String())
		if err == nil {
			break
		}
		ln.Close()
	}
	if pc == nil {
		t.Fatal("no port is free for both UDP and TCP")
	}
	s := &server{addr: ln.Addr().(*net.TCPAddr).AddrPort()}
	for network, srv := range map[string]*dns.Server{"udp": {PacketConn: pc}, "tcp": {Listener: ln}} {
		if len(networks) > 0 && networks[0] != network {
			if network == "udp" {
				pc.Close()
			} else {
				ln.Close()
			}
			continue
		}
		srv.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			s.mu.Lock()
			s.seen = append(s.seen, fmt.Sprintf("%s %s %s", network, dns.TypeToString[q.Question[0].Qtype], strings.TrimSuffix(q.Question[0].Name, ".")))
			s.mu.Unlock()
			if m := answer(network, q); m != nil {
				w.WriteMsg(m)
			}
		})
		started := make(chan struct{})
		ended := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(ended); srv.ActivateAndServe() }() // ends with Shutdown
		<-started
		t.Cleanup(func() { srv.Shutdown(); <-ended })
	}
	return s
}

// queries returns the queries for names that end in suffix.
func (s *server) queries(suffix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, q := range s.seen {
		if strings.HasSuffix(q, suffix) {
			list = append(list, q)
		}
	}
	return list
}

// records answers from a list of records in zone file form. Names without records
// do not exist. It follows CNAMEs, as a recursive resolver does.
func records(list ...string) answer {
	var rrs []dns.RR
	for _, s := range list {
		rr, err := dns.NewRR(s)
		if err != nil {
			panic(err)
		}
		rrs = append(rrs, rr)
	}
	return func(_ string, q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Rcode = dns.RcodeNameError
		name := strings.ToLower(q.Question[0].Name)
		for again := true; again; {
			again = false
			for _, rr := range rrs {
				h := rr.Header()
				if strings.ToLower(h.Name) != name {
					continue
				}
				m.Rcode = dns.RcodeSuccess
				if c, ok := rr.(*dns.CNAME); ok && len(m.Answer) < 20 {
					m.Answer = append(m.Answer, rr)
					name = strings.ToLower(c.Target)
					again = true
					if !strings.HasSuffix(name, ".known.") {
						m.Rcode = dns.RcodeNameError // until a record of it is found
					}
					break
				}
				if h.Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		return m
	}
}

// rcode answers every query with one code.
func rcode(code int) answer {
	return func(_ string, q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, code) }
}

func silent(string, *dns.Msg) *dns.Msg { return nil }

// base is the address of the pod's own resolver in tests.
const base = "192.0.2.1"

// newResolver returns a resolver whose dialers lead to servers. The keys of servers
// are addresses that the tests choose. The pod's resolver is at base, unless o
// names another resolv.conf.
func newResolver(t *testing.T, o Options, servers map[string]*server) *Resolver {
	t.Helper()
	if o.ResolvConf == "" {
		o.ResolvConf = file(t, "nameserver "+base+"\n")
	}
	if o.HostsFile == "" {
		o.HostsFile = file(t, "")
	}
	dial := func(tunnel bool) DialFunc {
		return func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			ip := addr.Addr()
			s := servers[ip.String()]
			if s == nil || addr.Port() != 53 || netip.MustParsePrefix("192.0.2.0/24").Contains(ip) == tunnel {
				t.Errorf("dialled %s %s through the tunnel: %v, want a known server, through the right network", network, addr, tunnel)
				return nil, net.ErrClosed
			}
			return dialHost(ctx, network, s.addr)
		}
	}
	o.DialTailnet = dial(true)
	r := New(o)
	r.dialBase = dial(false)
	return r
}

// up returns a tailnet that is up and has the configuration d.
func up(d TailnetDNS) func() (TailnetDNS, bool) {
	return func() (TailnetDNS, bool) { return d, true }
}

// magic returns a QueryMagic that answers with a.
func magic(a answer) func(context.Context, []byte) ([]byte, error) {
	return func(_ context.Context, wire []byte) ([]byte, error) {
		q := new(dns.Msg)
		if err := q.Unpack(wire); err != nil {
			return nil, err
		}
		return a("magic", q).Pack()
	}
}

func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}
