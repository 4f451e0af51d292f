package datapath

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/forward"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/secure"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/target"
	"github.com/pandoproxy/pando/internal/datapath/mux"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/datapath/sni"
	"github.com/pandoproxy/pando/internal/datapath/socks"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// labHost is the name of the origin of a lab, on every port. The certificate of package
// httptest is for it.
const labHost = "example.com"

// lab is an origin with every front before it.
type lab struct{ proxy, web, sni, forward string }

// newLab opens the fronts. Their connections lead to origin, an address of loopback. roots
// are the authorities for requests for https:// URLs; nil means those of the system.
func newLab(t *testing.T, origin string, roots *x509.CertPool) lab {
	t.Helper()
	return newLabOf(t, roots, func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", origin)
	}, "10.0.0.1")
}

// newLabOf is newLab for an origin with several addresses, which dial reaches.
func newLabOf(t *testing.T, roots *x509.CertPool, dial dial.Func, addrs ...string) lab {
	t.Helper()
	var list []netip.Addr
	for _, a := range addrs {
		list = append(list, netip.MustParseAddr(a))
	}
	r := newRoad(t, &outside{}, policy.Policy{})
	r.Resolver = resolve.New(resolve.Options{
		Hosts:      map[string][]netip.Addr{labHost: list},
		HostsFile:  os.DevNull,
		ResolvConf: os.DevNull,
	})
	r.Dialer.Tailnet = dial
	proxy := &httpproxy.Proxy{Road: r, Secure: secure.New(roots)}
	web := &httpproxy.Proxy{
		Road:   r,
		Front:  flow.Web,
		Target: target.ByHost(80),
	}
	m := &mux.Mux{
		HTTP:   proxy,
		SOCKS5: &socks.Server{Road: r},
		Enter:  r.Limit.Enter,
		Leave:  r.Limit.Leave,
		Log:    slog.New(slog.DiscardHandler),
	}
	listen := func(role mux.Role) string {
		ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() { m.Serve(t.Context(), ln, role) })
		t.Cleanup(func() {
			ln.Close()
			serving.Wait()
		})
		return ln.Addr().String()
	}
	t.Cleanup(func() { // after the ports are closed
		for _, p := range []*httpproxy.Proxy{proxy, web} {
			p.Cut()
			p.Close()
		}
		r.Relay.Cut(context.Background(), "the test has ended")
	})
	return lab{
		proxy:   listen(mux.Role{}),
		web:     listen(mux.Role{Front: web}),
		sni:     listen(mux.Role{Front: &sni.Server{Road: r, Port: 443}}),
		forward: listen(mux.Role{Front: &forward.Server{Road: r, Host: labHost, Port: 443}, TargetFirst: true}),
	}
}

// way opens a connection to the origin of a lab.
type way struct {
	name string
	open func(t *testing.T, l lab) net.Conn
}

// tunnels are the ways that carry any bytes.
var tunnels = []way{
	{"connect", func(t *testing.T, l lab) net.Conn {
		c := dialLab(t, l.proxy)
		fmt.Fprintf(c, "CONNECT %[1]s:443 HTTP/1.1\r\nHost: %[1]s:443\r\n\r\n", labHost)
		const want = "HTTP/1.1 200 Connection established\r\n\r\n"
		readText(t, c, want)
		return c
	}},
	{"socks5", func(t *testing.T, l lab) net.Conn {
		c := dialLab(t, l.proxy)
		c.Write(append(append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(labHost))}, labHost...), 443>>8, 443&0xff))
		readText(t, c, "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
		return c
	}},
	{"forward", func(t *testing.T, l lab) net.Conn { return dialLab(t, l.forward) }},
}

// bySNI is the way for TLS alone.
var bySNI = way{"sni", func(t *testing.T, l lab) net.Conn { return dialLab(t, l.sni) }}

// dialLab opens a connection to one of a lab's ports.
func dialLab(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// readText reads want from r, byte for byte and nothing more.
func readText(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("got %q, error %v; want %q", got[:n], err, want)
	}
}

