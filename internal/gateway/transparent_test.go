package gateway_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	values "github.com/pandoproxy/pando/internal/config/value"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestTransparentFronts(t *testing.T) { eachMode(t, sharedTailnet, transparent) }

// transparent checks clients without a proxy setting, on ports of their own.
func transparent(t *testing.T, w *world) {
	free := testkit.FreePorts(t, 4)
	echo := testnet.NamePort(w.cloud.Serve(func(c net.Conn) { // speaks first
		io.WriteString(c, "hello\n")
		io.Copy(c, c)
		c.(interface{ CloseWrite() error }).CloseWrite()
		c.Close()
	}))
	r := w.start(t, func(c *config.Config) {
		c.SNI = []config.FrontPort{{Listen: free[0]}}
		c.Web = []config.FrontPort{{Listen: free[1], AnyPort: true}}
		c.Forward = []config.ForwardPort{{Listen: free[2], Target: parseTarget(echo)}, {Listen: free[3], Target: parseTarget("none." + testnet.Zone + ":1")}}
		c.Policy.Rules = []config.Rule{{Name: "not-this", Names: []string{"denied." + testnet.Zone}, Action: "deny"}}
	})
	transparentSNI(t, w, r, free[0])
	transparentWeb(t, w, r, free[1])
	transparentForward(t, r, free[2], echo)
	forwardToNothing(t, r, free[3])
}

// curlAt makes curl connect to addr, whatever the URL says.
func curlAt(addr string) string { return "::" + addr }

// transparentSNI checks TLS clients of the port at addr.
func transparentSNI(t *testing.T, w *world, r *replica, addr string) {
	t.Helper()
	// TLS, verified to the end: the certificate is the API's own.
	if out := w.curl(t, "--connect-to", curlAt(addr), "https://"+testnet.APIName+"/x"); !strings.Contains(out, `"tls":true`) || !strings.Contains(out, `"path":"/x"`) {
		t.Errorf("sni: %s", out)
	}
	if f := r.flows.find(t, testnet.APIName+":443"); f["front"] != "sni" || f["class"] != "ok" || f["source"] != "zone "+testnet.Zone {
		t.Errorf("sni: flow line %v", f)
	}
	if out, err := w.tryCurl(t, "--connect-to", curlAt(addr), "https://denied."+testnet.Zone+"/"); err == nil || !strings.Contains(out, "alert") {
		t.Errorf("a denied name: %v %s", err, out)
	}
	if f := r.flows.find(t, "denied."+testnet.Zone); f["front"] != "sni" || f["class"] != "denied" || f["source"] != nil {
		t.Errorf("a denied name: flow line %v", f)
	}
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // with no name: 127.0.0.1 is none
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("no server name: %v", err)
		if err == nil {
			c.Close()
		}
	}
}

// transparentWeb checks HTTP clients of the port at addr: each request goes by its
// own Host, on one connection.
func transparentWeb(t *testing.T, w *world, r *replica, addr string) {
	t.Helper()
	out := w.curl(t, "-v", "--connect-to", curlAt(addr), "http://"+testnet.APIName+"/1", "http://"+testnet.APIName+"/2", "http://denied."+testnet.Zone+"/3", "http://"+testnet.APIName+"/4")
	if n := strings.Count(out, `"service":"private-api"`); n != 3 || !strings.Contains(out, "403 Denied by Pando policy") || !strings.Contains(out, "rule not-this") {
		t.Errorf("web: %d answers: %s", n, out)
	}
	testkit.Eventually(t, "three flow lines of web", func() bool { // the last one follows the answer
		return len(slices.DeleteFunc(r.flows.matching(testnet.APIName+":80"), func(f map[string]any) bool { return f["front"] != "web" })) == 3
	})
	if out := w.curl(t, "-X", "POST", "--data", "body", "--connect-to", curlAt(addr), "http://"+w.origin.host+"/echo"); out != "body" { // a port in the Host counts
		t.Errorf("web, another port: %s", out)
	}
}

// transparentForward checks the port at addr, whose target echo speaks first, and
// that half-close goes through.
func transparentForward(t *testing.T, r *replica, addr, echo string) {
	t.Helper()
	conn := dialPort(t, addr)
	expect(t, conn, []byte("hello\n"))
	fmt.Fprint(conn, "and back")
	conn.CloseWrite()
	if b, err := io.ReadAll(conn); err != nil || string(b) != "and back" {
		t.Errorf("forward: %q, %v", b, err)
	}
	if f := r.flows.find(t, echo); f["front"] != "forward" || f["class"] != "ok" {
		t.Errorf("forward: flow line %v", f)
	}
}

// forwardToNothing checks the port at addr, whose target's name does not exist.
func forwardToNothing(t *testing.T, r *replica, addr string) {
	t.Helper()
	conn := dialPort(t, addr)
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a target that does not exist ends in %v, want a reset", err)
	}
	if f := r.flows.find(t, "none."+testnet.Zone); f["front"] != "forward" || f["class"] != "not_found" {
		t.Errorf("forward: flow line %v", f)
	}
}

// fronts are the addresses of a replica for clients without a proxy setting.
type fronts struct{ sni, web, forward, dns string }

func newFronts(t *testing.T) fronts {
	t.Helper()
	p := testkit.FreePorts(t, 4)
	return fronts{p[0], p[1], p[2], p[3]}
}

