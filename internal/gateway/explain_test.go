package gateway_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/cli"
	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// explain runs pando explain against the replica and returns what it printed
// and its exit status.
func (r *replica) explain(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	args = append([]string{"explain", "--admin", r.gw.AdminAddr().String()}, args...)
	ctx := testkit.Within(t, 90*time.Second)
	err := cli.Run(ctx, ctx, cli.Env{Args: args, Stdout: &out, Stderr: &out})
	if err == nil {
		return out.String(), 0
	}
	code, printed := cli.ExitCode(err)
	if !printed {
		t.Fatalf("%q: %v", args, err)
	}
	return out.String(), code
}

// wants checks an explanation: its exit status, and that it has words.
func (r *replica) wants(t *testing.T, args []string, code int, words ...string) {
	t.Helper()
	begin := time.Now()
	out, got := r.explain(t, args...)
	t.Logf("pando explain %s → %d after %v\n%s", strings.Join(args, " "), got, time.Since(begin).Round(time.Millisecond), out)
	if got != code {
		t.Errorf("exit status %d, want %d", got, code)
	}
	for _, word := range words {
		if !strings.Contains(out, word) {
			t.Errorf("the explanation lacks %q", word)
		}
	}
}

// startExplained runs a replica with rules, zones and a host table to explain.
func (w *world) startExplained(t *testing.T) *replica {
	t.Helper()
	return w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Policy.Direct = "any"
		c.Policy.Rules = []config.Rule{
			{Name: "not-this", Names: []string{"denied." + testnet.Zone}, Action: "deny"},
			{Name: "not-them", From: []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24")}, Action: "deny"},
			{Name: "no-ipv6", Prefixes: []netip.Prefix{testnet.Network6}, Action: "deny"},
		}
		// The private DNS server refuses a zone that is not its own.
		c.Resolve.Zones = []config.Zone{{Suffix: "broken.example", Servers: []string{testnet.DNSAddr.String()}}}
		c.Resolve.Hosts = map[string][]netip.Addr{"typed.example": {testnet.APIAddr}}
	})
}

func TestExplain(t *testing.T) { eachMode(t, ownTailnet, explained) }