// overTLS returns a connection over w with TLS, on which proto is spoken.
func overTLS(t *testing.T, w way, l lab, proto string) *tls.Conn {
	t.Helper()
	c := tls.Client(w.open(t, l), &tls.Config{
		ServerName:         labHost,
		InsecureSkipVerify: true, // it is not about certificates
		NextProtos:         []string{proto},
	})
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// grpcServer answers as a gRPC server with a method that echoes each message of a stream,
// over HTTP/2 with and without TLS.
func grpcServer(t *testing.T, secure bool) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Errorf("the server got %s with TE %q, want HTTP/2 with trailers", r.Proto, r.Header.Get("Te"))
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.(http.Flusher).Flush() // the head comes before the first message
		for {
			message, err := readMessage(r.Body)
			if err != nil {
				break
			}
			w.Write(message)
			w.(http.Flusher).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
	}))
	s.EnableHTTP2 = true
	if secure {
		s.StartTLS()
	} else {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// readMessage reads a message of gRPC with its prefix: a flag and four bytes of length.
func readMessage(r io.Reader) ([]byte, error) {
	prefix := make([]byte, 5)
	if _, err := io.ReadFull(r, prefix); err != nil {
		return nil, err
	}
	length := int(prefix[1])<<24 | int(prefix[2])<<16 | int(prefix[3])<<8 | int(prefix[4])
	message := append(prefix, make([]byte, length)...)
	_, err := io.ReadFull(r, message[5:])
	return message, err
}

// message returns a message of n bytes.
func message(n int) []byte {
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, bytes.Repeat([]byte("m"), n)...)
}

// TestGRPC checks streams of gRPC through each tunnel, with TLS and without: the head and
// each message come back before the client sends more, and trailers come.
func TestGRPC(t *testing.T) {
	for _, secure := range []bool{true, false} {
		l := newLab(t, grpcServer(t, secure), nil)
		ways := tunnels
		if secure {
			ways = append([]way{bySNI}, tunnels...)
		}
		for _, w := range ways {
			t.Run(fmt.Sprintf("%s/tls=%v", w.name, secure), func(t *testing.T) {
				transport := &http.Transport{
					Protocols:      new(http.Protocols),
					DialContext:    func(context.Context, string, string) (net.Conn, error) { return w.open(t, l), nil },
					DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return overTLS(t, w, l, "h2"), nil },
				}
				transport.Protocols.SetHTTP2(secure)
				transport.Protocols.SetUnencryptedHTTP2(!secure)
				scheme := "http"
				if secure {
					scheme = "https"
				}
				defer transport.CloseIdleConnections()
				var streams sync.WaitGroup
				for range 5 { // of one connection
					streams.Go(func() { grpcStream(t, transport, scheme) })
				}
				streams.Wait()
			})
		}
	}
}

// grpcStream sends messages in turn with their echoes.
func grpcStream(t *testing.T, transport http.RoundTripper, scheme string) {
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, scheme+"://"+labHost+"/echo.Echo/Both", body)
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Te", "trailers")
	req.Header.Set("Content-Type", "application/grpc")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	for _, size := range []int{0, 1, 5, 200_000, 1} {
		send.Write(message(size))
		if got, err := readMessage(resp.Body); err != nil || !bytes.Equal(got, message(size)) {
			t.Errorf("a message of %d bytes comes back with %d, error %v", size, len(got)-5, err)
			return
		}
	}
	send.Close()
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("at the end: %q, error %v, trailer %v; want Grpc-Status 0", rest, err, resp.Trailer)
	}
}

// TestServerSentEvents checks that the head and each event of a stream reach the client
// before the server sends the next one, through every front.
func TestServerSentEvents(t *testing.T) {
	next := make(chan struct{})
	events := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for i := range 3 {
			<-next
			fmt.Fprintf(w, "id: %d\n\n", i)
			w.(http.Flusher).Flush()
		}
	})
	plain := httptest.NewServer(events)
	defer plain.Close()
	tlsServer := httptest.NewTLSServer(events)
	defer tlsServer.Close()
	l := newLab(t, plain.Listener.Addr().String(), nil)
	lTLS := newLab(t, tlsServer.Listener.Addr().String(), rootsOf(tlsServer))

	type front struct {
		name, url string
		transport *http.Transport
	}
	through := func(open func() net.Conn) *http.Transport {
		dial := func(context.Context, string, string) (net.Conn, error) { return open(), nil }
		return &http.Transport{DialContext: dial, DialTLSContext: dial}
	}
	fronts := []front{
		{"http", "http://" + labHost, &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: l.proxy})}},
		{"web", "http://" + labHost, through(func() net.Conn { return dialLab(t, l.web) })},
		{"https_in_absolute_form", "http://" + labHost, through(func() net.Conn { return absoluteHTTPS{dialLab(t, lTLS.proxy)} })},
	}
	for _, w := range tunnels {
		fronts = append(fronts, front{w.name, "http://" + labHost, through(func() net.Conn { return w.open(t, l) })})
	}
	for _, w := range append([]way{bySNI}, tunnels...) {
		fronts = append(fronts, front{w.name + "_tls", "https://" + labHost, through(func() net.Conn { return overTLS(t, w, lTLS, "http/1.1") })})
	}
	for _, f := range fronts {
		t.Run(f.name, func(t *testing.T) {
			defer f.transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: f.transport, Timeout: time.Minute}).Get(f.url + "/events")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
				t.Errorf("Content-Type %q, want text/event-stream", got)
			}
			for i := range 3 {
				next <- struct{}{}
				readText(t, resp.Body, fmt.Sprintf("id: %d\n\n", i))
			}
			if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
				t.Errorf("behind the events: %q, error %v; want the end", rest, err)
			}
		})
	}
}

