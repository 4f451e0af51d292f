package podproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// choice returns the proxy that p chooses for a URL, as text; empty means none.
func choice(t *testing.T, p *Proxy, target string) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := p.For(u)
	if err != nil {
		t.Fatal(err)
	}
	if proxy == nil {
		return ""
	}
	return proxy.String()
}

// TestFor checks which variable counts for which request, and which requests NO_PROXY
// leaves out.
func TestFor(t *testing.T) {
	const control = "https://control.example.com/key"
	for _, c := range []struct {
		name    string
		environ string // separated by spaces
		target  string
		want    string
	}{
		{"nothing", "", control, ""},
		{"https", "HTTPS_PROXY=http://proxy:3128", control, "http://proxy:3128"},
		{"lower_case", "https_proxy=http://proxy:3128", control, "http://proxy:3128"},
		{"lower_case_first", "HTTPS_PROXY=http://upper:1 https_proxy=http://lower:1", control, "http://lower:1"},
		{"empty_lower_case", "HTTPS_PROXY=http://upper:1 https_proxy=", control, "http://upper:1"},
		{"no_scheme", "HTTPS_PROXY=proxy:3128", control, "http://proxy:3128"},
		{"address_without_scheme", "HTTPS_PROXY=192.0.2.1:3128", control, "http://192.0.2.1:3128"},
		{"no_port", "HTTPS_PROXY=http://proxy", control, "http://proxy"},
		{"path", "HTTPS_PROXY=http://proxy:3128/", control, "http://proxy:3128"},
		{"over_tls", "HTTPS_PROXY=https://proxy:443", control, "https://proxy:443"},
		{"ipv6", "HTTPS_PROXY=http://[2001:db8::1]:3128", control, "http://[2001:db8::1]:3128"},
		{"of_the_other_scheme", "HTTP_PROXY=http://proxy:3128", control, ""},
		{"http", "HTTP_PROXY=http://proxy:3128 HTTPS_PROXY=http://other:1", "http://control.example.com/key", "http://proxy:3128"},
		{"password_is_not_shown", "HTTPS_PROXY=http://ann:secret@proxy:3128", control, "http://proxy:3128"},
		{"password_without_encryption", "HTTP_PROXY=http://ann:secret@proxy:3128", "http://control.example.com/", "http://ann:secret@proxy:3128"},
		{"all_proxy", "ALL_PROXY=socks5h://proxy:1080", control, ""},
		{"no_proxy_name", "HTTPS_PROXY=proxy:1 NO_PROXY=control.example.com", control, ""},
		{"no_proxy_lower_case", "HTTPS_PROXY=proxy:1 no_proxy=.example.com", control, ""},
		{"no_proxy_other_name", "HTTPS_PROXY=proxy:1 NO_PROXY=relay.example.com,10.0.0.0/8", control, "http://proxy:1"},
		{"no_proxy_all", "HTTPS_PROXY=proxy:1 NO_PROXY=*", control, ""},
		{"no_proxy_prefix", "HTTPS_PROXY=proxy:1 NO_PROXY=10.0.0.0/8", "https://10.1.2.3/", ""},
		{"no_proxy_port", "HTTPS_PROXY=proxy:1 NO_PROXY=control.example.com:8443", "https://control.example.com:8443/", ""},
		{"loopback", "HTTPS_PROXY=proxy:1", "https://127.0.0.1:8443/", ""},
		{"localhost", "HTTPS_PROXY=proxy:1", "https://localhost:8443/", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New(Options{Environ: strings.Fields(c.environ)})
			if got := choice(t, p, c.target); got != c.want {
				t.Errorf("For(%s) = %q, want %q", c.target, got, c.want)
			}
		})
	}
	p := New(Options{Environ: []string{"HTTPS_PROXY= http://proxy:3128\n"}})
	if got := choice(t, p, control); got != "http://proxy:3128" {
		t.Errorf("with white space, For(%s) = %q, want http://proxy:3128", control, got)
	}
	if p := New(Options{Environ: []string{"HTTPS_PROXY=", "NO_PROXY=x", "PATH=/bin"}}); p != nil {
		t.Errorf("New without a proxy = %v, want nil", p)
	}
}