// explained makes each fault that resolving and connecting can have, and checks
// that explain names it; and a target without a fault.
func explained(t *testing.T, w *world) {
	r := w.startExplained(t)
	r.wants(t, []string{"--ca", w.ca(), "https://" + testnet.APIName + "/x"}, 0,
		"on gateway."+testnet.MagicSuffix, testnet.APIAddr.String()+" from zone "+testnet.Zone, "valid for", "record: no entry", "resolver "+testnet.DNSAddr.String(), "NOERROR",
		"the name has an owner", "cloud."+testnet.MagicSuffix+", subnet router of 10.12.0.0/16, direct ", "last handshake", testnet.APIAddr.String()+":443 answered",
		"TLS 1.3, for "+testnet.APIName, "expires 20", ", verified", "HTTP/1.1 200 OK", "No failure.")
	testkit.Eventually(t, "a cached answer", func() bool {
		out, _ := r.explain(t, testnet.APIName+":80")
		return strings.Contains(out, ", cached")
	})
	r.wants(t, []string{"http://typed.example/"}, 0, "from hosts", "hosts: "+testnet.APIAddr.String())
	r.wants(t, []string{"cloud:1"}, 17, "magicdns: 100.64.", "(cloud."+testnet.MagicSuffix+")", "a search domain of the tailnet completes the name")
	r.wants(t, []string{"cloud." + testnet.MagicSuffix + ":1"}, 17, "from magicdns", ", peer, direct")
	r.wants(t, []string{"none." + testnet.Zone + ":443"}, 14, "class: not_found", "FAIL  resolve", "NXDOMAIN", "source: zone "+testnet.Zone)
	r.wants(t, []string{"api.broken.example:443"}, 15, "class: resolve_failed", "FAIL  resolve", "answered REFUSED", "zone broken.example")
	r.wants(t, []string{testnet.APIName + ":9"}, 17, "class: refused", "FAIL  connect", "nothing listens")
	if broadcast := broadcastAddr(t, w); broadcast != "" { // the kernel connects to none, and sends nothing
		r.wants(t, []string{broadcast + ":80"}, 18, "class: unreachable", "is dialled directly", "FAIL  connect")
	}
	r.wants(t, []string{w.vanished(t, r) + ":80"}, 19, "class: timeout", "FAIL  connect", "subnet router of 10.78.0.0/16", "no handshake yet")

	// As JSON, for programs.
	out, code := r.explain(t, "--json", testnet.APIName+":9")
	var report struct {
		Class, Device string
		Stages        []struct{ Name, Status string }
		Flow          struct{ Addr, Path, Source string }
		Carriers      []struct{ Name, Kind, Route string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 17 || report.Class != "refused" || report.Flow.Path != "tailnet" ||
		len(report.Carriers) != 1 || report.Carriers[0].Kind != "subnet router" || report.Stages[len(report.Stages)-1].Status != "fail" {
		t.Errorf("as JSON: %d, %v, %+v\n%s", code, err, report, out)
	}
	if n := r.flows.count(); n != 0 {
		t.Errorf("%d flow lines, want none for explanations", n)
	}
}

// vanished returns an address whose router has joined, and has left without a
// word to any peer.
func (w *world) vanished(t *testing.T, r *replica) string {
	t.Helper()
	node, err := w.net.StartCloud(testkit.Within(t, time.Minute), "vanished", nil)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("10.78.0.1")
	if err := w.net.ApproveRoutes("vanished", netip.MustParsePrefix("10.78.0.0/16")); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the route", func() bool { return r.gw.Device().Routes(addr) })
	node.Close()
	t.Cleanup(func() { w.net.ApproveRoutes("vanished") }) // so that a warm-up does not wait for it
	return addr.String()
}

func TestExplainMistakes(t *testing.T) { userspace(t, sharedTailnet, explainedMistakes) }

// explainedMistakes checks that explain says what is wrong with its arguments.
func explainedMistakes(t *testing.T, w *world) {
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	api := "https://" + testnet.APIName + "/x"
	r := w.startExplained(t)
	r.wants(t, []string{testnet.APIAddr6.String() + ":80"}, 11, "too many colons")
	r.wants(t, []string{"https:/" + testnet.APIName}, 11, "write a URL such as")
	r.wants(t, []string{"http://" + testnet.APIName + "/a b"}, 11, "white space")
	r.wants(t, []string{"[fe80::1%eth0]:80"}, 11, "leave out the zone")
	r.wants(t, []string{"http://10.300.1.1/"}, 11, "class: bad_request", "FAIL  target", "ends in a number")
	r.wants(t, []string{"ftp://" + testnet.APIName + "/"}, 11, `unknown scheme "ftp"`)
	r.wants(t, []string{"--client", "me", api}, 11, "write the client's address")
	r.wants(t, []string{"--ca", junk, api}, 11, "class: bad_request", "authorities in PEM")
}

func TestExplainPolicy(t *testing.T) { userspace(t, sharedTailnet, explainedPolicy) }

// explainedPolicy checks that explain names the rule that denies a target.
func explainedPolicy(t *testing.T, w *world) {
	w.cloud.SetRecord("both."+testnet.Zone, testnet.APIAddr, testnet.APIAddr6)
	r := w.startExplained(t)
	r.wants(t, []string{"[" + testnet.APIAddr6.String() + "]:80"}, 13, "rule no-ipv6 denies it")
	r.wants(t, []string{"both." + testnet.Zone + ":80"}, 0, "WARN  policy (address)", testnet.APIAddr.String()+":80 answered")
	r.wants(t, []string{"denied." + testnet.Zone + ":443"}, 13, "class: denied", "FAIL  policy (name)", "denied by rule not-this")
	r.wants(t, []string{"--client", "10.244.9.1", testnet.APIName + ":443"}, 13, "class: denied", "for a client at 10.244.9.1", "rule not-them")
	r.wants(t, []string{"http://169.254.169.254/"}, 13, "class: denied", "FAIL  policy (address)", "never reachable through a proxy")
}

func TestExplainTLSAndHTTP(t *testing.T) { userspace(t, sharedTailnet, explainedTalk) }

// explainedTalk makes each fault that a target's TLS and HTTP can have, and
// checks that explain names it.
func explainedTalk(t *testing.T, w *world) {
	// serve returns the port of a target, with its colon.
	serve := func(h func(net.Conn)) string { return fmt.Sprint(":", w.cloud.Serve(h).Port()) }
	wrong, _, err := testnet.Certificate("other." + testnet.Zone)
	if err != nil {
		t.Fatal(err)
	}
	w.cloud.SetRecord("other."+testnet.Zone, testnet.APIAddr)
	otherName := serve(func(c net.Conn) { // a certificate for another name
		defer c.Close()
		tls.Server(c, &tls.Config{Certificates: []tls.Certificate{wrong}}).Handshake()
		io.Copy(io.Discard, c)
	})
	closes := serve(func(c net.Conn) { c.Close() })
	wantsCertificate := serve(func(c net.Conn) { // from the client
		defer c.Close()
		tls.Server(c, &tls.Config{Certificates: []tls.Certificate{wrong}, ClientAuth: tls.RequireAnyClientCert}).Handshake()
	})
	busy := serve(func(c net.Conn) { // an answer before the answer, and one without an end
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		io.Copy(io.Discard, c)
	})
	endlessHead := serve(func(c net.Conn) {
		defer c.Close()
		for {
			if _, err := c.Write(bytes.Repeat([]byte("x"), 32<<10)); err != nil {
				return
			}
		}
	})
	mail := serve(func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "220 mail\r\n")
		io.Copy(io.Discard, c)
	})
	r := w.startExplained(t)
	api := "https://" + testnet.APIName
	r.wants(t, []string{api + "/x"}, 0, "WARN  tls", "not verified", "--ca") // its authority is not the system's
	r.wants(t, []string{"--ca", "/dev/null", api + "/x"}, 0, "WARN  tls")    // as if none were given
	r.wants(t, []string{"--ca", w.ca(), api + otherName + "/"}, 28, "class: bad_certificate", "not verified", "for other."+testnet.Zone)
	r.wants(t, []string{api + closes + "/"}, 20, "class: reset", "FAIL  tls", "load balancer")
	r.wants(t, []string{"--tls", testnet.APIName + mail}, 21, "class: bad_response", "FAIL  tls", "speaks another protocol")
	r.wants(t, []string{"--http", testnet.APIName + mail}, 21, "class: bad_response", "FAIL  http")
	r.wants(t, []string{"--http", testnet.APIName + endlessHead}, 21, "class: bad_response", "head of the answer is larger than 1 MiB")
	r.wants(t, []string{"https://other." + testnet.Zone + wantsCertificate + "/"}, 21, "class: bad_response", "the target asks for a client certificate")
	r.wants(t, []string{"http://bob:secret@" + testnet.APIName + busy + "/"}, 0, "http://bob:xxxxx@", "WARN  http", "HTTP/1.1 503 Busy", "look at what is marked WARN")
}

