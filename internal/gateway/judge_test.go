package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestIPv6OnlyName(t *testing.T) { eachMode(t, sharedGateway, ipv6Only) }

func ipv6Only(t *testing.T, w *world) {
	out := w.curl(t, "-x", "http://"+w.addr, "http://v6only."+testnet.Zone+"/six")
	if !strings.Contains(out, `"path":"/six"`) {
		t.Errorf("the API said %s", out)
	}
	checkFlow(t, "v6only", w.flows.find(t, "v6only."), fields{"addr": "[" + testnet.APIAddr6.String() + "]:80"})
}

func TestMagicDNSName(t *testing.T) { eachMode(t, sharedGateway, magicDNSName) }

// magicDNSName reaches the cloud node itself, by its short and its whole name.
func magicDNSName(t *testing.T, w *world) {
	for _, name := range []string{"cloud." + testnet.MagicSuffix, "cloud"} {
		c := w.raw(t)
		fmt.Fprintf(c, "CONNECT %s:1 HTTP/1.1\r\nHost: x\r\n\r\n", name)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		// Nothing listens on port 1, so the answer is the node's own refusal.
		if resp.StatusCode != 502 || !strings.Contains(resp.Header.Get("Proxy-Status"), "connection_refused") {
			t.Errorf("%s: got %s, Proxy-Status %s; want 502 and connection_refused", name, resp.Status, resp.Header.Get("Proxy-Status"))
		}
		checkFlow(t, name, w.flows.find(t, name+":1"), fields{"source": "magicdns"})
	}
}

func TestForbiddenSpellings(t *testing.T) { userspace(t, sharedGateway, forbiddenSpellings) }

func forbiddenSpellings(t *testing.T, w *world) {
	w.cloud.SetRecord("evil."+testnet.Zone, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254"))
	spellings := []string{
		"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "127.0.0.1.",
		"[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]",
		"169.254.169.254", "2852039166", "[::ffff:a9fe:a9fe]", "[fe80::1]", "[fd00:ec2::254]", "224.0.0.1", "[ff02::1]", "0.0.0.0", "[::]", "0",
		"255.255.255.255", "[fd7a:115c:a1e0:b1a:0:7:7f00:1]", "100.100.100.100", "evil." + testnet.Zone,
	}
	for _, host := range spellings {
		c := w.raw(t)
		c.Write([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(host))})
		fmt.Fprintf(c, "%s\x00\x50", host)
		expect(t, c, []byte{5, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0}) // not allowed
		c = w.raw(t)
		fmt.Fprintf(c, "\x04\x01\x00\x50\x00\x00\x00\x01\x00%s\x00", host)
		expect(t, c, []byte{0, 0x5b})
		c.Close() // the flow ends with it
		testkit.Eventually(t, "the denied flow of SOCKS4 to "+host, func() bool {
			return slices.ContainsFunc(w.flows.matching(strings.Trim(host, "[]")), func(f map[string]any) bool { return f["front"] == "socks4" && f["class"] == "denied" })
		})
	}
	for _, host := range spellings {
		c := w.raw(t)
		fmt.Fprintf(c, "CONNECT %s:80 HTTP/1.1\r\nHost: x\r\n\r\n", host)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 403 {
			b, _ := io.ReadAll(resp.Body)
			t.Errorf("CONNECT %s:80: %s\n%s", host, resp.Status, b)
		}
	}
}

func TestLoop(t *testing.T) { userspace(t, sharedGateway, loop) }

func loop(t *testing.T, w *world) {
	c := w.raw(t)
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\nVia: 1.1 a, 1.1 gateway\r\n\r\n", w.origin.host)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 502 || !strings.Contains(resp.Header.Get("Proxy-Status"), "proxy_loop_detected") {
		t.Errorf("got %v, %v; want 502 and proxy_loop_detected", resp, err)
	}
}

func TestOtherProtocols(t *testing.T) { userspace(t, sharedGateway, otherProtocols) }

func otherProtocols(t *testing.T, w *world) {
	c := w.raw(t)
	c.Write([]byte{0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0})
	expect(t, c, []byte{21, 3, 1, 0, 2, 2}) // a TLS alert
}

func TestOneLinePerFlow(t *testing.T) { userspace(t, sharedTailnet, oneLinePerFlow) }