// rootsOf returns the authorities that verify the certificate of s.
func rootsOf(s *httptest.Server) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return roots
}

// absoluteHTTPS is a connection to a proxy of a client that writes https:// URLs into its
// requests. It gets requests with a path.
type absoluteHTTPS struct{ net.Conn }

func (c absoluteHTTPS) Write(b []byte) (int, error) {
	_, err := c.Conn.Write(bytes.Replace(b, []byte(" /"), []byte(" https://"+labHost+"/"), 1))
	return len(b), err
}

func (c absoluteHTTPS) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// handshakes are the ways in which a server of WebSocket answers. Each ends with the
// server's first frame.
var handshakes = []struct {
	name   string
	answer func(c net.Conn)
}{
	{"at_once", func(c net.Conn) { io.WriteString(c, switching+"hello") }},
	{"late", func(c net.Conn) {
		time.Sleep(1200 * time.Millisecond) // after a second, the proxy watches the client
		io.WriteString(c, switching+"hello")
	}},
	{"after_interim_responses", func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+switching+"hello")
	}},
	{"byte_by_byte", func(c net.Conn) {
		for _, b := range []byte(switching + "hello") {
			c.Write([]byte{b})
		}
	}},
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

// TestWebSockets checks the opening handshake of RFC 6455 and what follows it, through
// every front that serves it, however the server answers. A client may send its first frame
// with the request.
func TestWebSockets(t *testing.T) {
	const handshake = "GET %s HTTP/1.1\r\nHost: " + labHost + "\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly"
	type front struct {
		name, target string
		open         func(t *testing.T, l lab) net.Conn
	}
	server := httptest.NewTLSServer(nil) // lends its certificate
	server.Close()
	fronts := []front{
		{"wss_in_absolute_form", "wss://" + labHost + "/chat", func(t *testing.T, l lab) net.Conn { return dialLab(t, l.proxy) }},
		{"ws_in_absolute_form", "ws://" + labHost + "/chat", func(t *testing.T, l lab) net.Conn { return dialLab(t, l.proxy) }},
		{"ws_with_port", "WS://" + labHost + ":8080/chat", func(t *testing.T, l lab) net.Conn { return dialLab(t, l.proxy) }},
		{"http_in_absolute_form", "http://" + labHost + "/chat", func(t *testing.T, l lab) net.Conn { return dialLab(t, l.proxy) }},
		{"web", "/chat", func(t *testing.T, l lab) net.Conn { return dialLab(t, l.web) }},
	}
	for _, w := range tunnels {
		fronts = append(fronts, front{w.name, "/chat", w.open})
	}
	for _, h := range handshakes {
		fronts := fronts
		if h.name == "late" {
			fronts = fronts[:6] // the tunnels are alike
		}
		serve := func(c net.Conn) {
			defer c.Close()
			br := bufio.NewReader(c)
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if req.RequestURI != "/chat" || !strings.Contains(req.Header.Get("Connection"), "Upgrade") || req.Header.Get("Upgrade") != "websocket" {
				t.Errorf("the server got %s with Connection %q and Upgrade %q", req.RequestURI, req.Header.Get("Connection"), req.Header.Get("Upgrade"))
			}
			h.answer(c)
			io.Copy(c, br)
		}
		plain := newLab(t, testkit.ServeConns(t, func(c *net.TCPConn) { serve(c) }).String(), nil)
		secure := newLab(t, testkit.ServeConns(t, func(c *net.TCPConn) { serve(tls.Server(c, server.TLS)) }).String(), rootsOf(server))
		for _, f := range fronts {
			l := plain
			if strings.HasPrefix(f.target, "wss:") {
				l = secure
			}
			t.Run(h.name+"/"+f.name, func(t *testing.T) {
				t.Parallel() // the late answers
				c := f.open(t, l)
				fmt.Fprintf(c, handshake, f.target)
				br := bufio.NewReader(c)
				for {
					resp, err := http.ReadResponse(br, nil)
					if err != nil {
						t.Fatal(err)
					}
					if resp.StatusCode == http.StatusSwitchingProtocols {
						break
					}
				}
				readText(t, br, "helloearly")
				for _, b := range []byte("frame") {
					c.Write([]byte{b})
					readText(t, br, string(b))
				}
				c.(*net.TCPConn).CloseWrite()
				if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil {
					t.Errorf("at the end: %q, error %v; want a clean end", rest, err)
				}
			})
		}
	}
}
