package gateway_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// refusedAsWrong checks that the replica refuses a tunnel and a request because it is
// in the wrong tailnet, and that its probes fail.
func (r *replica) refusedAsWrong(t *testing.T) {
	t.Helper()
	for _, request := range []string{
		"CONNECT " + testnet.APIName + ":80 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://" + testnet.APIName + "/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	} {
		c := r.raw(t)
		fmt.Fprint(c, request)
		c.CloseWrite()
		answer, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "tailnet.expect") {
			t.Errorf("%.10s gets %s, %v; want 503 and the setting", request, answer, err)
		}
	}
	if code, body := r.admin(t, "/readyz"); code != 503 || !strings.Contains(body, "[-]expected-tailnet failed: the device is in the wrong tailnet: it is in ") {
		t.Errorf("GET /readyz: %d %s, want 503 and both tailnets", code, body)
	}
	if code, _ := r.admin(t, "/healthz"); code != 503 {
		t.Errorf("GET /healthz: %d, want 503", code)
	}
	if m := scrape(t, r); m["pando_ready"] != 0 || m["pando_tailnet_up"] != 0 {
		t.Errorf("pando_ready %v, pando_tailnet_up %v; want 0 and 0", m["pando_ready"], m["pando_tailnet_up"])
	}
	r.wants(t, nil, 24, "class: not_ready", "FAIL  login", "the device is in the wrong tailnet", "check who logged the device in")
}

// TestJoinedWrongTailnet checks that a replica which joins another tailnet than the
// expected one serves nothing, and does not keep requests waiting.
func TestJoinedWrongTailnet(t *testing.T) { userspace(t, sharedTailnet, joinedWrong) }

func joinedWrong(t *testing.T, w *world) {
	r := w.launch(t, t.Context(), func(c *config.Config) {
		withAdmin(c)
		c.Tailnet.Expect = "tail1234.ts.net"
		c.Tailnet.StartTimeout = config.Duration(time.Hour) // no request may wait for it
		c.Policy.Direct = "any"
	}, nil)
	t.Cleanup(func() {
		r.kill()
		if err := r.wait(); err != nil {
			t.Errorf("gateway: %v", err)
		}
	})
	r.flows.says(t, "it is in "+testnet.MagicSuffix+", and tailnet.expect is tail1234.ts.net")
	r.refusedAsWrong(t)
	if r.gw.Device().Warm() {
		t.Error("the device made WireGuard sessions in the wrong tailnet")
	}
}

// TestMovedToWrongTailnet checks that a replica which is moved to another tailnet
// while it runs serves nothing from then on, and serves again when it is back.
func TestMovedToWrongTailnet(t *testing.T) { userspace(t, ownTailnet, movedToWrong) }

func movedToWrong(t *testing.T, w *world) {
	target := w.countBytes()
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Tailnet.Hostname = "moved"
		c.Tailnet.Expect = strings.ToUpper(testnet.MagicSuffix)
	})
	ready := func() bool { code, _ := r.admin(t, "/readyz"); return code == 200 }
	testkit.Eventually(t, "the replica to be ready", ready)
	tunnel, _ := r.connectTo(t, target, "hello")
	tunnel.Close()
	if err := w.net.SendName("moved", "moved.tail5678.ts.net"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the replica to be unready", func() bool { return !ready() })
	r.flows.says(t, "it is in tail5678.ts.net, and tailnet.expect is "+testnet.MagicSuffix)
	r.refusedAsWrong(t)
	if err := w.net.SendName("moved", "moved."+testnet.MagicSuffix); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the replica to be ready again", ready)
	r.flows.says(t, "in the expected tailnet again")
	r.connectTo(t, target, "hello")
}