func oneLinePerFlow(t *testing.T, w *world) {
	r := w.start(t, nil)
	c := r.raw(t)
	br := bufio.NewReader(c)
	for range 3 {
		fmt.Fprintf(c, "GET http://%s/echo HTTP/1.1\r\nHost: x\r\n\r\n", w.origin.host)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadAll(resp.Body)
	}
	c.Close()
	w.curl(t, "-x", "http://"+r.addr, "https://"+testnet.APIName+"/")
	w.curl(t, "-x", "socks5h://"+r.addr, "https://"+testnet.APIName+"/")
	r.kill()
	if err := r.wait(); err != nil { // no line is written after that
		t.Error(err)
	}
	if n := r.flows.count(); n != 5 {
		t.Errorf("3 requests and 2 tunnels made %d lines, want 5", n)
	}
}

func TestPolicyRules(t *testing.T) { userspace(t, sharedTailnet, policyRules) }

func policyRules(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Policy.Rules = []config.Rule{
			{Name: "no-secrets", Names: []string{"*.secret." + testnet.Zone}, Action: "deny"},
			{Name: "api", Names: []string{testnet.APIName}, Ports: []config.PortRange{{First: 443, Last: 443}}, Action: "allow"},
			{Name: "rest", Action: "deny"},
		}
	})
	w.curl(t, "-x", "http://"+r.addr, "https://"+testnet.APIName+"/")
	checkFlow(t, "an allowed name", r.flows.find(t, testnet.APIName+":443"), fields{"rule": "api"})
	before := w.cloud.Queries("db.secret." + testnet.Zone)
	for target, rule := range map[string]string{
		"http://db.secret." + testnet.Zone + "/": "no-secrets", "http://" + testnet.APIName + "/": "rest", "http://" + testnet.APIAddr.String() + ":443/": "rest",
	} {
		out := w.curl(t, "-i", "-x", "http://"+r.addr, target)
		if !strings.Contains(out, "HTTP/1.1 403") || !strings.Contains(out, "rule "+rule+" of Pando's policy denies it") {
			t.Errorf("%s: got\n%s\nwant 403 and rule %s", target, out, rule)
		}
	}
	if w.cloud.Queries("db.secret."+testnet.Zone) != before {
		t.Error("a denied name was looked up")
	}
}

func TestPolicyShortName(t *testing.T) { userspace(t, sharedTailnet, policyShortName) }

// A short name is judged by the whole name, too, that a search domain makes of it.
func policyShortName(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Policy.Rules = []config.Rule{{Name: "no-devices", Names: []string{"*." + testnet.MagicSuffix}, Action: "deny"}}
	})
	for _, host := range []string{"cloud." + testnet.MagicSuffix, "cloud"} {
		if out := w.curl(t, "-i", "-x", "http://"+r.addr, "http://"+host+":1/"); !strings.Contains(out, "HTTP/1.1 403") || !strings.Contains(out, "rule no-devices") {
			t.Errorf("%s: got\n%s\nwant 403 and rule no-devices", host, out)
		}
	}
}

func TestPolicyReport(t *testing.T) { userspace(t, sharedTailnet, policyReport) }

func policyReport(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Policy.Mode = "report"
		c.Policy.Rules = []config.Rule{{Name: "nothing", Action: "deny"}}
	})
	w.curl(t, "-x", "http://"+r.addr, "https://"+testnet.APIName+"/")
	checkFlow(t, "in report mode", r.flows.find(t, testnet.APIName+":443"), fields{"status": 200.0, "would_deny": "rule nothing"})
	if out := w.curl(t, "-i", "-x", "http://"+r.addr, "http://127.0.0.1/"); !strings.Contains(out, "HTTP/1.1 403") {
		t.Errorf("report mode lets through what is never allowed:\n%s", out)
	}
}

func TestPolicyDirectAndOwnListener(t *testing.T) { eachMode(t, sharedTailnet, policyDirect) }

