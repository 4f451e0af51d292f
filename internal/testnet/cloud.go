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

// Names of the private site that every Cloud carries.
const (
	Zone    = "internal.cloudprovider.io"
	APIName = "api." + Zone
)

// Addresses of the private site. They exist only inside the network stack of the
// cloud node, and in no kernel.
var (
	Network  = netip.MustParsePrefix("10.12.0.0/16")
	Network6 = netip.MustParsePrefix("fd12:cafe::/64")
	APIAddr  = netip.MustParseAddr("10.12.3.4")
	APIAddr6 = netip.MustParseAddr("fd12:cafe::34")
	DNSAddr  = netip.MustParseAddr("10.12.0.2")
)

// Cloud is a subnet router with a private site behind it. The site has an API on
// ports 80 and 443 of APIAddr and APIAddr6, and a DNS server on DNSAddr. No other DNS
// server knows Zone. StartCloud starts one.
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
	hosts    int // number of addresses that NewHost has returned
}

// AnswerDNS returns the answer to a query that came over network, "udp" or "tcp". It
// can behave like a good server or a broken one. Nil means no answer.
type AnswerDNS func(network string, q *dns.Msg) *dns.Msg

// StartCloud starts a cloud node called hostname, waits until it is up and approves
// its routes. A cloud node with the hostname of an earlier one is the same device.
// The caller closes it. A nil logger discards all messages.
func (n *Net) StartCloud(ctx context.Context, hostname string, logger *slog.Logger) (*Cloud, error) {
	cert, ca, err := Certificate(APIName)
	if err != nil {
		return nil, err
	}
	c := &Cloud{
		CA:      ca,
		tcp:     map[netip.AddrPort]func(net.Conn){},
		dns:     map[netip.AddrPort]AnswerDNS{},
		queries: map[string]int{},
		live:    map[net.Conn]bool{},
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
		Store:           store,
		Hostname:        hostname,
		ControlURL:      n.URL(),
		AuthKey:         AuthKey,
		Logger:          logger,
		AdvertiseRoutes: []netip.Prefix{Network, Network6},
		ServeTCP:        c.tcpHandler,
		ServeUDP:        c.udpHandler,
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

// Handle calls h for every TCP connection to addr. h closes the connection.
func (c *Cloud) Handle(addr netip.AddrPort, h func(net.Conn)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tcp[addr] = h
}

// ServeDNS calls h for every DNS query to addr, over UDP and TCP, instead of the
// handler that was there. Nil means the private DNS server, which serves port 53 of
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

// SetRecord sets the addresses of name, which has no trailing dot, in the private DNS
// server. Without addrs the name does not exist.
func (c *Cloud) SetRecord(name string, addrs ...netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records[dns.Fqdn(name)] = addrs
	if len(addrs) == 0 {
		delete(c.records, dns.Fqdn(name))
	}
}

// Queries returns the number of queries for name that the private DNS server got.
func (c *Cloud) Queries(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queries[dns.Fqdn(name)]
}

// Listen returns a TCP listener on an address of the private site.
func (c *Cloud) Listen(addr netip.AddrPort) net.Listener {
	in := &inbox{addr: net.TCPAddrFromAddrPort(addr), conns: make(chan net.Conn), done: make(chan struct{})}
	c.Handle(addr, in.put)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listener = append(c.listener, in)
	return in
}

// Close closes the node and all servers and connections of its private site.
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

// tcpHandler serves the whole private network. It refuses connections to addresses
// without a server.
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
		fc := &flowConn{
			halfCloser: tc,
			remote:     net.TCPAddrFromAddrPort(src),
			local:      net.TCPAddrFromAddrPort(dst),
			closed:     make(chan struct{}),
		}
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

// udpHandler serves the private network over UDP, which has no refusals: packets to
// addresses without a server get no answer.
func (c *Cloud) udpHandler(_, dst netip.AddrPort) (func(net.Conn), bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dns[dst] == nil {
		return nil, Network.Contains(dst.Addr())
	}
	return func(conn net.Conn) { c.serveDNS(conn, "udp", dst) }, true
}

// serveDNS answers the queries of one client to addr, until the client sends nothing
// for 30 s.
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

// answer is the AnswerDNS of the private DNS server. It is authoritative for Zone and
// for other names that SetRecord has set.
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

// Reply is the private API's answer to every request, in JSON.
type Reply struct {
	Service string `json:"service"`
	Device  string `json:"device"` // tailnet address of the device that sent the request
	Host    string `json:"host"`
	Path    string `json:"path"`
	TLS     bool   `json:"tls"`
}

// serveHTTP starts the private API on ln, over TLS unless tlsConf is nil.
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
				Service: "private-api",
				Device:  device,
				Host:    r.Host,
				Path:    r.URL.Path,
				TLS:     r.TLS != nil,
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

// flowConn is a connection whose addresses are known before the handshake ends.
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

// inbox is a net.Listener whose connections come from a handler of Cloud.
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
