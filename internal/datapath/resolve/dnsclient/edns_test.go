package dnsclient

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// dnsName is the name that the tests of this file ask for.
const dnsName = "api.corp.example."

// rawServer is a DNS server on loopback over UDP and TCP that answers each query with
// the bytes that answer returns, or not at all.
type rawServer struct {
	addr    netip.AddrPort
	queries atomic.Int64 // all of them
	edns    atomic.Int64 // those with an OPT record
}

func (s *rawServer) dial(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr.String())
}

// serve starts a rawServer. networks are those that it answers over.
func serve(t *testing.T, networks string, answer func(q *dns.Msg) []byte) *rawServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	s := &rawServer{addr: ln.Addr().(*net.TCPAddr).AddrPort()}
	reply := func(network string, wire []byte) []byte {
		q := new(dns.Msg)
		if err := q.Unpack(wire); err != nil {
			t.Errorf("invalid query: %v", err)
			return nil
		}
		if !strings.Contains(networks, network) {
			return nil
		}
		s.queries.Add(1)
		if q.IsEdns0() != nil {
			s.edns.Add(1)
		}
		return answer(q)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				conn := dns.Conn{Conn: c}
				wire, err := conn.ReadMsgHeader(nil)
				if err != nil {
					return
				}
				if b := reply("tcp", wire); b != nil {
					conn.Write(b)
				}
			}()
		}
	}()
	pc, err := net.ListenPacket("udp", s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if out := reply("udp", b[:n]); out != nil {
				pc.WriteTo(out, from)
			}
		}
	}()
	return s
}

// answerTo returns an address of name.
func answerTo(name string) dns.RR {
	return &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9}, A: net.IPv4(10, 9, 8, 7)}
}

// TestServersWithoutEDNS checks servers that do not understand EDNS, in each form in
// which they say so: the query is sent again without it, and the next one is sent without
// it at once.
func TestServersWithoutEDNS(t *testing.T) {
	pack := func(m *dns.Msg) []byte {
		wire, err := m.Pack()
		if err != nil {
			panic(err)
		}
		return wire
	}
	header := func(q *dns.Msg, rcode int) *dns.Msg {
		return &dns.Msg{MsgHdr: dns.MsgHdr{Id: q.Id, Response: true, Rcode: rcode}}
	}
	for name, complain := range map[string]func(q *dns.Msg) []byte{
		"formerr":                  func(q *dns.Msg) []byte { return pack(new(dns.Msg).SetRcode(q, dns.RcodeFormatError)) },
		"notimp":                   func(q *dns.Msg) []byte { return pack(new(dns.Msg).SetRcode(q, dns.RcodeNotImplemented)) },
		"formerr_without_question": func(q *dns.Msg) []byte { return pack(header(q, dns.RcodeFormatError)) },
		"notimp_without_question":  func(q *dns.Msg) []byte { return pack(header(q, dns.RcodeNotImplemented)) },
		"only_a_header_and_counts": func(q *dns.Msg) []byte {
			b := pack(new(dns.Msg).SetRcode(q, dns.RcodeFormatError))[:12]
			b[11] = 1
			return b
		},
		"another_question": func(q *dns.Msg) []byte {
			m := header(q, dns.RcodeFormatError)
			m.SetQuestion(".", dns.TypeNone)
			m.Id = q.Id
			m.Response = true
			m.Rcode = dns.RcodeFormatError
			return pack(m)
		},
		"the_query_with_another_flag": func(q *dns.Msg) []byte {
			m := q.Copy()
			m.Response = true
			m.Rcode = dns.RcodeFormatError
			return pack(m)
		},
		"half_an_opt_record": func(q *dns.Msg) []byte {
			m := q.Copy()
			m.Response = true
			m.Rcode = dns.RcodeFormatError
			b := pack(m)
			return b[:len(b)-4]
		},
		"truncated": func(q *dns.Msg) []byte {
			m := header(q, dns.RcodeFormatError)
			m.Truncated = true
			return pack(m)
		},
		"an_answer_with_a_broken_opt": func(q *dns.Msg) []byte {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{answerTo(dnsName)}
			m.SetEdns0(UDPSize, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1, 2}}}
			b := pack(m)
			b[len(b)-3] = 200 // the length of the option
			return b
		},
		"an_answer_with_half_an_opt": func(q *dns.Msg) []byte {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{answerTo(dnsName)}
			m.SetEdns0(UDPSize, false)
			b := pack(m)
			return b[:len(b)-4]
		},
		"badvers": func(q *dns.Msg) []byte {
			m := new(dns.Msg).SetReply(q)
			m.SetEdns0(512, false)
			m.Rcode = dns.RcodeBadVers
			return pack(m)
		},
	} {
		for _, networks := range []string{"udp tcp", "udp", "tcp"} {
			t.Run(name+"/"+networks, func(t *testing.T) {
				s := serve(t, networks, func(q *dns.Msg) []byte {
					if q.IsEdns0() != nil {
						return complain(q)
					}
					m := new(dns.Msg).SetReply(q)
					m.Answer = []dns.RR{answerTo(dnsName)}
					return pack(m)
				})
				c := Client{Timeout: 30 * time.Second}
				for n := range 2 {
					q := new(dns.Msg).SetQuestion(dnsName, dns.TypeA)
					q.SetEdns0(UDPSize, false)
					reply, err := c.AskOne(t.Context(), s.dial, s.addr.String(), q)
					if err != nil || len(reply.Answer) != 1 {
						t.Fatalf("query %d: %v, %v; want one answer", n, reply, err)
					}
					if q.IsEdns0() == nil {
						t.Error("the caller's query has lost its OPT record")
					}
					if n == 0 {
						s.edns.Store(0)
					}
				}
				if n := s.edns.Load(); n != 0 {
					t.Errorf("the second query was sent %d times with EDNS, want never", n)
				}
			})
		}
	}
}

