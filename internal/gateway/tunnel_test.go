package gateway_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testnet"
)

func TestCurlConnect(t *testing.T) { eachMode(t, sharedGateway, curlConnect) }

func curlConnect(t *testing.T, w *world) {
	out := w.curl(t, "-x", "http://"+w.addr, "https://"+testnet.APIName+"/v1")
	if !strings.Contains(out, `"tls":true`) || !strings.Contains(out, w.gw.Device().Addrs()[0].String()) {
		t.Errorf("the API said %s", out)
	}
	f := w.flows.findFront(t, "connect", testnet.APIName+":443")
	// curl may close with a session ticket unread, which resets the connection.
	if f["front"] != "connect" || f["class"] != "ok" && f["class"] != "canceled" || f["source"] != "zone "+testnet.Zone || f["path"] != "tailnet" || f["addr"] != testnet.APIAddr.String()+":443" {
		t.Errorf("flow line %v, want a connect flow to the API over the tailnet", f)
	}
}

func TestCurlSOCKS5h(t *testing.T) { userspace(t, sharedGateway, curlSOCKS5h) }

func curlSOCKS5h(t *testing.T, w *world) {
	out := w.curl(t, "-x", "socks5h://"+w.addr, "https://"+testnet.APIName+"/socks")
	if !strings.Contains(out, `"path":"/socks"`) {
		t.Errorf("the API said %s", out)
	}
}

func TestCurlSOCKS5IPv4AndIPv6(t *testing.T) { eachMode(t, sharedGateway, curlSOCKS5Address) }

func curlSOCKS5Address(t *testing.T, w *world) {
	for _, a := range []string{testnet.APIAddr.String(), "[" + testnet.APIAddr6.String() + "]"} {
		out := w.curl(t, "-x", "socks5://"+w.addr, "http://"+a+"/addr")
		if !strings.Contains(out, `"path":"/addr"`) {
			t.Errorf("%s: the API said %s", a, out)
		}
	}
}

func TestErrorClassesSOCKS5(t *testing.T) { eachMode(t, sharedGateway, errorClassesSOCKS5) }

func errorClassesSOCKS5(t *testing.T, w *world) {
	for _, e := range errorTargets {
		c := w.raw(t)
		c.Write([]byte{5, 1, 0})
		expect(t, c, []byte{5, 0})
		var port uint16
		fmt.Sscan(e.port, &port)
		req := append([]byte{5, 1, 0, 3, byte(len(e.host))}, e.host...)
		c.Write(append(req, byte(port>>8), byte(port)))
		expect(t, c, []byte{5, e.reply, 0, 1, 0, 0, 0, 0, 0, 0})
	}
	// What RFC 1928 knows and we do not do.
	for _, r := range []struct {
		req   []byte
		reply byte
	}{
		{[]byte{5, 2, 0, 1, 10, 12, 3, 4, 0, 80}, 7}, // BIND
		{[]byte{5, 3, 0, 1, 0, 0, 0, 0, 0, 0}, 7},    // UDP ASSOCIATE
		{[]byte{5, 1, 0, 9, 10, 12, 3, 4, 0, 80}, 8}, // address type 9
	} {
		c := w.raw(t)
		c.Write([]byte{5, 1, 0})
		expect(t, c, []byte{5, 0})
		c.Write(r.req)
		expect(t, c, []byte{5, r.reply})
	}
}

func TestSOCKS4(t *testing.T) { eachMode(t, sharedGateway, socks4) }