// TestMistakes checks that a variable that cannot be used is ignored with a warning that
// names it and does not show its value.
func TestMistakes(t *testing.T) {
	for value, want := range map[string]string{
		"http://ann:secret@":               "not a URL",
		"http://ann:secret@proxy:port":     "not a URL",
		"http://ann:secret@[fd00::1:3128":  "not a URL",
		"ann:%zz@proxy":                    "not a URL",
		"socks5://ann:secret@proxy:1080":   "the scheme is not supported: write the http:// or https:// URL of an HTTP proxy",
		"socks5h://proxy:1080":             "the scheme is not supported",
		"ftp://proxy:21":                   "the scheme is not supported",
		"http://ann:secret@proxy:0":        "the port is not valid",
		"http://ann:secret@proxy:65536":    "the port is not valid",
		"http://ann:secret@proxy with:1/x": "not a URL",
	} {
		var out bytes.Buffer
		p := New(Options{Environ: []string{"https_proxy=" + value}, Log: slog.New(slog.NewTextHandler(&out, nil))})
		p.Check(t.Context())
		p.Check(t.Context())
		if got := choice(t, p, "https://control.example.com/"); got != "" {
			t.Errorf("%q is used as %s", value, got)
		}
		if n := strings.Count(out.String(), `level=WARN msg="proxy variable ignored" variable=https_proxy`); n != 1 || !strings.Contains(out.String(), want) || strings.Contains(out.String(), "secret") {
			t.Errorf("of %q the log says\n%s\nwant one warning with %q, without the value", value, &out, want)
		}
	}
}

// TestOwnFleet checks that a proxy that leads back to the own fleet is not used, in
// each spelling, and that the log says so once.
func TestOwnFleet(t *testing.T) {
	hosts := filepath.Join(t.TempDir(), "hosts")
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n10.244.0.5\t"+hostname+".governing.net.svc.cluster.local\t"+hostname+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	names := map[string]string{
		"pando.net.svc":                   "10.96.0.7",
		"pando.net.svc.cluster.local":     "10.96.0.7",
		"pando":                           "10.96.0.7", // with the pod's search domains
		"pando.net":                       "10.96.0.7",
		"alias.example.com":               "10.96.0.7",
		"pando-replicas.net.svc":          "10.244.0.9",
		"me":                              "10.244.0.5",
		"squid.net.svc":                   "10.96.0.9",
		"other-pando.net.svc":             "10.96.0.10",
		"two.example.com":                 "10.96.0.9", // and another address, below
		"governing.net.svc.example.local": "10.96.0.30",
	}
	lookup := func(_ context.Context, name string) ([]netip.Addr, error) {
		a, ok := names[name]
		if !ok {
			return nil, errors.New("no such name")
		}
		list := []netip.Addr{netip.MustParseAddr(a)}
		if name == "two.example.com" {
			list = append(list, netip.MustParseAddr("::ffff:10.96.0.7"))
		}
		return list, nil
	}
	// The replica listens on port 1055 of all addresses, and on 9002 of ::1.
	own := func(a netip.AddrPort) bool {
		return a.Port() == 1055 && (a.Addr().String() == "127.0.0.1" || a.Addr().String() == "10.244.0.5") || a == netip.MustParseAddrPort("[::1]:9002")
	}
	for _, c := range []struct {
		proxy string
		want  bool // it leads back
	}{
		{"http://127.0.0.1:1055", true},
		{"http://127.0.0.2:1055", true},
		{"http://[::1]:1055", true}, // also if only IPv4 listens: the other family is a step away
		{"http://0.0.0.0:1055", true},
		{"http://[::]:1055", true},
		{"http://[::ffff:127.0.0.1]:1055", true},
		{"http://localhost:1055", true},
		{"http://LOCALHOST.:1055", true},
		{"localhost:1055", true},
		{"http://localhost:9002", true},
		{"http://localhost:3128", false}, // a proxy beside the replica
		{"http://127.0.0.1:3128", false},
		{"http://10.244.0.5:1055", true},
		{"http://10.244.0.5:3128", false},
		{"http://me:1055", true},
		{"http://10.96.0.7:1055", true},
		{"http://10.96.0.7", true}, // a port of the Service that leads to another one of the replica's
		{"http://10.244.0.9:1055", true},
		{"http://ann:secret@pando.net.svc:1055", true},
		{"http://Pando.NET.svc.:1055", true},
		{"http://pando.net.svc.cluster.local:1055", true},
		{"http://pando.net:1055", true},
		{"http://pando:1055", true},
		{"http://alias.example.com:8080", true},
		{"http://two.example.com:8080", true},
		{"https://pando.net.svc:443", true},
		{"http://governing.net.svc.example.local:1055", true},
		{"http://governing.net:1055", true},
		{"http://squid.net.svc:3128", false},
		{"http://other-pando.net.svc:1055", false},
		{"http://unknown.example.com:3128", false},
		{"http://10.96.0.9:1055", false},
	} {
		t.Run(c.proxy, func(t *testing.T) {
			var out bytes.Buffer
			p := New(Options{
				Environ:   []string{"HTTPS_PROXY=" + c.proxy},
				Own:       own,
				Fleet:     []string{"pando.net.svc", "pando-replicas.net.svc", "10.244.0.77"},
				Lookup:    lookup,
				HostsFile: hosts,
				Log:       slog.New(slog.NewTextHandler(&out, nil)),
			})
			p.Check(t.Context())
			p.Check(t.Context())
			if got := choice(t, p, "https://control.example.com/"); (got == "") != c.want {
				t.Errorf("For gives the proxy %q, want none: %v", got, c.want)
			}
			said := strings.Count(out.String(), `level=WARN msg="proxy variable leads back to this fleet" variable=HTTPS_PROXY`)
			used := strings.Count(out.String(), `level=INFO msg="reaching the control server through a proxy" variable=HTTPS_PROXY`)
			if c.want && (said != 1 || used != 0) || !c.want && (said != 0 || used != 1) || strings.Contains(out.String(), "secret") {
				t.Errorf("the log says\n%s", &out)
			}
		})
	}
}

