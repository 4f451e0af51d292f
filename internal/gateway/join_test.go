package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/stock"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// newTailnet is a world without any device yet. Its gateways are in userspace
// mode.
func newTailnet(t *testing.T) *world {
	t.Helper()
	w := &world{mode: tailnet.Userspace, dir: t.TempDir()}
	var err error
	w.net, err = testnet.Start(testkit.Within(t, 60*time.Second), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.net.Close() })
	return w
}

// device returns the one called name, as the control server lists it.
func (w *world) device(t *testing.T, name string) testnet.Device {
	t.Helper()
	all := w.net.Devices()
	i := slices.IndexFunc(all, func(d testnet.Device) bool { return d.Name == name })
	if i < 0 {
		t.Fatalf("no device is called %s: %+v", name, all)
	}
	return all[i]
}

// TestOAuthClient checks that the secret of an OAuth client, given as such or as
// an auth key, creates the key by which a replica logs in, with its tags.
func TestOAuthClient(t *testing.T) {
	t.Parallel()
	w := newTailnet(t)
	tags := []string{"tag:k8s", "tag:egress"}
	for _, c := range []struct {
		name string
		set  func(*config.Tailnet, config.Secret)
	}{
		{"client_secret", func(c *config.Tailnet, s config.Secret) { c.ClientSecret = s }},
		{"auth_key", func(c *config.Tailnet, s config.Secret) { c.AuthKey = s }},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, minted := keyAPI(t, tags)
			hostname := strings.ReplaceAll(c.name, "_", "-")
			w.start(t, func(cfg *config.Config) {
				cfg.Tailnet.Hostname = hostname
				cfg.Tailnet.Tags = tags
				cfg.Tailnet.AuthKey = ""
				c.set(&cfg.Tailnet, config.Secret("tskey-client-x?baseURL="+url))
			})
			if got := w.device(t, hostname).Tags; !slices.Equal(got, tags) {
				t.Errorf("the device asks for tags %q, want %q", got, tags)
			}
			if n := minted.Load(); n != 1 {
				t.Errorf("%d keys were minted, want 1", n)
			}
		})
	}
}

