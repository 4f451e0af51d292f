package gateway_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/testkit"
)

func TestNmap(t *testing.T) { userspace(t, sharedTailnet, nmap) }

// nmap runs the scripts with which nmap finds open proxies. They ask for
// www.google.com and look for its server. Here that name stands for an origin of the
// private site, and the namespace has no way out. The scripts must find a replica
// without rules open; otherwise what they say of the others would mean nothing.
func nmap(t *testing.T, w *world) {
	const path = "/usr/bin/nmap"
	if _, err := os.Stat(path); err != nil {
		t.Skip("nmap is not installed, and make deps does not install it: make nmap does, and runs this")
	}
	if !nstest.InNamespace() {
		t.Skip("SKIPPED, NOT TESTED: nmap must run where no packet can leave; run as root, which makes a namespace")
	}
	google := serveGoogle(t, w)
	users := filepath.Join(w.dir, "users")
	if err := os.WriteFile(users, []byte("ann:a long password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		edit  func(*config.Config)
		open  bool
		class string // of the flows that nmap causes
	}{
		{"open", func(*config.Config) {}, true, "ok"},
		{"rule_denies_the_client", func(c *config.Config) {
			c.Policy.Rules = []config.Rule{{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Action: "deny"}}
		}, false, "denied"},
		{"default_deny", func(c *config.Config) { c.Policy.Default = "deny" }, false, "denied"},
		{"users", func(c *config.Config) { c.Auth.UsersFile = users }, false, "unauthenticated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.start(t, func(cfg *config.Config) {
				cfg.Resolve.Hosts = map[string][]netip.Addr{"www.google.com": {google}}
				c.edit(cfg)
			})
			_, port, err := net.SplitHostPort(r.addr)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(testkit.Within(t, 3*time.Minute), path, "--unprivileged", "-sT", "-Pn", "-n", "-p", port,
				"--dns-servers", nmapResolver.Addr().String(), "--script", "+http-open-proxy,+socks-open-proxy", "127.0.0.1")
			cmd.Env = []string{"HOME=" + w.dir}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), port+"/tcp open") {
				t.Fatalf("nmap: %v, want it to find the port\n%s", err, out)
			}
			byHTTP := strings.Contains(string(out), "Potentially OPEN proxy") && strings.Contains(string(out), "Methods supported: GET HEAD CONNECTION")
			bySOCKS := strings.Contains(string(out), "status: open")
			if byHTTP != c.open || bySOCKS != c.open {
				t.Errorf("nmap finds HTTP open: %v, SOCKS open: %v; want %v and %v\n%s", byHTTP, bySOCKS, c.open, c.open, out)
			}
			for _, front := range []string{"http", "connect", "socks5"} { // nmap has tried each of them
				testkit.Eventually(t, "a flow of front "+front+" and class "+c.class, func() bool { return r.flows.has(front, c.class) })
			}
		})
	}
}

// has reports whether there is a flow line of a front and a class.
func (l *flowLog) has(front, class string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(f map[string]any) bool { return f["front"] == front && f["class"] == class })
}

// nmapResolver is the DNS server that nmap asks. Scripts can only use port 53.
var nmapResolver = netip.MustParseAddrPort("192.0.2.53:53")

// serveGoogle serves what the scripts look for at a new address of the private site,
// and has nmap's resolver answer with it.
func serveGoogle(t *testing.T, w *world) netip.Addr {
	t.Helper()
	addr := w.cloud.NewHost()
	w.cloud.Handle(netip.AddrPortFrom(addr, 80), func(c net.Conn) {
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nServer: gws\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	})
	if err := nstest.ServeDNS(nmapResolver, addr); err != nil {
		t.Fatal(err)
	}
	return addr
}
