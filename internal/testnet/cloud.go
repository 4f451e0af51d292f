package testnet

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/tailnet"
)

// The private site that every Cloud carries.
const (
	Zone    = "internal.cloudprovider.io"
	APIName = "api." + Zone
)

// Addresses of the private site. They exist in no kernel: only inside the
// network stack of the cloud node.
var (
	Network  = netip.MustParsePrefix("10.12.0.0/16")
	Network6 = netip.MustParsePrefix("fd12:cafe::/64")
	APIAddr  = netip.MustParseAddr("10.12.3.4")
	APIAddr6 = netip.MustParseAddr("fd12:cafe::34")
	DNSAddr  = netip.MustParseAddr("10.12.0.2")
)

// Cloud is a subnet router with a private site behind it: an API on ports 80
// and 443 of APIAddr and APIAddr6, and a DNS server on DNSAddr that alone
// knows Zone.
type Cloud struct {
	*tailnet.Node
	CA []byte // PEM of the authority that signed the API's certificate

	mu       sync.Mutex
	tcp      map[netip.AddrPort]func(net.Conn)
	dns      map[netip.AddrPort]AnswerDNS
	records  map[string][]netip.Addr
	queries  map[string]int
	listener []*inbox
	servers  []io.Closer
	live     map[net.Conn]bool
	hosts    int // how many addresses NewHost has given
}

// AnswerDNS answers a query that came over network, "udp" or "tcp", as a good
// server does or a broken one. Nil means that it stays silent.
type AnswerDNS func(network string, q *dns.Msg) *dns.Msg