// socks4 checks SOCKS4 with an address, and 4A with a name: by curl, by the classes of
// errors, and by half-close with early bytes.
func socks4(t *testing.T, w *world) {
	out := w.curl(t, "-x", "socks4a://"+w.addr, "https://"+testnet.APIName+"/socks4a")
	if !strings.Contains(out, `"path":"/socks4a"`) {
		t.Errorf("socks4a: the API said %s", out)
	}
	checkFlow(t, "socks4a", w.flows.findFront(t, "socks4", testnet.APIName), fields{"class": "ok", "path": "tailnet"})
	out = w.curl(t, "-x", "socks4://"+w.addr, "http://"+testnet.APIAddr.String()+"/socks4")
	if !strings.Contains(out, `"path":"/socks4"`) {
		t.Errorf("socks4: the API said %s", out)
	}
	ask := func(command byte, host, port, follow string) *net.TCPConn {
		t.Helper()
		var n uint16
		fmt.Sscan(port, &n)
		c := w.raw(t)
		req := []byte{4, command, byte(n >> 8), byte(n), 0, 0, 0, 1, 'm', 'e', 0}
		c.Write(append(append(append(req, host...), 0), follow...))
		return c
	}
	rejected := []byte{0, 0x5b, 0, 0, 0, 0, 0, 0}
	for _, e := range errorTargets {
		expect(t, ask(1, e.host, e.port, ""), rejected)
	}
	expect(t, ask(2, testnet.APIName, "80", ""), rejected) // BIND
	host, port, err := net.SplitHostPort(w.countBytes())
	if err != nil {
		t.Fatal(err)
	}
	c := ask(1, host, port, strings.Repeat("e", 9000))
	expect(t, c, []byte{0, 0x5a, 0, 0, 0, 0, 0, 0})
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "got 9000" {
		t.Errorf("the target answered %q, %v; want got 9000", b, err)
	}
}

// countBytes serves a target that reads to the end, and answers "got " and the
// number of bytes. It returns the target's name and port.
func (w *world) countBytes() string {
	return testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "got %d", len(b))
	}))
}

// someBytes is more than a few segments hold.
const someBytes = 300_000

func TestHalfCloseConnect(t *testing.T) { eachMode(t, sharedGateway, halfCloseConnect) }

func halfCloseConnect(t *testing.T, w *world) {
	target := w.countBytes()
	c, br := w.connectTo(t, target, "")
	c.Write(make([]byte, someBytes))
	c.CloseWrite()
	want := fmt.Sprint("got ", someBytes)
	if b, err := io.ReadAll(br); err != nil || string(b) != want {
		t.Errorf("the target answered %q, %v; want %q", b, err, want)
	}
	if f := w.flows.find(t, target); f["up"] != float64(someBytes) || f["down"] != float64(len(want)) || f["class"] != "ok" {
		t.Errorf("flow line %v, want class ok, up %d and down %d", f, someBytes, len(want))
	}
}

func TestHalfCloseSOCKS5(t *testing.T) { eachMode(t, sharedGateway, halfCloseSOCKS5) }

func halfCloseSOCKS5(t *testing.T, w *world) {
	c := w.socksTo(t, w.countBytes(), "")
	c.Write(make([]byte, someBytes))
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != fmt.Sprint("got ", someBytes) {
		t.Errorf("the target answered %q, %v; want got %d", b, err, someBytes)
	}
}

func TestHalfCloseTargetFirst(t *testing.T) { eachMode(t, sharedGateway, halfCloseTargetFirst) }

func halfCloseTargetFirst(t *testing.T, w *world) {
	got := make(chan int, 2)
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "bye")
		c.(interface{ CloseWrite() error }).CloseWrite()
		b, _ := io.ReadAll(c)
		got <- len(b)
	}))
	check := func(front string, c *net.TCPConn, r io.Reader) {
		if b, err := io.ReadAll(r); err != nil || string(b) != "bye" {
			t.Errorf("%s: the target sent %q, %v; want bye", front, b, err)
		}
		c.Write(make([]byte, someBytes))
		c.CloseWrite()
		select {
		case n := <-got:
			if n != someBytes {
				t.Errorf("%s: the target got %d bytes after its own end, want %d", front, n, someBytes)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s: the target never saw the client's end", front)
		}
	}
	c, br := w.connectTo(t, target, "")
	check("connect", c, br)
	c = w.socksTo(t, target, "")
	check("socks5", c, c)
}

