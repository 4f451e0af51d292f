package gateway_test

import (
	"bufio"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tailscale.com/kube/kubeclient"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// TestSilentAPIServer checks that an API server which accepts connections and
// never answers delays only the tailnet: probes are answered, requests get 503
// with Retry-After, and the boot timeout runs.
func TestSilentAPIServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // its queue takes what comes
	root := t.TempDir()
	dir := filepath.Join(root, "var/run/secrets/kubernetes.io/serviceaccount")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	other := httptest.NewTLSServer(nil) // for its certificate
	other.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Certificate().Raw})
	for name, data := range map[string][]byte{"namespace": []byte("ns"), "token": []byte("t"), "ca.crt": ca} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kubeclient.SetRootPathForTesting(root)
	t.Cleanup(func() { kubeclient.SetRootPathForTesting("") })
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	t.Setenv("KUBERNETES_SERVICE_HOST", host)
	t.Setenv("KUBERNETES_SERVICE_PORT", port)

	cfg := config.Default()
	cfg.Listen.Proxy = "127.0.0.1:0"
	cfg.Listen.Admin = "127.0.0.1:0"
	cfg.Tailnet.KubeSecret = "s"
	cfg.Tailnet.AuthKey = "tskey-auth-x"
	cfg.Tailnet.ControlURL = "http://127.0.0.1:1"
	cfg.Tailnet.StartTimeout = config.Duration(time.Second)
	cfg.Tailnet.BootTimeout = config.Duration(4 * time.Second)
	gw, err := gateway.New(t.Context(), cfg, gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- gw.Run(t.Context(), context.Background()) }()

	for path, want := range map[string]string{"/livez": "200", "/readyz": "503 Service Unavailable [-]tailnet failed: the tailnet is not up: reading the device's state"} {
		resp, err := http.Get("http://" + gw.AdminAddr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := resp.Status + " " + string(b); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	c, err := net.Dial("tcp", gw.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(readTime)) // the boot time ends before
	fmt.Fprint(c, "CONNECT 10.12.3.4:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a request: %v, %v", resp, err)
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "tailnet.bootTimeout: not on the tailnet after 4s") {
			t.Errorf("Run returned %v", err)
		}
		t.Logf("ended after %v: %v", time.Since(begin).Round(time.Millisecond), err)
	case <-time.After(20 * time.Second):
		t.Error("the boot time did not end it")
	}
}

// TestRoutesThatComeLate checks that a replica is not ready while no peer routes
// a resolver of the tailnet, but serves.
func TestRoutesThatComeLate(t *testing.T) {
	t.Parallel()
	w := tailnetWith(t, tailnet.Userspace, map[string][]string{"late.example": {"10.50.0.2"}})
	begin := time.Now()
	r := w.start(t, withAdmin)
	if out := w.curl(t, "-x", "http://"+r.addr, "http://"+testnet.APIName+"/"); !strings.Contains(out, "private-api") {
		t.Errorf("got %s", out)
	}
	t.Logf("serves after %v", time.Since(begin).Round(time.Millisecond))
	if code, body := r.admin(t, "/readyz"); code != 503 || !strings.Contains(body, "[-]routes failed: no peer routes 10.50.0.2, a resolver") {
		t.Errorf("readyz: %d %s", code, body)
	}
	if err := w.net.ApproveRoutes("cloud", testnet.Network, testnet.Network6, netip.MustParsePrefix("10.50.0.0/16")); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the replica to be ready", func() bool { code, _ := r.admin(t, "/readyz"); return code == 200 })
}

// TestUserspaceNeedsNoPrivilege checks that a user without any right can run a
// gateway in userspace mode.
func TestUserspaceNeedsNoPrivilege(t *testing.T) {
	if !nstest.AsNobody(t) {
		return
	}
	if os.Geteuid() == 0 {
		t.Fatal("the test runs as root")
	}
	w := ownTailnet(t, tailnet.Userspace)
	r := w.start(t, nil)
	for _, proxy := range []string{"http://", "socks5h://"} {
		if out := w.curl(t, "-x", proxy+r.addr, "https://"+testnet.APIName+"/"); !strings.Contains(out, `"tls":true`) {
			t.Errorf("%s: the API answered %s, want an answer over TLS", proxy, out)
		}
	}
}
