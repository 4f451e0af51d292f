package gateway_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestTransparentDrainSettles(t *testing.T) { eachMode(t, sharedTailnet, transparentDrainSettles) }

// transparentDrainSettles checks that new connections of clients without a proxy setting are served while a drain
// settles.
func transparentDrainSettles(t *testing.T, w *world) {
	host := w.origin.host
	f := newFronts(t)
	pipe := w.countBytes()
	r := w.start(t, func(c *config.Config) {
		f.serve(c, pipe)
		c.Drain.Settle = config.Duration(time.Hour) // until the test has looked at it
	})
	r.drain()
	r.flows.says(t, `"msg":"draining`)
	late := w.securePage(t, f.sni)
	late.ask(testnet.APIName, "/late")
	late.answer(t, 200)
	late.conn.Close()
	counted(t, dialPort(t, f.forward), 1)
	leaving := plainPage(t, f.web)
	leaving.ask(host, "/echo")
	if resp, _ := leaving.answer(t, 200); !resp.Close {
		t.Error("web: no Connection: close while it settles")
	}
	for _, network := range []string{"udp", "tcp"} {
		if m := ask(t, f.dns, network, testnet.APIName, dns.TypeA); len(m.Answer) != 1 {
			t.Errorf("dns over %s: %v", network, m)
		}
	}
}

func TestTransparentDrainWorkEnds(t *testing.T) { eachMode(t, sharedTailnet, transparentDrainWorkEnds) }

// transparentDrainWorkEnds checks that a drain waits for the work of clients without a proxy setting, and closes what
// is idle.
func transparentDrainWorkEnds(t *testing.T, w *world) {
	o := w.origin
	host := w.origin.host
	f := newFronts(t)
	pipe := w.countBytes()
	r := w.start(t, func(c *config.Config) {
		f.serve(c, pipe)
		c.Drain = config.Drain{Settle: config.Duration(100 * time.Millisecond), Timeout: config.Duration(time.Minute)}
	})
	secure, busy, tunnel := f.open(t, w)
	silent := dialPort(t, f.sni)
	idle := plainPage(t, f.web)
	idle.ask(host, "/echo")
	if resp, _ := idle.answer(t, 200); resp.Close {
		t.Error("web: Connection: close before the drain")
	}
	// Connections are accepted in order: once this one is served, silent is in.
	last := w.securePage(t, f.sni)
	last.ask(testnet.APIName, "/last")
	last.answer(t, 200)
	last.conn.Close()

	r.drain()
	r.flows.says(t, `"msg":"ports closed`)
	for _, addr := range []string{f.sni, f.web, f.forward, f.dns} {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.Errorf("%s is still open", addr)
		}
	}
	if m, _, err := (&dns.Client{}).Exchange(new(dns.Msg).SetQuestion(testnet.APIName+".", dns.TypeA), f.dns); err == nil {
		t.Errorf("dns over udp still answers: %v", m)
	}
	for what, c := range map[string]net.Conn{"idle": idle.conn, "silent": silent} {
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("the %s connection: %q, %v; want it closed", what, b, err)
		}
	}
	secure.ask(testnet.APIName, "/after")
	if _, body := secure.answer(t, 200); !strings.Contains(body, `"path":"/after"`) {
		t.Errorf("sni: %s", body)
	}
	secure.conn.Close()
	counted(t, tunnel, someBytes)
	close(o.hold)
	if resp, body := busy.answer(t, 200); !resp.Close || body != "held" {
		t.Errorf("web: %q, %v; want Connection: close", body, resp)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	got := map[string]int{}
	for _, f := range r.flows.matching("") {
		got[fmt.Sprint(f["front"], " ", f["class"])]++
	}
	if want := map[string]int{"sni ok": 2, "web ok": 2, "forward ok": 1}; !maps.Equal(got, want) {
		t.Errorf("flow lines %v, want %v", got, want)
	}
}

func TestTransparentDrainTimeEnds(t *testing.T) { eachMode(t, sharedTailnet, transparentDrainTimeEnds) }

// transparentDrainTimeEnds checks that a drain cuts the connections of clients without a proxy setting when its time
// is over.
func transparentDrainTimeEnds(t *testing.T, w *world) {
	o := w.origin
	defer close(o.hold)
	f := newFronts(t)
	pipe := w.countBytes()
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		f.serve(c, pipe)
		c.Drain = config.Drain{Timeout: config.Duration(200 * time.Millisecond)}
	})
	secure, busy, tunnel := f.open(t, w)
	tunnel.Write([]byte("x"))
	testkit.Eventually(t, "both tunnels", func() bool { return value(t, r, "pando_tunnels") == 2 })
	r.drain()
	for front, c := range map[string]net.Conn{"sni": secure.conn, "forward": tunnel, "web": busy.conn} {
		if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %q, %v; want a reset", front, b, err)
		}
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	for front, target := range map[string]string{"sni": ":443", "forward": pipe, "web": o.host} {
		if f := r.flows.find(t, target); f["front"] != front || f["class"] != "cut" || !strings.Contains(fmt.Sprint(f["err"], f["hint"]), "shutting down and the drain time") {
			t.Errorf("%s: flow line %v, want class cut and that the drain time is over", front, f)
		}
	}
}
