package gateway_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testnet"
)

// ports are free ports of loopback, one for each name.
func freePorts(t *testing.T, n int) (list []string) {
	t.Helper()
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() // when all are known
		list = append(list, ln.Addr().String())
	}
	return list
}

// transparent: clients without a proxy setting, on ports of their own.
func transparent(t *testing.T, w *world) {
	free := freePorts(t, 4)
	echo := netip.AddrPortFrom(testnet.APIAddr, 7270)
	w.cloud.Handle(echo, func(c net.Conn) { // speaks first
		io.WriteString(c, "hello\n")
		io.Copy(c, c)
		c.(interface{ CloseWrite() error }).CloseWrite()
		c.Close()
	})
	r := w.start(t, func(c *config.Config) {
		c.SNI = []config.Port{{Listen: free[0]}}
		c.Web = []config.Port{{Listen: free[1]}}
		c.Forward = []config.Pipe{{Listen: free[2], Target: testnet.APIName + ":7270"}, {Listen: free[3], Target: "none." + testnet.Zone + ":1"}}
		c.Policy.Rules = []config.Rule{{Name: "not-this", Names: []string{"denied." + testnet.Zone}, Action: "deny"}}
	})
	to := func(i int) string { return "::" + free[i] } // curl goes there, whatever the URL says

	// TLS, verified to the end: the certificate is the API's own.
	if out := w.curl(t, "--connect-to", to(0), "https://"+testnet.APIName+"/x"); !strings.Contains(out, `"tls":true`) || !strings.Contains(out, `"path":"/x"`) {
		t.Errorf("sni: %s", out)
	}
	if f := r.flows.find(t, testnet.APIName+":443"); f["front"] != "sni" || f["class"] != "ok" || f["source"] != "zone "+testnet.Zone {
		t.Errorf("sni: flow line %v", f)
	}
	if out, err := w.tryCurl(t, "--connect-to", to(0), "https://denied."+testnet.Zone+"/"); err == nil || !strings.Contains(out, "alert") {
		t.Errorf("a denied name: %v %s", err, out)
	}
	if f := r.flows.find(t, "denied."+testnet.Zone); f["front"] != "sni" || f["class"] != "denied" || f["source"] != nil {
		t.Errorf("a denied name: flow line %v", f)
	}
	c, err := tls.Dial("tcp", free[0], &tls.Config{InsecureSkipVerify: true}) // with no name: 127.0.0.1 is none
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("no server name: %v", err)
		if err == nil {
			c.Close()
		}
	}

	// Plain HTTP, each request by its own Host, on one connection.
	out := w.curl(t, "-v", "--connect-to", to(1), "http://"+testnet.APIName+"/1", "http://"+testnet.APIName+"/2", "http://denied."+testnet.Zone+"/3", "http://"+testnet.APIName+"/4")
	if n := strings.Count(out, `"service":"private-api"`); n != 3 || !strings.Contains(out, "403 Forbidden") || !strings.Contains(out, "rule not-this") {
		t.Errorf("web: %d answers: %s", n, out)
	}
	if n := len(slices.DeleteFunc(r.flows.matching(testnet.APIName+":80"), func(f map[string]any) bool { return f["front"] != "host" })); n != 3 {
		t.Errorf("web: %d flow lines, want 3", n)
	}
	if out := w.curl(t, "-X", "POST", "--data", "body", "--connect-to", to(1), "http://"+originHost+"/echo"); out != "body" { // a port in the Host counts
		t.Errorf("web, another port: %s", out)
	}

	// A fixed port, whose target speaks first; half-close goes through.
	conn, err := net.Dial("tcp", free[2])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	expect(t, conn, []byte("hello\n"))
	fmt.Fprint(conn, "and back")
	conn.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(conn); err != nil || string(b) != "and back" {
		t.Errorf("forward: %q, %v", b, err)
	}
	if f := r.flows.find(t, testnet.APIName+":7270"); f["front"] != "forward" || f["class"] != "ok" {
		t.Errorf("forward: flow line %v", f)
	}
	conn, err = net.Dial("tcp", free[3])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a target that does not exist ends in %v, want a reset", err)
	}
	if f := r.flows.find(t, "none."+testnet.Zone); f["front"] != "forward" || f["class"] != "not_found" {
		t.Errorf("forward: flow line %v", f)
	}
}

