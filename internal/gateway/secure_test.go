package gateway_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/stock"
	"github.com/pandoproxy/pando/internal/testnet"
)

// ask sends one request over a new connection, and returns the status and the body.
func (r *replica) ask(t *testing.T, request string) (int, string) {
	t.Helper()
	c := r.raw(t)
	io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(body)
}

func TestAbsoluteHTTPS(t *testing.T) { userspace(t, sharedTailnet, absoluteHTTPS) }

// absoluteHTTPS checks requests for https:// URLs to the proxy itself: what the drop-in
// does with them, and what the policy and the log say. TestBadRequests has the refusal.
func absoluteHTTPS(t *testing.T, w *world) {
	get := func(url string) string { return "GET " + url + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" }
	api := "https://" + testnet.APIName

	dropIn, _, err := stock.FromEnv([]string{"TS_USERSPACE=true"})
	if err != nil {
		t.Fatal(err)
	}
	r := w.start(t, func(c *config.Config) {
		c.HTTP = dropIn.HTTP
		c.HTTP.CAFile = w.ca()
		c.Policy.Rules = []config.Rule{{Name: "not-443", Names: []string{"denied." + testnet.Zone}, Ports: []config.PortRange{{First: 443, Last: 443}}, Action: "deny"}}
	})
	if status, body := r.ask(t, get(api+"/x")); status != 200 || !strings.Contains(body, `"tls":true`) || !strings.Contains(body, `"path":"/x"`) {
		t.Errorf("status %d, %q; want the API's answer over TLS", status, body)
	}
	checkFlow(t, "a request over TLS", r.flows.find(t, testnet.APIName+":443"), fields{
		"front": "http", "class": "ok", "status": float64(200), "path": "tailnet", "method": "GET",
		"source": "zone " + testnet.Zone, "addr": testnet.APIAddr.String() + ":443",
	})
	if status, body := r.ask(t, get("https://denied."+testnet.Zone+"/")); status != 403 || !strings.Contains(body, "rule not-443") {
		t.Errorf("a denied name: status %d, %q; want 403", status, body)
	}
	if status, body := r.ask(t, get(api+":80/")); status != 502 || !strings.Contains(body, "does not speak TLS") {
		t.Errorf("a port without TLS: status %d, %q; want 502", status, body)
	}
	checkFlow(t, "a port without TLS", r.flows.find(t, testnet.APIName+":80"), fields{"class": "bad_response"})

	untrusting := w.start(t, func(c *config.Config) { c.HTTP.OriginTLS = true })
	if status, body := untrusting.ask(t, get(api+"/")); status != 502 || !strings.Contains(body, "bad_certificate") || !strings.Contains(body, "http.caFile") {
		t.Errorf("an authority that is not trusted: status %d, %q; want 502 and the setting", status, body)
	}
	checkFlow(t, "an authority that is not trusted", untrusting.flows.find(t, testnet.APIName+":443"), fields{"class": "bad_certificate"})
}