// TestFleetWithoutDNS checks that a name is the fleet's although it cannot be looked
// up, and that what is known is kept when a later lookup fails.
func TestFleetWithoutDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		lookup := func(context.Context, string) ([]netip.Addr, error) {
			if down.Load() {
				return nil, errors.New("no answer")
			}
			return []netip.Addr{netip.MustParseAddr("10.96.0.7")}, nil
		}
		p := New(Options{
			Environ: []string{"HTTPS_PROXY=http://pando.net.svc:1055", "HTTP_PROXY=http://10.96.0.7:1055"},
			Fleet:   []string{"pando.net.svc"},
			Lookup:  lookup,
		})
		ctx, cancel := context.WithCancel(t.Context())
		p.Check(ctx)
		check := func(when, https, http string) {
			t.Helper()
			if a, b := choice(t, p, "https://c.example/"), choice(t, p, "http://c.example/"); a != https || b != http {
				t.Errorf("%s: the proxies are %q and %q, want %q and %q", when, a, b, https, http)
			}
		}
		check("without DNS", "", "http://10.96.0.7:1055")
		ended := make(chan bool)
		go func() {
			p.Follow(ctx)
			close(ended)
		}()
		down.Store(false)
		time.Sleep(followEvery) // of synctest's clock
		synctest.Wait()
		check("with DNS", "", "")
		down.Store(true)
		time.Sleep(followEvery) // of synctest's clock
		synctest.Wait()
		check("without DNS again", "", "")
		cancel()
		<-ended
	})
}