// ask sends one query to the answerer.
func ask(t *testing.T, server, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype), server)
	if err != nil {
		t.Fatalf("%s over %s: %v", name, network, err)
	}
	return m
}

func dnsAnswerer(t *testing.T, w *world) {
	free := freePorts(t, 1)
	const alone = "alone.example"
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Listen.DNS = free[0]
		c.DNS.Fleet = []string{"10.96.0.7"}
		c.DNS.Zones = []config.ServedZone{{Suffix: testnet.Zone}, {Suffix: "real." + testnet.Zone, Answer: "real"}, {Suffix: alone}}
		c.Policy.Direct = "any"
		c.Policy.Rules = []config.Rule{{Names: []string{"denied." + testnet.Zone}, Action: "deny"}}
	})
	w.cloud.SetRecord("db.real."+testnet.Zone, testnet.APIAddr)
	defer w.cloud.SetRecord("db.real." + testnet.Zone)
	w.cloud.SetRecord("denied."+testnet.Zone, testnet.APIAddr)
	defer w.cloud.SetRecord("denied." + testnet.Zone)
	w.cloud.SetRecord("back."+testnet.Zone, netip.MustParseAddr("10.96.0.7"))
	defer w.cloud.SetRecord("back." + testnet.Zone)
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{testnet.APIName, dns.TypeA, "NOERROR 10.96.0.7"},
		{testnet.APIName, dns.TypeAAAA, "NOERROR"},
		{"db.real." + testnet.Zone, dns.TypeA, "NOERROR " + testnet.APIAddr.String()},
		{"none." + testnet.Zone, dns.TypeA, "NXDOMAIN"},
		{"denied." + testnet.Zone, dns.TypeA, "NXDOMAIN"},
		{"www.example.com", dns.TypeA, "REFUSED"},
		{"x." + alone, dns.TypeA, "NOERROR 10.96.0.7"}, // nobody knows; the fleet will say so
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, free[0], network, c.name, c.qtype)
			got := dns.RcodeToString[m.Rcode]
			for _, rr := range m.Answer {
				got += " " + rr.(*dns.A).A.String()
			}
			if got != c.want {
				t.Errorf("%s %s over %s: %s, want %s", c.name, dns.TypeToString[c.qtype], network, got, c.want)
			}
		}
	}
	if n := w.cloud.Queries("denied." + testnet.Zone); n > 0 {
		t.Errorf("a denied name was looked up %d times", n)
	}
	// A zone that only Pando serves is not asked of the pod's resolver, which
	// would ask Pando; and what leads back to the fleet ends here.
	for host, want := range map[string]string{"x." + alone: "no resolver", "back." + testnet.Zone: "forbidden address"} {
		w.curl(t, "-x", "http://"+r.addr, "http://"+host+"/")
		if f := r.flows.find(t, host); !strings.Contains(fmt.Sprint(f["err"]), want) {
			t.Errorf("%s: flow line %v, want %s", host, f, want)
		}
	}
	if n := value(t, r, `pando_dns_answers_total{rcode="REFUSED"}`); n != 2 {
		t.Errorf("%v refusals were counted, want 2", n)
	}
}

// namesFollow: a split-DNS route that is new applies within a second, and what
// was said of its names before is forgotten.
func namesFollow(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) { c.Tailnet.Hostname = "following" })
	const name = "api.late.example"
	w.cloud.SetRecord(name, testnet.APIAddr)
	defer w.cloud.SetRecord(name)
	get := func() string {
		return w.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "-x", "http://"+r.addr, "http://"+name+"/")
	}
	if code := get(); code != "502" {
		t.Fatalf("before the route: %s", code)
	}
	routes := map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}, "late.example": {testnet.DNSAddr.String()}}
	if err := w.net.SendDNSRoutes("following", routes); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the engine to know the route", func() bool {
		d, _ := r.gw.Node().DNS()
		return len(d.Routes["late.example"]) == 1
	})
	start := time.Now()
	eventually(t, "the name", func() bool { return get() == "200" })
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a new route applied after %v", took)
	} else {
		t.Logf("a new route applied %v after the engine knew", took.Round(time.Millisecond))
	}
}
