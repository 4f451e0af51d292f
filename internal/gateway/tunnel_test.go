package gateway_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/testnet"
)

func curlConnect(t *testing.T, w *world) {
	out := w.curl(t, "-x", "http://"+w.addr, "https://"+testnet.APIName+"/v1")
	if !strings.Contains(out, `"tls":true`) || !strings.Contains(out, w.gw.Node().Addrs()[0].String()) {
		t.Errorf("the API said %s", out)
	}
	f := w.flows.find(t, testnet.APIName+":443")
	// curl may close with a session ticket unread, which resets the connection.
	if f["front"] != "connect" || f["class"] != "ok" && f["class"] != "canceled" || f["source"] != "zone "+testnet.Zone || f["path"] != "tailnet" || f["addr"] != testnet.APIAddr.String()+":443" {
		t.Errorf("flow line %v", f)
	}
}

func curlSOCKS5h(t *testing.T, w *world) {
	out := w.curl(t, "-x", "socks5h://"+w.addr, "https://"+testnet.APIName+"/socks")
	if !strings.Contains(out, `"path":"/socks"`) {
		t.Errorf("the API said %s", out)
	}
}

func curlSOCKS5Address(t *testing.T, w *world) {
	for _, a := range []string{testnet.APIAddr.String(), "[" + testnet.APIAddr6.String() + "]"} {
		out := w.curl(t, "-x", "socks5://"+w.addr, "http://"+a+"/addr")
		if !strings.Contains(out, `"path":"/addr"`) {
			t.Errorf("%s: the API said %s", a, out)
		}
	}
}

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

// countBytes serves connections that say how much they got at its end.
func countBytes(w *world, port uint16) string {
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, port), func(c net.Conn) {
		defer c.Close()
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "got %d", len(b))
	})
	return fmt.Sprintf("%s:%d", testnet.APIName, port)
}

const half = 300_000

func halfCloseConnect(t *testing.T, w *world) {
	c, br := w.connectTo(t, countBytes(w, 7101), "")
	c.Write(make([]byte, half))
	c.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || string(b) != fmt.Sprint("got ", half) {
		t.Errorf("%q, %v", b, err)
	}
	if f := w.flows.find(t, ":7101"); f["up"] != float64(half) || f["down"] != float64(len(fmt.Sprint("got ", half))) || f["class"] != "ok" {
		t.Errorf("flow line %v", f)
	}
}

func halfCloseSOCKS5(t *testing.T, w *world) {
	countBytes(w, 7102)
	c := w.socksTo(t, testnet.APIName, 7102, "")
	c.Write(make([]byte, half))
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != fmt.Sprint("got ", half) {
		t.Errorf("%q, %v", b, err)
	}
}

func halfCloseTargetFirst(t *testing.T, w *world) {
	got := make(chan int, 2)
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7103), func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "bye")
		c.(interface{ CloseWrite() error }).CloseWrite()
		b, _ := io.ReadAll(c)
		got <- len(b)
	})
	check := func(front string, c *net.TCPConn, r io.Reader) {
		if b, err := io.ReadAll(r); err != nil || string(b) != "bye" {
			t.Errorf("%s: %q, %v", front, b, err)
		}
		c.Write(make([]byte, half))
		c.CloseWrite()
		select {
		case n := <-got:
			if n != half {
				t.Errorf("%s: the target got %d bytes after its own end, want %d", front, n, half)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the target never saw the client's end", front)
		}
	}
	c, br := w.connectTo(t, testnet.APIName+":7103", "")
	check("connect", c, br)
	c = w.socksTo(t, testnet.APIName, 7103, "")
	check("socks5", c, c)
}

// earlyBytes come in one packet with the request, before the tunnel is open.
func earlyBytes(t *testing.T, w *world) {
	target := countBytes(w, 7104)
	c, br := w.connectTo(t, target, strings.Repeat("e", 9000))
	c.CloseWrite()
	if b, _ := io.ReadAll(br); string(b) != "got 9000" {
		t.Errorf("connect: %q", b)
	}
	c = w.socksTo(t, testnet.APIName, 7104, strings.Repeat("e", 9000))
	c.CloseWrite()
	if b, _ := io.ReadAll(c); string(b) != "got 9000" {
		t.Errorf("socks5: %q", b)
	}
}

// resetPassedOn: a broken stream must not look like a whole one.
func resetPassedOn(t *testing.T, w *world) {
	heard := make(chan error, 1)
	failed := make(chan error, 1)
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7106), func(c net.Conn) {
		defer c.Close()
		_, err := c.Read(make([]byte, 1))
		heard <- err
		_, err = io.ReadAll(c)
		failed <- err
	})
	// The client resets: the target sees an error, not an end.
	c, _ := w.connectTo(t, testnet.APIName+":7106", "x")
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
	case <-time.After(10 * time.Second):
		t.Error("the target never heard of the client's reset")
	}
	if f := w.flows.find(t, ":7106"); f["class"] != "canceled" {
		t.Errorf("flow line %v", f)
	}
}

// webSocket speaks RFC 6455's opening handshake through the plain front, and
// then bytes of its own.
func webSocket(t *testing.T, w *world) {
	const key, guid = "dGhlIHNhbXBsZSBub25jZQ==", "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	w.cloud.Handle(netip.AddrPortFrom(testnet.APIAddr, 7110), func(c net.Conn) {
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
	})
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s:7110/ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\nearly", testnet.APIName, key)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%v, %v", resp, err)
	}
	expect(t, br, []byte("helloearly"))
	io.WriteString(c, "frame")
	expect(t, br, []byte("frame"))
	c.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || len(b) != 0 {
		t.Errorf("after the end: %q, %v", b, err)
	}
	if f := w.flows.find(t, ":7110"); f["status"] != float64(101) || f["up"] != float64(10) || f["down"] != float64(15) {
		t.Errorf("flow line %v", f)
	}
}

// What follows a refused CONNECT was meant for the tunnel, and is no request.
func refusedConnect(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "CONNECT 169.254.169.254:443 HTTP/1.1\r\nHost: x\r\n\r\nGET http://%s/echo HTTP/1.1\r\nHost: x\r\n\r\n", originHost)
	b, err := io.ReadAll(c)
	if err != nil || strings.Count(string(b), "HTTP/1.1 ") != 1 || !strings.HasPrefix(string(b), "HTTP/1.1 403") {
		t.Errorf("%v\n%s", err, b)
	}
}