// serve configures c to listen there. Connections to forward go to target.
func (f fronts) serve(c *config.Config, target string) {
	c.SNI = []config.FrontPort{{Listen: f.sni}}
	c.Web = []config.FrontPort{{Listen: f.web, AnyPort: true}}
	c.Forward = []config.ForwardPort{{Listen: f.forward, Target: parseTarget(target)}}
	c.Listen.DNS = f.dns
	c.DNS.Fleet = []config.FleetHost{{Addr: netip.MustParseAddr("10.96.0.7")}}
	c.DNS.Zones = []config.ServedZone{{Suffix: testnet.Zone}}
}

// open opens a connection to each port: secure has had an answer, busy waits for the
// origin until its hold is closed, and nothing has moved over tunnel.
func (f fronts) open(t *testing.T, w *world) (secure, busy page, tunnel *net.TCPConn) {
	t.Helper()
	secure = w.securePage(t, f.sni)
	secure.ask(testnet.APIName, "/")
	secure.answer(t, 200)
	busy = plainPage(t, f.web)
	busy.ask(w.origin.host, "/hold")
	<-w.origin.held
	return secure, busy, dialPort(t, f.forward)
}

// parseTarget reads host:port.
func parseTarget(s string) config.Target {
	target, err := values.ParseTarget(s)
	if err != nil {
		panic(err)
	}
	return target
}

// dialPort opens a connection to one of a replica's ports.
func dialPort(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(readTime))
	return c.(*net.TCPConn)
}

// page is a client's HTTP connection, which it keeps open.
type page struct {
	conn net.Conn
	br   *bufio.Reader
}

// plainPage opens one to addr, and securePage one over TLS to the private API,
// whose certificate is verified.
func plainPage(t *testing.T, addr string) page {
	t.Helper()
	c := dialPort(t, addr)
	return page{c, bufio.NewReader(c)}
}

func (w *world) securePage(t *testing.T, addr string) page {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.cloud.CA)
	c := tls.Client(dialPort(t, addr), &tls.Config{ServerName: testnet.APIName, RootCAs: roots})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return page{c, bufio.NewReader(c)}
}

// answer reads a response, which must have the given status, and its body.
func (p page) answer(t *testing.T, status int) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(p.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s, want %d: %q, %v", resp.Status, status, b, err)
	}
	return resp, string(b)
}

// counted sends n bytes to a target of countBytes, and ends well.
func counted(t *testing.T, c *net.TCPConn, n int) {
	t.Helper()
	c.Write(make([]byte, n))
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != fmt.Sprint("got ", n) {
		t.Errorf("forward: %q, %v; want got %d", b, err, n)
	}
}

func TestSNILeadsBack(t *testing.T) { eachMode(t, sharedTailnet, leadsBack) }

// leadsBack checks that a client of a name which leads back to Pando itself, or
// to the fleet, gets an alert: its connection does not go round in a circle.
func leadsBack(t *testing.T, w *world) {
	const fleet = "10.96.0.7"
	host := hostAddr(t, w)
	everywhere := testkit.FreePorts(t, 1)[0]
	there := testkit.FreePorts(t, 1)[0]
	here := func(listen, port string) config.FrontPort { // its target's port is its own
		_, n, _ := net.SplitHostPort(port)
		number, _ := strconv.Atoi(n)
		return config.FrontPort{Listen: net.JoinHostPort(listen, n), Port: number}
	}
	r := w.start(t, func(c *config.Config) {
		c.Policy.Direct = "any"
		c.DNS.Fleet = []config.FleetHost{{Addr: netip.MustParseAddr(fleet)}}
		c.SNI = []config.FrontPort{here("0.0.0.0", everywhere), here(host, there)}
	})
	there = net.JoinHostPort(host, there[strings.LastIndexByte(there, ':')+1:])
	for _, c := range []struct{ name, addr, port string }{
		{"the_fleet", fleet, everywhere},
		{"a_port_of_all_addresses", host, everywhere},
		{"a_port_of_one_address", host, there},
		{"its_tailnet_address", r.gw.Device().Addrs()[0].String(), everywhere},
		{"its_tailnet_address_in_ipv6", r.gw.Device().Addrs()[1].String(), everywhere},
		{"an_ipv6_spelling_of_it", "64:ff9b::" + host, everywhere},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := strings.ReplaceAll(c.name, "_", "-") + "." + testnet.Zone
			w.cloud.SetRecord(name, netip.MustParseAddr(c.addr))
			defer w.cloud.SetRecord(name)
			err := tls.Client(dialPort(t, c.port), &tls.Config{ServerName: name}).Handshake()
			if err == nil || !strings.Contains(err.Error(), "access denied") {
				t.Errorf("the client saw %v", err)
			}
			f := r.flows.find(t, name)
			if f["front"] != "sni" || f["class"] != "denied" || !strings.Contains(fmt.Sprint(f["err"]), "forbidden address") || f["dial_ms"] != nil {
				t.Errorf("flow line %v, want a denied sni flow that was not dialled", f)
			}
		})
	}
	r.kill()
	if err := r.wait(); err != nil { // no line is written after that
		t.Error(err)
	}
	if n := r.flows.count(); n != 6 {
		t.Errorf("%d flow lines, want 6: one for each client", n)
	}
}