func TestExplainGuards(t *testing.T) { userspace(t, sharedTailnet, explainGuards) }

// explainGuards checks that a browser cannot ask: the question may name any
// client.
func explainGuards(t *testing.T, w *world) {
	r := w.start(t, withAdmin)
	url := "http://" + r.gw.AdminAddr().String() + "/explain"
	for _, tc := range []struct {
		name, kind, body string
		code             int
	}{
		{"a form of a page in a browser", "text/plain", "{}", 415},
		{"no JSON", "application/json", "{", 400},
		{"unknown field", "application/json", `{"url":"x"}`, 400},
	} {
		resp, err := http.Post(url, tc.kind, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.code {
			t.Errorf("%s: status %s, want %d", tc.name, resp.Status, tc.code)
		}
	}
}

// broadcastAddr returns a broadcast address of a network of this host.
func broadcastAddr(t *testing.T, w *world) string {
	t.Helper()
	if nstest.InNamespace() {
		return addBroadcast(t)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			if ones, _ := n.Mask.Size(); ones < 31 {
				ip := n.IP.To4()
				for i := range ip {
					ip[i] |= ^n.Mask[len(n.Mask)-4+i]
				}
				return ip.String()
			}
		}
	}
	fmt.Println("this host has no network but loopback; kernel mode's namespace tests what is unreachable")
	return ""
}
