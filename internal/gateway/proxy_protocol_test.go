package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// balancer is a load balancer at 127.0.0.1 that says who its client is.
type balancer struct {
	client string // address and port
	proxy  byte   // version of the PROXY protocol; 0 sends no header
}

// dial opens a connection of the client to addr.
func (b balancer) dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c := dialPort(t, addr)
	if b.proxy == 0 {
		return c
	}
	h := proxyproto.HeaderProxyFromAddrs(b.proxy, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(b.client)), c.RemoteAddr())
	if b.proxy == 2 {
		h.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: []byte("a flow of a load balancer")}})
	}
	if _, err := h.WriteTo(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// connect asks for a tunnel to target and returns the status.
func (b balancer) connect(t *testing.T, r *replica, target string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	t.Helper()
	c := b.dial(t, r.addr)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	return c, br, resp
}

func TestProxyProtocol(t *testing.T) { eachMode(t, sharedTailnet, proxyProtocol) }

// proxyProtocol checks that the client of a load balancer is the client for the rules,
// the limits and the log, on every port for clients, and that tunnels work as without
// a load balancer.
func proxyProtocol(t *testing.T, w *world) {
	f := newFronts(t)
	pipe := w.countBytes()
	own := testkit.FreePorts(t, 1)[0]
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		f.serve(c, pipe)
		c.Listen.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		c.Forward = append(c.Forward, config.ForwardPort{
			Listen:        own,
			Target:        parseTarget(pipe),
			ProxyProtocol: []netip.Prefix{},
		})
		c.Limits.PerClient = 2
		c.Policy.Rules = []config.Rule{
			{Name: "not-eve", From: []netip.Prefix{netip.MustParsePrefix("192.0.2.66/32")}, Action: "deny"},
			{Name: "not-the-balancer", From: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Action: "deny"},
		}
	})
	proxyClients(t, w, r, pipe)
	proxyFronts(t, w, r, f, pipe)
	proxyRefusals(t, r, f, pipe)

	// A port with an empty list takes no header: its bytes are for the target.
	checkFlow(t, "a port without senders", r.flows.findFront(t, "forward", pipe), fields{"class": "ok"}) // of proxyFronts
	testkit.Eventually(t, "the denied flow", func() bool {
		if c, err := net.Dial("tcp", own); err == nil { // reset while the balancer has two other connections open
			io.WriteString(c, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\n")
			c.(*net.TCPConn).CloseWrite()
			if b, err := io.ReadAll(c); err == nil && len(b) > 0 { // the client is the balancer, which is denied
				t.Errorf("a port without senders: %q", b)
			}
			c.Close()
		}
		for _, f := range r.flows.matching(pipe) {
			if f["front"] == "forward" && f["class"] == "denied" && strings.HasPrefix(f["client"].(string), "127.0.0.1:") {
				return true
			}
		}
		return false
	})
}

// proxyClients checks rules, limits and log of the proxy port.
func proxyClients(t *testing.T, w *world, r *replica, pipe string) {
	t.Helper()
	for version := byte(1); version <= 2; version++ {
		ann := balancer{fmt.Sprintf("192.0.2.%d:4000", version), version}
		c, br, resp := ann.connect(t, r, pipe)
		if resp.StatusCode != 200 {
			t.Fatalf("version %d: %s", version, resp.Status)
		}
		c.Write(make([]byte, 1<<20)) // half-close and bulk, as without a header
		c.CloseWrite()
		if b, err := io.ReadAll(br); err != nil || string(b) != fmt.Sprint("got ", 1<<20) {
			t.Errorf("version %d: the target says %q, %v", version, b, err)
		}
		testkit.Eventually(t, "the flow line of "+ann.client, func() bool {
			for _, f := range r.flows.matching(pipe) {
				if f["client"] == ann.client && f["class"] == "ok" && f["up"] == float64(1<<20) {
					return true
				}
			}
			return false
		})
	}
	six := balancer{"[2001:db8::7]:4000", 2}
	if _, _, resp := six.connect(t, r, w.origin.host); resp.StatusCode != 200 {
		t.Errorf("a client with IPv6: %s", resp.Status)
	}
	// Rules go by the client.
	if _, _, resp := (balancer{"192.0.2.66:4000", 1}).connect(t, r, w.origin.host); resp.StatusCode != 403 {
		t.Errorf("a client that a rule denies: %s, want 403", resp.Status)
	}
	// So do limits: two for each client, whatever the balancer has.
	bob := balancer{"192.0.2.9:4000", 2}
	carl := balancer{"192.0.2.10:4000", 2}
	for i, want := range []int{200, 200, 503} {
		if _, _, resp := bob.connect(t, r, pipe); resp.StatusCode != want {
			t.Errorf("connection %d of one client: %s, want %d", i+1, resp.Status, want)
		}
	}
	if _, _, resp := carl.connect(t, r, pipe); resp.StatusCode != 200 {
		t.Errorf("another client: %s, want 200", resp.Status)
	}
	// The header may say that the balancer speaks for itself, as its health checks do.
	c := dialPort(t, r.addr)
	local := proxyproto.Header{
		Version:           2,
		Command:           proxyproto.LOCAL,
		TransportProtocol: proxyproto.UNSPEC,
	}
	local.WriteTo(c)
	fmt.Fprintf(c, "GET http://%s/echo HTTP/1.1\r\nHost: x\r\n\r\n", w.origin.host)
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 403 {
		t.Errorf("the balancer itself, which a rule denies: %v, %v; want 403", resp, err)
	}
}