// keyAPI stands in for the API that creates auth keys. It wants these tags.
func keyAPI(t *testing.T, tags []string) (url string, minted *atomic.Int32) {
	minted = new(atomic.Int32)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/oauth/token", func(w http.ResponseWriter, r *http.Request) {
		if _, secret, _ := r.BasicAuth(); secret != "tskey-client-x" && r.FormValue("client_secret") != "tskey-client-x" {
			http.Error(w, `{"message":"API token invalid"}`, http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"tskey-api-y","token_type":"Bearer","expires_in":3600}`)
	})
	mux.HandleFunc("POST /api/v2/tailnet/-/keys", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Capabilities struct {
				Devices struct{ Create struct{ Tags []string } }
			}
		}
		err := json.NewDecoder(r.Body).Decode(&body)
		if got := body.Capabilities.Devices.Create.Tags; err != nil || r.Header.Get("Authorization") != "Bearer tskey-api-y" || !slices.Equal(got, tags) {
			t.Errorf("a key was asked for with tags %q, %v; want %q and the token", got, err, tags)
			http.Error(w, `{"message":"no"}`, http.StatusBadRequest)
			return
		}
		minted.Add(1)
		json.NewEncoder(w).Encode(map[string]string{"id": "k1", "key": testnet.AuthKey})
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, minted
}

// TestEarlyConnection checks a client that connects before the control server is
// there, as when a whole cluster starts: it waits, and reaches a name that only
// the tailnet knows.
func TestEarlyConnection(t *testing.T) {
	t.Parallel()
	w := newTailnet(t)
	w.net.SetDNSRoutes(map[string][]string{testnet.Zone: {testnet.DNSAddr.String()}})
	w.net.StopControl()

	cfg := config.Default()
	cfg.Listen.Proxy = "127.0.0.1:0"
	cfg.Listen.Admin = "127.0.0.1:0"
	cfg.Tailnet.Hostname = "early"
	cfg.Tailnet.ControlURL = w.net.URL()
	cfg.Tailnet.AuthKey = testnet.AuthKey
	cfg.Tailnet.StartTimeout = config.Duration(45 * time.Second)
	cfg.Drain = config.Drain{}
	gw, err := gateway.New(t.Context(), cfg, gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- gw.Run(ctx, ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	c, err := net.Dial("tcp", gw.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	target := testnet.APIName + ":80"
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	c.SetReadDeadline(time.Now().Add(2 * time.Second))
	br := bufio.NewReader(c)
	if b, err := br.Peek(1); err == nil {
		t.Fatalf("it was answered without a tailnet: %q", b)
	}
	r := &replica{gw: gw}
	if code, body := r.admin(t, "/readyz"); code != 503 || !strings.Contains(body, "[-]tailnet failed: ") || !strings.Contains(body, "connection refused") {
		t.Errorf("without a tailnet: %d %s", code, body)
	}
	if value(t, r, "pando_tailnet_up") != 0 || value(t, r, "pando_ready") != 0 {
		t.Error("the metrics say that it is up, or ready")
	}
	begin := time.Now()
	if err := w.net.StartControl(); err != nil {
		t.Fatal(err)
	}
	cloud, err := w.net.StartCloud(testkit.Within(t, 30*time.Second), "cloud", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.Close()
	c.SetReadDeadline(time.Now().Add(50 * time.Second))
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s\n%s", resp.Status, b)
	}
	t.Logf("200, %v after the control server came", time.Since(begin).Round(time.Millisecond))
	fmt.Fprintf(c, "GET /hello HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", testnet.APIName)
	resp, err = http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("through the tailnet: %v, %v", resp, err)
	}
	testkit.Eventually(t, "the replica to be ready", func() bool { code, _ := r.admin(t, "/readyz"); return code == 200 })
	testkit.Eventually(t, "the metrics to say so", func() bool { // the state of the tailnet may be a second old
		m := scrape(t, r)
		return m["pando_tailnet_up"] == 1 && m["pando_ready"] == 1
	})
}

// TestAdvertisedRoute checks that a replica which advertises routes (TS_ROUTES)
// carries connections of other nodes there. The route is an address of this host,
// so nothing leaves the host.
func TestAdvertisedRoute(t *testing.T) {
	t.Parallel()
	w := newTailnet(t)
	addr := netip.MustParseAddr(hostAddr(t, w))
	ln, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with its listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "behind the replica")
			c.Close()
		}
	}()
	route := netip.PrefixFrom(addr, addr.BitLen())
	fromEnv, _, err := stock.FromEnv([]string{"TS_ROUTES=" + route.String()})
	if err != nil {
		t.Fatal(err)
	}
	w.start(t, func(c *config.Config) {
		c.Tailnet.Hostname = "router"
		c.Tailnet.AdvertiseRoutes = fromEnv.Tailnet.AdvertiseRoutes
	})
	testkit.Eventually(t, "the route on the control server", func() bool {
		return slices.Equal(w.device(t, "router").Routes, []netip.Prefix{route})
	})
	if err := w.net.ApproveRoutes("router", route); err != nil {
		t.Fatal(err)
	}
	peer, err := tailnet.Start(t.Context(), tailnet.Options{Hostname: "peer", ControlURL: w.net.URL(), AuthKey: testnet.AuthKey})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := peer.Wait(testkit.Within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the route at the peer", func() bool { return peer.Routes(addr) })
	c, err := peer.DialTCP(testkit.Within(t, 20*time.Second), ln.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if b, err := io.ReadAll(c); string(b) != "behind the replica" {
		t.Errorf("through the route: %q, %v", b, err)
	}
}

// TestLoginURL checks that a replica which waits for a person shows the URL of its
// login to local processes and in the log, and nowhere else.
func TestLoginURL(t *testing.T) {
	w := newTailnet(t)
	w.net.RequirePerson()
	r := w.launch(t, t.Context(), func(c *config.Config) {
		withAdmin(c)
		c.Tailnet.AuthKey = ""
		c.Tailnet.StartTimeout = config.Duration(time.Millisecond)
	}, nil)
	t.Cleanup(func() {
		r.kill()
		if err := r.wait(); err != nil {
			t.Errorf("gateway: %v", err)
		}
	})
	page := w.net.URL() + "/auth/"
	testkit.Eventually(t, "the status to show the URL", func() bool {
		_, body := r.admin(t, "/status")
		return strings.Contains(body, `"loginURL": "`+page)
	})
	r.flows.says(t, page)
	for _, path := range []string{"/livez", "/readyz", "/readyz?verbose", "/healthz", "/metrics"} {
		if _, body := r.admin(t, path); strings.Contains(body, "/auth/") {
			t.Errorf("GET %s shows the URL of the login:\n%s", path, body)
		}
	}
	if code, body := r.admin(t, "/readyz"); code != 503 || !strings.Contains(body, "the URL that the log and pando status show") {
		t.Errorf("GET /readyz: %d %s, want 503 and where the URL is", code, body)
	}
	c := r.raw(t)
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", testnet.APIName)
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || strings.Contains(string(answer), "/auth/") {
		t.Errorf("a client gets %s, %v; want 503 without the URL", answer, err)
	}
}