// TestReplicaAnswers checks that a proxy is not used any more once a replica of the own
// fleet has refused a CONNECT there. It stands behind a name that is not known to be the
// fleet's. Another proxy's refusal changes nothing.
func TestReplicaAnswers(t *testing.T) {
	for _, c := range []struct {
		name, field, value string
		own                bool
	}{
		{"same", "Proxy-Status", "egress-0; error=proxy_loop_detected", true},
		{"sibling", "Proxy-Status", `egress-12; error=destination_unavailable; details="not ready"`, true},
		{"quoted", "Proxy-Status", `"egress-1"; error=dns_error`, true},
		{"behind_another_proxy", "Proxy-Status", "egress-1; error=dns_error, squid", true},
		{"via", "Via", "1.1 squid, 1.1 egress-2 (pando)", true},
		{"other_fleet", "Proxy-Status", "gateway-0; error=destination_unavailable", false},
		{"name_that_begins_alike", "Proxy-Status", "egress-b; error=destination_unavailable", false},
		{"other_proxy", "Proxy-Status", "squid; error=dns_error", false},
		{"no_field", "Server", "squid", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			connects := 0
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				connects++
				if got := r.Header.Get("Via"); r.Method != http.MethodConnect || got != "1.1 egress-0" {
					t.Errorf("the proxy gets %s with Via %q, want a CONNECT that names the replica", r.Method, got)
				}
				w.Header().Set(c.field, c.value)
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			defer proxy.Close()
			var out bytes.Buffer
			p := New(Options{Environ: []string{"HTTPS_PROXY=" + proxy.URL}, Name: "egress-0", Log: slog.New(slog.NewTextHandler(&out, nil))})
			p.Check(t.Context())
			tr := p.Transport()
			defer tr.CloseIdleConnections()
			for range 2 {
				if choice(t, p, "https://control.invalid/") == "" {
					break
				}
				resp, err := (&http.Client{Transport: tr}).Get("https://control.invalid/")
				if err == nil {
					resp.Body.Close()
					t.Fatal("the proxy's refusal is an answer")
				}
			}
			if own := choice(t, p, "https://control.invalid/") == ""; own != c.own {
				t.Errorf("after the refusal the proxy is not used: %v, want %v", own, c.own)
			}
			if said := strings.Contains(out.String(), `level=WARN msg="proxy variable leads back to this fleet"`); said != c.own {
				t.Errorf("the log says\n%s", &out)
			}
			if want := map[bool]int{true: 1, false: 2}[c.own]; connects != want {
				t.Errorf("the proxy got %d requests, want %d", connects, want)
			}
		})
	}
}

// TestPassword checks that the proxy gets the user and the password of the URL, for
// encrypted requests and for others.
func TestPassword(t *testing.T) {
	target := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := r.Header.Get("Proxy-Authorization"); h != "" {
			t.Errorf("the target got the password %q", h)
		}
		io.WriteString(w, "through the tunnel")
	}))
	defer target.Close()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "Basic YW5uOnMzY3JldCE=" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			io.WriteString(w, "without a tunnel")
			return
		}
		out, err := net.Dial("tcp", target.Listener.Addr().String()) // whatever the name
		if err != nil {
			t.Error(err)
			return
		}
		defer out.Close()
		in, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer in.Close()
		io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go io.Copy(out, in)
		io.Copy(in, out)
	}))
	defer proxy.Close()
	withPassword := strings.Replace(proxy.URL, "://", "://ann:s3cret%21@", 1)
	p := New(Options{Environ: []string{"HTTPS_PROXY=" + withPassword, "HTTP_PROXY=" + withPassword}})
	tr := p.Transport()
	tr.TLSClientConfig = target.Client().Transport.(*http.Transport).TLSClientConfig
	defer tr.CloseIdleConnections()
	for target, want := range map[string]string{"https://example.com/": "through the tunnel", "http://control.invalid/": "without a tunnel"} {
		resp, err := (&http.Client{Transport: tr}).Get(target)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != want {
			t.Errorf("%s: %q, %v, want %q", target, body, err, want)
		}
	}
	if got := p.Authorization(&url.URL{Scheme: "http", Host: "other:1"}); got != "" {
		t.Errorf("another proxy would get %q", got)
	}
	if got := New(Options{Environ: []string{"HTTPS_PROXY=http://ann@proxy:1"}}).Authorization(&url.URL{Scheme: "http", Host: "proxy:1"}); got != "Basic YW5uOg==" {
		t.Errorf("the proxy of a user without a password gets %q", got)
	}
}

// TestNil checks that a nil Proxy chooses nothing, whatever the variables of the process
// are.
func TestNil(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	var p *Proxy
	p.Check(t.Context())
	p.Follow(t.Context())
	tr := p.Transport()
	r := httptest.NewRequest(http.MethodGet, "http://control.example.com/", nil)
	if u, err := tr.Proxy(r); u != nil || err != nil {
		t.Errorf("the transport of a nil Proxy uses %v, %v", u, err)
	}
	if got := p.Authorization(&url.URL{}); got != "" {
		t.Errorf("Authorization of a nil Proxy = %q", got)
	}
}