// StartCloud joins a cloud node called hostname, has its routes approved and
// waits until it is up. One that was closed and is started again is the same
// device.
func (n *Net) StartCloud(ctx context.Context, hostname string, logger *slog.Logger) (*Cloud, error) {
	cert, ca, err := Certificate(APIName)
	if err != nil {
		return nil, err
	}
	c := &Cloud{
		CA: ca, tcp: map[netip.AddrPort]func(net.Conn){}, dns: map[netip.AddrPort]AnswerDNS{}, queries: map[string]int{}, live: map[net.Conn]bool{},
		records: map[string][]netip.Addr{
			APIName + ".":          {APIAddr},
			"dual." + Zone + ".":   {APIAddr, APIAddr6},
			"v6only." + Zone + ".": {APIAddr6},
		},
	}
	for _, a := range []netip.Addr{APIAddr, APIAddr6} {
		c.serveHTTP(c.Listen(netip.AddrPortFrom(a, 80)), nil)
		c.serveHTTP(c.Listen(netip.AddrPortFrom(a, 443)), &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	c.ServeDNS(netip.AddrPortFrom(DNSAddr, 53), nil)
	n.mu.Lock()
	if n.state[hostname] == nil {
		n.state[hostname] = tailnet.MemoryStore()
	}
	store := n.state[hostname]
	n.mu.Unlock()
	c.Node, err = tailnet.Start(ctx, tailnet.Options{
		Store: store, Hostname: hostname, ControlURL: n.URL(), AuthKey: AuthKey, Logger: logger,
		AdvertiseRoutes: []netip.Prefix{Network, Network6},
		ServeTCP:        c.tcpHandler, ServeUDP: c.udpHandler,
	})
	if err != nil {
		return nil, err
	}
	if err := c.Wait(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, n.ApproveRoutes(hostname, Network, Network6)
}

// Handle gives every TCP connection to addr to h, which closes it.
func (c *Cloud) Handle(addr netip.AddrPort, h func(net.Conn)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tcp[addr] = h
}

// ServeDNS has h answer the queries to addr, over UDP and TCP, in place of who
// answered there. Nil is the private DNS server, which stands at port 53 of
// DNSAddr from the start.
func (c *Cloud) ServeDNS(addr netip.AddrPort, h AnswerDNS) {
	if h == nil {
		h = c.answer
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dns[addr] = h
	c.tcp[addr] = func(conn net.Conn) { c.serveDNS(conn, "tcp", addr) }
}

// SetRecord makes the private DNS server answer name, without a trailing dot,
// with addrs; none means that the name doesn't exist.
func (c *Cloud) SetRecord(name string, addrs ...netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records[dns.Fqdn(name)] = addrs
	if len(addrs) == 0 {
		delete(c.records, dns.Fqdn(name))
	}
}

// Queries returns how often the private DNS server was asked for name.
func (c *Cloud) Queries(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queries[dns.Fqdn(name)]
}

// Listen returns a listener on an address of the private site.
func (c *Cloud) Listen(addr netip.AddrPort) net.Listener {
	in := &inbox{addr: net.TCPAddrFromAddrPort(addr), conns: make(chan net.Conn), done: make(chan struct{})}
	c.Handle(addr, in.put)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listener = append(c.listener, in)
	return in
}

// Close takes the node and all that stands behind it off the tailnet.
func (c *Cloud) Close() error {
	c.mu.Lock()
	for _, in := range c.listener {
		in.Close()
	}
	for _, s := range c.servers {
		s.Close()
	}
	for conn := range c.live {
		conn.Close()
	}
	c.mu.Unlock()
	return c.Node.Close()
}

// tcpHandler answers for the whole private network: what nobody serves is refused.
func (c *Cloud) tcpHandler(src, dst netip.AddrPort) (func(net.Conn), bool) {
	if !Network.Contains(dst.Addr()) && !Network6.Contains(dst.Addr()) {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.tcp[dst]
	if h == nil {
		return nil, true
	}
	return func(conn net.Conn) {
		tc := conn.(halfCloser)
		fc := &flowConn{halfCloser: tc, remote: net.TCPAddrFromAddrPort(src), local: net.TCPAddrFromAddrPort(dst), closed: make(chan struct{})}
		c.mu.Lock()
		c.live[fc] = true
		c.mu.Unlock()
		h(fc)
		<-fc.closed
		c.mu.Lock()
		delete(c.live, fc)
		c.mu.Unlock()
	}, true
}

// udpHandler is tcpHandler for UDP, where nobody is told of a refusal: what
// nobody serves gets no answer.
func (c *Cloud) udpHandler(_, dst netip.AddrPort) (func(net.Conn), bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dns[dst] == nil {
		return nil, Network.Contains(dst.Addr())
	}
	return func(conn net.Conn) { c.serveDNS(conn, "udp", dst) }, true
}

// serveDNS answers one client's queries to addr, until it is quiet for long.
func (c *Cloud) serveDNS(conn net.Conn, network string, addr netip.AddrPort) {
	defer conn.Close()
	dc := &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}
	for {
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		q, err := dc.ReadMsg()
		if err != nil {
			return
		}
		c.mu.Lock()
		h := c.dns[addr]
		c.mu.Unlock()
		if m := h(network, q); m != nil {
			dc.WriteMsg(m)
		}
	}
}

// answer is the private DNS server: authoritative for Zone, and for what else
// SetRecord has given it.
func (c *Cloud) answer(_ string, q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	if len(q.Question) != 1 {
		return m.SetRcode(q, dns.RcodeFormatError)
	}
	qu := q.Question[0]
	name := strings.ToLower(qu.Name)
	c.mu.Lock()
	defer c.mu.Unlock()
	addrs, ok := c.records[name]
	if !ok && !dns.IsSubDomain(Zone+".", name) {
		return m.SetRcode(q, dns.RcodeRefused)
	}
	m.Authoritative = true
	c.queries[name]++
	if !ok {
		return m.SetRcode(q, dns.RcodeNameError)
	}
	for _, a := range addrs {
		h := dns.RR_Header{Name: qu.Name, Class: dns.ClassINET, Ttl: 5}
		switch {
		case qu.Qtype == dns.TypeA && a.Is4():
			h.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		case qu.Qtype == dns.TypeAAAA && a.Is6():
			h.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	}
	return m
}

// Reply is what the private API answers to every request.
type Reply struct {
	Service string `json:"service"`
	Device  string `json:"device"` // tailnet address of the device that the request came through
	Host    string `json:"host"`
	Path    string `json:"path"`
	TLS     bool   `json:"tls"`
}

func (c *Cloud) serveHTTP(ln net.Listener, tlsConf *tls.Config) {
	if tlsConf != nil {
		ln = tls.NewListener(ln, tlsConf)
	}
	s := &http.Server{
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			device, _, _ := net.SplitHostPort(r.RemoteAddr)
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(Reply{
				Service: "private-api", Device: device, Host: r.Host, Path: r.URL.Path, TLS: r.TLS != nil,
			})
		}),
	}
	c.servers = append(c.servers, s)
	go s.Serve(ln) // ends with Close
}

// halfCloser is a TCP connection of either network stack.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// flowConn is a connection that knows its addresses before the handshake ends.
type flowConn struct {
	halfCloser
	remote, local net.Addr
	once          sync.Once
	closed        chan struct{}
}

func (c *flowConn) RemoteAddr() net.Addr { return c.remote }
func (c *flowConn) LocalAddr() net.Addr  { return c.local }
func (c *flowConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.halfCloser.Close()
}

// inbox is a net.Listener fed by a handler.
type inbox struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (in *inbox) put(c net.Conn) {
	select {
	case in.conns <- c:
	case <-in.done:
		c.Close()
	}
}

func (in *inbox) Accept() (net.Conn, error) {
	select {
	case c := <-in.conns:
		return c, nil
	case <-in.done:
		return nil, fmt.Errorf("listener %v: %w", in.addr, errors.Join(net.ErrClosed, io.EOF))
	}
}

func (in *inbox) Close() error   { in.once.Do(func() { close(in.done) }); return nil }
func (in *inbox) Addr() net.Addr { return in.addr }