// proxyFronts checks the ports for clients without a proxy setting.
func proxyFronts(t *testing.T, w *world, r *replica, f fronts, pipe string) {
	t.Helper()
	zoe := balancer{"192.0.2.20:4000", 2} // each connection is another client's, so none is at its limit
	c := zoe.dial(t, f.sni)
	c.Write(testkit.ClientHello(t, testnet.APIName))
	expect(t, c, []byte{22, 3, 3}) // the ServerHello of the API
	c.Close()
	checkFlow(t, "sni", r.flows.findFront(t, "sni", testnet.APIName), fields{"client": zoe.client})

	zoe.client = "192.0.2.21:4000"
	c = zoe.dial(t, f.web)
	fmt.Fprintf(c, "GET /echo HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", w.origin.host)
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("web: %v, %v; want 200", resp, err)
	}
	checkFlow(t, "web", r.flows.findFront(t, "web", w.origin.host), fields{"client": zoe.client})

	zoe.client = "192.0.2.22:4000"
	c = zoe.dial(t, f.forward)
	counted(t, c, 70000)
	checkFlow(t, "forward", r.flows.findFront(t, "forward", pipe), fields{"client": zoe.client, "class": "ok"})
}

// proxyRefusals checks what senders get that send what they should not.
func proxyRefusals(t *testing.T, r *replica, f fronts, pipe string) {
	t.Helper()
	body := func(c net.Conn) string {
		t.Helper()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		return resp.Status + " " + string(b)
	}
	get := "GET http://" + pipe + "/ HTTP/1.1\r\nHost: x\r\n\r\n"
	// The balancer without a header.
	for _, addr := range []string{r.addr, f.web} {
		c := dialPort(t, addr)
		io.WriteString(c, get)
		if got := body(c); !strings.HasPrefix(got, "400") || !strings.Contains(got, "must begin with a PROXY header") {
			t.Errorf("no header on %s: %s", addr, got)
		}
	}
	// Another sender, with and without one.
	last := byte(1) // each is a client of its own, so none is at its limit
	other := func(addr string) net.Conn {
		t.Helper()
		last++
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, last)}}
		c, err := d.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	for _, addr := range []string{r.addr, f.web} {
		c := other(addr)
		io.WriteString(c, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 1055\r\n"+get)
		if got := body(c); !strings.HasPrefix(got, "400") || !strings.Contains(got, "listen.proxyProtocol") {
			t.Errorf("a header from elsewhere on %s: %s", addr, got)
		}
	}
	c := other(f.sni)
	io.WriteString(c, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 1055\r\n")
	expect(t, c, []byte{21, 3, 3, 0, 2, 2, 10}) // unexpected_message
	testkit.Eventually(t, "the sni flow with the hint", func() bool {
		for _, l := range r.flows.matching("") {
			if hint, ok := l["hint"].(string); ok && l["front"] == "sni" && strings.Contains(hint, "listen.proxyProtocol") {
				return true
			}
		}
		return false
	})
	c = other(r.addr)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", pipe)
	if resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect}); err != nil || resp.StatusCode != 200 {
		t.Errorf("a client without a header: %v, %v; want 200", resp, err)
	}
}
