package podproxy_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/podproxy"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// Names that only the proxy of these tests knows.
const (
	controlName = "control.example.test"
	relayName   = "relay.example.test"
)

// connectProxy is an HTTP proxy in front of a test's control server and relay. It wants
// a password. Each name and port is that port of loopback.
type connectProxy struct {
	*httptest.Server
	mu       sync.Mutex
	connects []string // the targets, in order
	refused  []string // requests that are not a CONNECT, or that have no password
}

func newConnectProxy(t *testing.T) *connectProxy {
	p := &connectProxy{}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

// url returns the URL of the proxy with the password.
func (p *connectProxy) url() string { return strings.Replace(p.URL, "://", "://ann:s3cret@", 1) }

func (p *connectProxy) serve(w http.ResponseWriter, r *http.Request) {
	password := r.Header.Get("Proxy-Authorization") == "Basic "+base64.StdEncoding.EncodeToString([]byte("ann:s3cret"))
	p.mu.Lock()
	if r.Method == http.MethodConnect && password {
		p.connects = append(p.connects, r.Host)
	} else if !password {
		p.refused = append(p.refused, r.Method+" "+r.RequestURI)
	}
	p.mu.Unlock()
	switch {
	case !password:
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	case r.Method != http.MethodConnect: // the engine tries the control server's port 80 first
		w.WriteHeader(http.StatusForbidden)
		return
	}
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	out, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	in, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		out.Close()
		return
	}
	io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n")
	join(in, out)
}

// asked reports whether the proxy was asked for target.
func (p *connectProxy) asked(target string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.connects, target)
}

// join copies in both directions until one of them ends.
func join(a, b net.Conn) {
	defer a.Close()
	defer b.Close()
	done := make(chan struct{}, 2)
	pipe := func(dst, src net.Conn) {
		io.Copy(dst, src)
		done <- struct{}{}
	}
	go pipe(a, b)
	go pipe(b, a)
	<-done
}

var authority struct {
	once sync.Once
	cert tls.Certificate
	pem  []byte
	err  error
}

// overTLS starts a server on addr that speaks TLS, with a certificate that this process
// trusts, in front of the server at url. It returns the port.
func overTLS(t *testing.T, addr, url string) string {
	t.Helper()
	authority.once.Do(func() {
		names := []string{controlName}
		if a := outsideAddr(); a != "" {
			names = append(names, a)
		}
		authority.cert, authority.pem, authority.err = testnet.Certificate(names...)
	})
	if authority.err != nil {
		t.Fatal(authority.err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, authority.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file) // Go reads it once in a process, so there is one authority
	ln, err := tls.Listen("tcp", net.JoinHostPort(addr, "0"), &tls.Config{Certificates: []tls.Certificate{authority.cert}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				in.Close()
				continue
			}
			go join(in, out)
		}
	}()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// outsideAddr returns an IPv4 address of this host that is not loopback; empty if there
// is none.
func outsideAddr() string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return ""
}

// TestJoinsThroughProxy checks that a node reaches its control server and its relay
// through a proxy with a password, that NO_PROXY leaves one of them out, and that no
// connection through the tunnel uses the proxy.
func TestJoinsThroughProxy(t *testing.T) {
	for _, c := range []struct {
		name           string
		noProxy        string
		control, relay bool // it is reached through the proxy
		outside        bool // the control server has an address instead of a name
	}{
		{name: "all", control: true, relay: true},
		{name: "all_but_the_relay", noProxy: ".net,relay.example.test", control: true},
		{name: "all_but_the_control_server", noProxy: "OUTSIDE/32", relay: true, outside: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := testkit.Within(t, 2*time.Minute)
			nw, err := testnet.Start(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer nw.Close()
			relay := nw.NameRelay(relayName)
			host := controlName
			listen := "127.0.0.1"
			if c.outside {
				host = outsideAddr()
				listen = host
				if host == "" {
					t.Skip("SKIPPED, NOT TESTED: this host has no IPv4 address but loopback")
				}
			}
			control := net.JoinHostPort(host, overTLS(t, listen, nw.URL()))
			proxy := newConnectProxy(t)
			var out testkit.Buffer
			log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
			p := podproxy.New(podproxy.Options{
				Environ: []string{"HTTPS_PROXY=" + proxy.url(), "http_proxy=" + proxy.url(), "NO_PROXY=" + strings.ReplaceAll(c.noProxy, "OUTSIDE", host)},
				Name:    "node",
				Log:     log,
			})
			p.Check(ctx)
			cloud, err := nw.StartCloud(ctx, "router", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer cloud.Close()
			n, err := tailnet.Start(ctx, tailnet.Options{
				Hostname:   "node",
				ControlURL: "https://" + control,
				AuthKey:    testnet.AuthKey,
				Proxy:      p,
				Logger:     log,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			if err := n.Wait(ctx); err != nil {
				t.Fatalf("the node does not join: %v", err)
			}
			if c.relay {
				testkit.Eventually(t, "the relay through the proxy", func() bool { return proxy.asked(relay) })
			}
			testkit.Eventually(t, "a relay", func() bool { return n.Status().Home != "" })
			testkit.Eventually(t, "the route of the router", func() bool { return n.Routes(testnet.APIAddr) })
			target := netip.AddrPortFrom(testnet.APIAddr, 80)
			client := &http.Client{Transport: &http.Transport{
				DisableKeepAlives: true,
				DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return n.DialTCP(ctx, target) },
			}}
			resp, err := client.Get("http://" + target.String())
			if err != nil {
				t.Fatalf("through the tunnel: %v", err)
			}
			resp.Body.Close()
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			if got := slices.Contains(proxy.connects, control); got != c.control {
				t.Errorf("the proxy was asked for the control server: %v, want %v; it was asked for %q", got, c.control, proxy.connects)
			}
			if got := slices.Contains(proxy.connects, relay); got != c.relay {
				t.Errorf("the proxy was asked for the relay: %v, want %v; it was asked for %q", got, c.relay, proxy.connects)
			}
			for _, asked := range proxy.connects {
				if asked != control && asked != relay {
					t.Errorf("the proxy was asked for %s, which is neither the control server nor the relay", asked)
				}
			}
			if len(proxy.refused) > 0 {
				t.Errorf("the proxy got these without a password: %q", proxy.refused)
			}
			if text := out.String(); strings.Contains(text, "s3cret") {
				t.Error("the log shows the proxy's password")
			}
		})
	}
}
