package gateway_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

func TestExplainReplicaThatIsWell(t *testing.T) { userspace(t, ownTailnet, explainedWell) }

// explainedWell checks what explain says of a replica without a fault but its clock, its key and then its clock again.
func explainedWell(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Tailnet.Hostname = "explained" // a name of its own at the control server
	})
	testkit.Eventually(t, "the control server", func() bool { return r.gw.Device().Status().Control })
	r.wants(t, nil, 0, "ok    login", "explained."+testnet.MagicSuffix, "control server connected", "home region loop", "last heard",
		"cloud."+testnet.MagicSuffix+", subnet router of 10.12.0.0/16, direct", testnet.Zone+": resolver "+testnet.DNSAddr.String()+" answers", "WARN  clock", "No failure, but")
	if err := w.net.SetKeyExpiry("explained", time.Now().Add(48*time.Hour)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the key's expiry", func() bool { return !r.gw.Device().Status().KeyExpiry.IsZero() })
	r.wants(t, nil, 0, "WARN  key", "in 48h")
	if err := w.net.SendClock("explained", time.Now()); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the clock", func() bool { return r.gw.Device().Status().ClockAhead != nil })
	r.wants(t, nil, 0, "ok    clock", "s of the control server's")
	if err := w.net.SendClock("explained", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the clock", func() bool { a := r.gw.Device().Status().ClockAhead; return a != nil && *a > time.Minute })
	r.wants(t, nil, 24, "class: not_ready", "FAIL  clock", "1h0m0s behind the control server's")
}

func TestExplainRoutesOff(t *testing.T) { userspace(t, sharedTailnet, explainedRoutesOff) }

// explainedRoutesOff checks what explain says of a replica that uses no route of peers.
func explainedRoutesOff(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Tailnet.AcceptRoutes = false
	})
	r.wants(t, nil, 15, "carries 10.12.0.0/16 fd12:cafe::/64, which this replica does not use: tailnet.acceptRoutes is off", "what to do: tailnet.acceptRoutes is off")
	r.wants(t, []string{testnet.APIAddr.String() + ":80"}, 16, "what to do: tailnet.acceptRoutes is off")
}

func TestExplainReportMode(t *testing.T) { userspace(t, sharedTailnet, explainedReportMode) }

// explainedReportMode checks what explain says of a rule that only reports.
func explainedReportMode(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Policy.Mode = "report"
		c.Policy.Rules = []config.Rule{{Name: "not-it", Names: []string{"cloud." + testnet.MagicSuffix}, Action: "deny"}}
	})
	r.wants(t, []string{"cloud." + testnet.MagicSuffix + ":1"}, 17, "WARN  policy (name)", "allowed only because policy.mode is report")
}

func TestExplainResolverGone(t *testing.T) { userspace(t, sharedTailnet, explainedResolverGone) }

// explainedResolverGone checks what explain says of a zone whose resolver gives no answer.
func explainedResolverGone(t *testing.T, w *world) {
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Resolve.Zones = []config.Zone{{Suffix: "broken.example", Servers: []string{testnet.DNSAddr.String()}}}
	})
	r.wants(t, nil, 15, "class: resolve_failed", "no resolver for broken.example answers", testnet.Zone+": resolver")
}

func TestExplainPasswordAndLimit(t *testing.T) {
	userspace(t, sharedTailnet, explainedPasswordAndLimit)
}

// explainedPasswordAndLimit checks what explain says of the proxy port: a wrong password, and no room.
func explainedPasswordAndLimit(t *testing.T, w *world) {
	target := testnet.APIName + ":80"
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("alice:horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Auth.UsersFile = users
		c.Limits.Connections = 1
	})
	r.wants(t, []string{"--user", "alice:wrong", target}, 12, "class: unauthenticated", "FAIL  port")
	r.wants(t, []string{"--user", "alice:horse", target}, 0, "is let in")
	r.wants(t, []string{target}, 0, "WARN  port", "must send a user")
	r.raw(t)
	testkit.Eventually(t, "the only place to be taken", func() bool { return value(t, r, "pando_connections") == 1 })
	r.wants(t, []string{target}, 23, "class: overloaded", "limits.connections")
	if n := value(t, r, `pando_limit_refusals_total{limit="connections"}`); n != 0 {
		t.Errorf("explaining counts as %v refusals", n)
	}
}

func TestExplainLeaving(t *testing.T) { userspace(t, sharedTailnet, explainedLeaving) }

// explainedLeaving checks what explain says of a replica that is shutting down.
func explainedLeaving(t *testing.T, w *world) {
	target := testnet.APIName + ":80"
	r := w.start(t, func(c *config.Config) {
		withAdmin(c)
		c.Drain.Settle = config.Duration(30 * time.Second)
	})
	r.drain()
	testkit.Eventually(t, "the drain", func() bool { return value(t, r, "pando_draining") == 1 })
	r.wants(t, []string{target}, 25, "class: cut", "the replica is shutting down")
	r.wants(t, nil, 25, "class: cut", "FAIL  not-draining")
	r.kill()
}

func TestExplainNotOnTheTailnet(t *testing.T) { userspace(t, sharedTailnet, explainedNotOnTheTailnet) }

// explainedNotOnTheTailnet checks what explain says of a replica whose auth key is wrong.
func explainedNotOnTheTailnet(t *testing.T, w *world) {
	target := testnet.APIName + ":80"
	cfg := config.Default()
	cfg.Listen.Proxy = "127.0.0.1:0"
	cfg.Listen.Admin = "127.0.0.1:0"
	cfg.Tailnet.Mode = string(w.mode)
	cfg.Tailnet.ControlURL = w.net.URL()
	cfg.Tailnet.AuthKey = "tskey-auth-wrong"
	cfg.Tailnet.StartTimeout = config.Duration(200 * time.Millisecond)
	cfg.Policy.Direct = "any"
	gw, err := gateway.New(t.Context(), cfg, gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- gw.Run(ctx, ctx) }()
	r := &replica{gw: gw}
	r.wants(t, []string{target}, 24, "class: not_ready", "FAIL  tailnet")
	testkit.Eventually(t, "the reason", func() bool { out, _ := r.explain(t); return strings.Contains(out, "invalid") })
	r.wants(t, nil, 24, "class: not_ready", "FAIL  login", "check the auth key")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