func TestEarlyBytes(t *testing.T) { eachMode(t, sharedGateway, earlyBytes) }

// earlyBytes checks that bytes which come in one packet with the request,
// before the tunnel is open, reach the target.
func earlyBytes(t *testing.T, w *world) {
	target := w.countBytes()
	c, br := w.connectTo(t, target, strings.Repeat("e", 9000))
	c.CloseWrite()
	if b, _ := io.ReadAll(br); string(b) != "got 9000" {
		t.Errorf("connect: the target answered %q, want got 9000", b)
	}
	c = w.socksTo(t, target, strings.Repeat("e", 9000))
	c.CloseWrite()
	if b, _ := io.ReadAll(c); string(b) != "got 9000" {
		t.Errorf("socks5: the target answered %q, want got 9000", b)
	}
}

func TestResetIsPassedOn(t *testing.T) { eachMode(t, sharedGateway, resetPassedOn) }

// resetPassedOn checks that a broken stream does not look like a whole one.
func resetPassedOn(t *testing.T, w *world) {
	heard := make(chan error, 1)
	failed := make(chan error, 1)
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		_, err := c.Read(make([]byte, 1))
		heard <- err
		_, err = io.ReadAll(c)
		failed <- err
	}))
	// The client resets: the target sees an error, not an end.
	c, _ := w.connectTo(t, target, "x")
	if err := <-heard; err != nil {
		t.Fatal(err)
	}
	c.SetLinger(0)
	c.Close()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("the target took a reset for a clean end")
		}
	case <-time.After(30 * time.Second):
		t.Error("the target never saw the client's reset")
	}
	if f := w.flows.find(t, target); f["class"] != "canceled" {
		t.Errorf("flow line %v, want class canceled", f)
	}
}

func TestWebSocket(t *testing.T) { eachMode(t, sharedGateway, webSocket) }

// webSocket checks that RFC 6455's opening handshake works through the plain
// HTTP front, and that the connection is a tunnel then.
func webSocket(t *testing.T, w *world) {
	const (
		key  = "dGhlIHNhbXBsZSBub25jZQ=="
		guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	)
	target := testnet.NamePort(w.cloud.Serve(func(c net.Conn) {
		defer c.Close()
		br := bufio.NewReader(c)
		req, err := http.ReadRequest(br)
		if err != nil || req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Connection") != "Upgrade" {
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + guid))
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\nhello", base64.StdEncoding.EncodeToString(sum[:]))
		io.Copy(c, br)
	}))
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\nearly", target, key)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("the handshake got %v, %v; want 101 and the accepted key", resp, err)
	}
	expect(t, br, []byte("helloearly"))
	io.WriteString(c, "frame")
	expect(t, br, []byte("frame"))
	c.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || len(b) != 0 {
		t.Errorf("after the client's end: %q, %v; want a clean end", b, err)
	}
	if f := w.flows.find(t, target); f["status"] != float64(101) || f["up"] != float64(10) || f["down"] != float64(15) {
		t.Errorf("flow line %v, want status 101, up 10 and down 15", f)
	}
}

func TestRefusedConnect(t *testing.T) { userspace(t, sharedGateway, refusedConnect) }

// refusedConnect checks that bytes after a refused CONNECT, which were meant for
// the tunnel, are not read as a request.
func refusedConnect(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "CONNECT 169.254.169.254:443 HTTP/1.1\r\nHost: x\r\n\r\nGET http://%s/echo HTTP/1.1\r\nHost: x\r\n\r\n", w.origin.host)
	b, err := io.ReadAll(c)
	if err != nil || strings.Count(string(b), "HTTP/1.1 ") != 1 || !strings.HasPrefix(string(b), "HTTP/1.1 403") {
		t.Errorf("got %v and\n%s\nwant one response, with status 403", err, b)
	}
}
