package testnet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/tailnet"
)

// TestPrivateAPI checks that a node joins and reaches the private API, which exists
// only inside the cloud node.
func TestPrivateAPI(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	n.SetDNSRoutes(map[string][]string{Zone: {DNSAddr.String()}})
	cloud, err := n.StartCloud(ctx, "cloud", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.Close()
	node, err := tailnet.Start(ctx, tailnet.Options{Hostname: "replica", ControlURL: n.URL(), AuthKey: AuthKey})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	if err := node.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if err := eventually(ctx, "routes", func() bool { return node.Routes(APIAddr) }); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cloud.CA)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return node.DialTCP(ctx, netip.AddrPortFrom(APIAddr, 443))
		},
	}}
	resp, err := get(ctx, client, "https://"+APIName+"/v1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var r Reply
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		t.Fatal(err)
	}
	if !r.TLS || r.Path != "/v1" || r.Device != node.Addrs()[0].String() {
		t.Errorf("reply %+v, want TLS, path /v1 and device %v", r, node.Addrs()[0])
	}
	client.CloseIdleConnections()
}

func get(ctx context.Context, c *http.Client, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return c.Do(req)
}
