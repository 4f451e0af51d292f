package httpproxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testkit"
)

// testProxy is a proxy on loopback. Its address stands for each of its clients.
type testProxy struct {
	*Proxy
	road *testkit.Road
	addr netip.AddrPort
}

// startProxy serves a proxy whose origin is at the address origin. edit may
// change the proxy; nil leaves it as it is.
func startProxy(t *testing.T, origin netip.AddrPort, edit func(*Proxy)) testProxy {
	t.Helper()
	road := &testkit.Road{Addr: origin}
	p := &Proxy{Road: road}
	if edit != nil {
		edit(p)
	}
	addr := testkit.ServeConns(t, func(c *net.TCPConn) { p.Serve(t.Context(), c) })
	t.Cleanup(func() {
		p.Cut()
		p.Close()
	})
	return testProxy{p, road, addr}
}

// testClient is a connection to a proxy.
type testClient struct {
	*net.TCPConn
	br *bufio.Reader
}

// client connects to the proxy from an address of loopback, such as 127.0.0.2.
func (p testProxy) client(t *testing.T, from string) testClient {
	t.Helper()
	local := &net.TCPAddr{IP: net.ParseIP(from)}
	c, err := net.DialTCP("tcp", local, net.TCPAddrFromAddrPort(p.addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return testClient{c, bufio.NewReader(c)}
}

// ask sends a request and returns the status and the body of the response.
func (c testClient) ask(t *testing.T, request string) (int, string) {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	var resp *http.Response
	for resp == nil || resp.StatusCode < 200 {
		var err error
		resp, err = http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatalf("%q: no response: %v", request, err)
		}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%q: the body of the response: %v", request, err)
	}
	return resp.StatusCode, string(body)
}

// answerAll reads one request after the other from a client of an origin, and sends
// what reply returns for it. reply may read on.
func answerAll(c *net.TCPConn, reply func(req *http.Request, more *bufio.Reader) string) {
	defer c.Close()
	br := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		io.WriteString(c, reply(req, br))
	}
}