// TestErrorsWithoutQuestion checks that an error without a question is the server's
// answer, and is not sent again without EDNS, and that an answer without one is none.
func TestErrorsWithoutQuestion(t *testing.T) {
	for name, c := range map[string]struct {
		rcode   int
		another uint16 // added to the ID
		want    string
	}{
		"servfail":        {dns.RcodeServerFailure, 0, "answered SERVFAIL"},
		"refused":         {dns.RcodeRefused, 0, "answered REFUSED"},
		"success":         {dns.RcodeSuccess, 0, "another question"},
		"nxdomain":        {dns.RcodeNameError, 0, "another question"},
		"formerr_by_luck": {dns.RcodeFormatError, 1, "i/o timeout"}, // an answer to another query is ignored
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, "udp", func(q *dns.Msg) []byte {
				b, err := (&dns.Msg{MsgHdr: dns.MsgHdr{Id: q.Id + c.another, Response: true, Rcode: c.rcode}}).Pack()
				if err != nil {
					t.Error(err)
				}
				return b
			})
			q := new(dns.Msg).SetQuestion(dnsName, dns.TypeA)
			q.SetEdns0(UDPSize, false)
			client := Client{Timeout: time.Second}
			reply, err := client.AskOne(t.Context(), s.dial, s.addr.String(), q)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("AskOne = %v, %v; want an error with %q", reply, err, c.want)
			}
			if s.queries.Load() != s.edns.Load() {
				t.Error("the query was sent again without EDNS")
			}
		})
	}
}

// TestGarbledReplies checks that a server whose replies cannot be read without EDNS
// either has failed, and is asked once more and no oftener.
func TestGarbledReplies(t *testing.T) {
	s := serve(t, "udp tcp", func(q *dns.Msg) []byte {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{answerTo(dnsName)}
		b, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return b[:len(b)-2]
	})
	q := new(dns.Msg).SetQuestion(dnsName, dns.TypeA)
	q.SetEdns0(UDPSize, false)
	client := Client{Timeout: 30 * time.Second}
	reply, err := client.AskOne(t.Context(), s.dial, s.addr.String(), q)
	if err == nil || !strings.Contains(err.Error(), "malformed") || s.queries.Load() != 4 {
		t.Errorf("AskOne = %v, %v after %d queries; want an error that says malformed, after 4", reply, err, s.queries.Load())
	}
	if client.health.lacksEDNS(s.addr.String()) {
		t.Error("the server is asked without EDNS from now on, want with it: that was not what is wrong")
	}
}

// TestHealthOfOtherTypes checks that an error about a type of records does not make a
// server come last, and that silence does.
func TestHealthOfOtherTypes(t *testing.T) {
	for _, c := range []struct {
		name   string
		qtype  uint16
		silent bool
		failed bool
	}{
		{"refuses_https", dns.TypeHTTPS, false, false},
		{"refuses_aaaa", dns.TypeAAAA, false, true},
		{"silent_about_https", dns.TypeHTTPS, true, true},
		{"silent_about_soa", dns.TypeSOA, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, "udp", func(q *dns.Msg) []byte {
				if c.silent {
					return nil
				}
				b, err := new(dns.Msg).SetRcode(q, dns.RcodeRefused).Pack()
				if err != nil {
					t.Error(err)
				}
				return b
			})
			client := Client{Timeout: time.Second}
			if _, err := client.AskOne(t.Context(), s.dial, s.addr.String(), new(dns.Msg).SetQuestion(dnsName, c.qtype)); err == nil {
				t.Fatal("AskOne = nil, want an error")
			}
			if failed := len(client.Health()) == 1 && client.Health()[0].Failed != nil; failed != c.failed {
				t.Errorf("the health is %v, want a failure: %v", client.Health(), c.failed)
			}
		})
	}
}

// TestForgetsNoEDNS checks that a server may learn EDNS.
func TestForgetsNoEDNS(t *testing.T) {
	var h health
	h.noteNoEDNS("10.9.9.1:53")
	if !h.lacksEDNS("10.9.9.1:53") || h.lacksEDNS("10.9.9.2:53") {
		t.Error("want the first server alone to lack EDNS")
	}
	h.noEDNS["10.9.9.1:53"] = time.Now().Add(-2 * plainFor)
	if h.lacksEDNS("10.9.9.1:53") {
		t.Error("the server lacks EDNS for ever")
	}
	h.noteNoEDNS("10.9.9.2:53")
	if len(h.noEDNS) != 1 {
		t.Errorf("%d servers are kept, want 1", len(h.noEDNS))
	}
}