// policyDirect reaches a listener of this host through the host's own network,
// and never the replica itself.
func policyDirect(t *testing.T, w *world) {
	host := hostAddr(t, w)
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "direct")
			c.Close()
		}
	}()
	r := w.start(t, func(c *config.Config) {
		c.Policy.Direct = "any"
		c.Listen.Proxy = "0.0.0.0:0"
	})
	c, br := r.connectTo(t, ln.Addr().String(), "")
	if b, err := io.ReadAll(br); err != nil || string(b) != "direct" {
		t.Errorf("the listener sent %q, %v; want direct", b, err)
	}
	c.Close()
	checkFlow(t, "the listener", r.flows.find(t, ln.Addr().String()), fields{"path": "direct"})
	_, port, _ := net.SplitHostPort(r.addr)
	for _, own := range []string{host, r.gw.Device().Addrs()[0].String(), "[" + r.gw.Device().Addrs()[1].String() + "]"} {
		c := r.raw(t)
		fmt.Fprintf(c, "CONNECT %s:%s HTTP/1.1\r\nHost: x\r\n\r\n", own, port)
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 403 {
			t.Errorf("CONNECT to the replica itself at %s: %v, %v", own, resp, err)
		}
	}
	// A private address is not public.
	r.kill()
	r.wait()
	r = w.start(t, func(c *config.Config) { c.Policy.Direct = "public" })
	c = r.raw(t)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", ln.Addr())
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 502 {
		t.Errorf("direct: public let %s through: %v, %v", ln.Addr(), resp, err)
	}
}

func TestHostTable(t *testing.T) { userspace(t, sharedTailnet, hostTable) }

func hostTable(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		c.Resolve.Hosts = map[string][]netip.Addr{"api.example.com": {testnet.APIAddr}, "*.apps.example.com": {testnet.APIAddr}}
	})
	for _, name := range []string{"api.example.com", "API.Example.COM.", "one.apps.example.com", "a.b.apps.example.com"} {
		if out := w.curl(t, "-x", "http://"+r.addr, "http://"+name+"/table"); !strings.Contains(out, `"path":"/table"`) {
			t.Errorf("%s: the API answered %s, want the path /table", name, out)
		}
	}
	checkFlow(t, "a wildcard", r.flows.find(t, "one.apps"), fields{"source": "hosts"})
}

func TestAuthentication(t *testing.T) { userspace(t, sharedTailnet, authentication) }

func authentication(t *testing.T, w *world) {
	users := filepath.Join(w.dir, "users")
	if err := os.WriteFile(users, []byte("# people\nalice:correct:horse\nbob:s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := w.start(t, func(c *config.Config) { c.Auth.UsersFile = users })
	url := "http://" + testnet.APIName + "/"
	for _, proxy := range []string{"http://alice:correct%3Ahorse@", "socks5h://bob:s3cret@"} {
		if out := w.curl(t, "-x", proxy+r.addr, url); !strings.Contains(out, "private-api") {
			t.Errorf("%s: got %s, want the API's answer", proxy, out)
		}
	}
	out := w.curl(t, "-i", "-x", "http://"+r.addr, url)
	if !strings.Contains(out, "HTTP/1.1 407") || !strings.Contains(out, "Proxy-Authenticate: Basic realm=") {
		t.Errorf("without credentials:\n%s", out)
	}
	for _, proxy := range []string{"http://alice:wrong@", "http://carol:s3cret@"} {
		if out := w.curl(t, "-i", "-x", proxy+r.addr, url); !strings.Contains(out, "HTTP/1.1 407") {
			t.Errorf("%s: got\n%s\nwant 407", proxy, out)
		}
	}
	for _, proxy := range []string{"socks5h://", "socks5h://bob:wrong@", "socks4a://", "socks4a://bob@"} {
		if out, err := w.tryCurl(t, "-x", proxy+r.addr, url); err == nil {
			t.Errorf("%s: got %s, want a failure", proxy, out)
		}
	}
	c := r.raw(t)
	c.Write([]byte("\x04\x01\x00\x50\x0a\x0c\x03\x04bob\x00"))
	expect(t, c, []byte{0, 93, 0, 0, 0, 0, 0, 0})
	checkFlow(t, "SOCKS4", r.flows.findFront(t, "socks4", testnet.APIName), fields{"class": "unauthenticated", "user": nil})
	checkFlow(t, "a user", r.flows.find(t, testnet.APIName), fields{"user": "alice"})
	r.flows.mu.Lock()
	defer r.flows.mu.Unlock()
	for _, secret := range []string{"correct:horse", "s3cret", testnet.AuthKey} {
		if strings.Contains(r.flows.all.String(), secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
}
