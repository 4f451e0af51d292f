package gateway_test

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// configMap is a directory as the kubelet mounts a ConfigMap: the file is a
// link into ..data, which is a link to the directory of a version.
type configMap struct {
	dir string
	n   int
}

func (m *configMap) file() string { return filepath.Join(m.dir, "pando.yaml") }

func (m *configMap) write(t *testing.T, text string) {
	t.Helper()
	m.n++
	version := fmt.Sprintf("..v%d", m.n)
	next := filepath.Join(m.dir, "..next")
	for _, err := range []error{
		os.Mkdir(filepath.Join(m.dir, version), 0o755),
		os.WriteFile(filepath.Join(m.dir, version, "pando.yaml"), []byte(text), 0o644),
		os.Symlink(version, next),
		os.Rename(next, filepath.Join(m.dir, "..data")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	os.Symlink("..data/pando.yaml", m.file()) // it is there but for the first time
}

func TestReload(t *testing.T) { userspace(t, sharedTailnet, reload) }

func reload(t *testing.T, w *world) {
	m := &configMap{dir: t.TempDir()}
	m.write(t, "log: {level: info}\n")
	hangup := make(chan os.Signal)
	var level slog.LevelVar
	r := w.startWith(t, withAdmin, func(base config.Config, o *gateway.Options) {
		o.Files = []string{m.file()}
		o.Hangup = hangup
		o.Level = &level
		o.Load = func() (config.Config, error) {
			// The port is 0 for the system to choose, which a file may not say.
			cfg := base
			cfg.Listen.Proxy = "127.0.0.1:1"
			cfg.Listen.Admin = "127.0.0.1:2"
			cfg, err := config.LoadOver(cfg, m.file(), nil, nil)
			cfg.Listen.Proxy = base.Listen.Proxy
			cfg.Listen.Admin = base.Listen.Admin
			return cfg, err
		}
	})
	tunnel, br := r.connectTo(t, w.countBytes(), "")
	get := func(host string) string {
		return w.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "-x", "http://"+r.addr, "http://"+host+"/")
	}
	metric := func(name string) float64 { return value(t, r, name) }
	const lastGood = "pando_config_last_reload_success_timestamp_seconds"
	loaded := metric(lastGood)
	if got := get("new.example.com"); got != "502" {
		t.Fatalf("before: %s", got)
	}

	// A host, a rule, limits and the log level, without touching the tunnel.
	m.write(t, "resolve: {hosts: {new.example.com: [\""+testnet.APIAddr.String()+"\"]}}\npolicy: {rules: [{names: [old.example.com], action: deny}]}\nlimits: {dials: 77}\nlog: {level: debug}\n")
	testkit.Eventually(t, "the new host", func() bool { return metric(`pando_config_reloads_total{outcome="ok"}`) == 1 })
	if a, b := get("new.example.com"), get("old.example.com"); a != "200" || b != "403" {
		t.Errorf("after the change: %s, %s; want 200, 403", a, b)
	}
	if _, st := r.admin(t, "/status"); !strings.Contains(st, `"most": 77`) || level.Level() != slog.LevelDebug {
		t.Errorf("the limit or the level did not change: %v %s", level.Level(), st)
	}
	// A file that is being written slowly is not a configuration yet.
	if err := os.WriteFile(filepath.Join(m.dir, "..data", "pando.yaml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	hangup <- nil
	testkit.Eventually(t, "the empty file to be refused", func() bool { return metric(`pando_config_reloads_total{outcome="failed"}`) == 1 })
	if b := get("old.example.com"); b != "403" {
		t.Errorf("an empty file took the rules away: %s", b)
	}

	// A mistake changes nothing, and is to be seen everywhere.
	m.write(t, "policy: {rules: [{names: [new.example.com], action: perhaps}]}\n")
	testkit.Eventually(t, "the mistake", func() bool { return metric(`pando_config_reloads_total{outcome="failed"}`) == 2 })
	if a, b := get("new.example.com"), get("old.example.com"); a != "200" || b != "403" {
		t.Errorf("after a mistake: %s, %s; want 200, 403", a, b)
	}
	if metric("pando_config_last_reload_successful") != 0 {
		t.Error("the metric does not know of the mistake")
	}
	changed := metric(lastGood)
	if changed <= loaded {
		t.Errorf("the last good change was at %v, and before it at %v", changed, loaded)
	}
	if code, body := r.admin(t, "/readyz?verbose"); code != 200 || !strings.Contains(body, "[+]configuration ok: the last change was rejected, and the previous configuration is in force: the log and pando status say why\n") || strings.Contains(body, "perhaps") {
		t.Errorf("readyz: %d %s, want that the change was rejected, and nothing of the file", code, body)
	}
	if _, body := r.admin(t, "/status"); !strings.Contains(body, `policy.rules[0].action: invalid value \"perhaps\"`) {
		t.Errorf("status: %s, want the mistake", body)
	}

	// What wants a restart is named; the rest applies.
	m.write(t, "drain: {timeout: 99s}\n")
	testkit.Eventually(t, "the good file", func() bool { return metric(`pando_config_reloads_total{outcome="ok"}`) == 2 })
	if got := get("new.example.com"); got != "502" {
		t.Errorf("a host that was taken out: %s", got)
	}
	if metric("pando_config_last_reload_successful") != 1 || metric(lastGood) <= changed {
		t.Errorf("after the good file: the last good change was at %v, and before it at %v", metric(lastGood), changed)
	}
	if _, body := r.admin(t, "/readyz?verbose"); !strings.Contains(body, "[+]configuration ok: waiting for a restart: drain.timeout") || metric("pando_config_restart_needed") != 1 {
		t.Errorf("readyz: %s", body)
	}
	hangup <- nil // SIGHUP has the file read even when it did not change
	testkit.Eventually(t, "the hangup", func() bool { return metric(`pando_config_reloads_total{outcome="ok"}`) == 3 })

	tunnel.Write(make([]byte, someBytes))
	tunnel.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || string(b) != fmt.Sprint("got ", someBytes) {
		t.Errorf("the tunnel: the target answered %q, %v; want got %d", b, err, someBytes)
	}
	r.flows.mu.Lock()
	defer r.flows.mu.Unlock()
	for _, line := range []string{"configuration reloaded", "new configuration rejected; keeping the previous one", "some changes need a restart"} {
		if !strings.Contains(r.flows.all.String(), line) {
			t.Errorf("the log lacks %q", line)
		}
	}
}

func TestReloadUsersSamplingAndZones(t *testing.T) { userspace(t, sharedTailnet, reloadMore) }

// reloadMore checks the rest of what applies without a restart.
func reloadMore(t *testing.T, w *world) {
	dir := t.TempDir()
	users := filepath.Join(dir, "users")
	file := filepath.Join(dir, "pando.yaml")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(users, "ann:one\n")
	write(file, "{}\n")
	var noFiles atomic.Bool
	r := w.startWith(t, func(c *config.Config) {
		withAdmin(c)
		c.Auth.UsersFile = users
	}, func(base config.Config, o *gateway.Options) {
		o.Files = []string{file}
		o.Load = func() (config.Config, error) {
			cfg := base
			if noFiles.Load() {
				return cfg, &fs.PathError{Op: "open", Path: file, Err: syscall.EMFILE}
			}
			data, err := os.ReadFile(file)
			if err == nil {
				err = config.Parse(data, &cfg)
			}
			return cfg, err
		}
	})
	get := func(user, host string) string {
		return w.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "-x", "http://"+user+"@"+r.addr, "http://"+host+"/")
	}
	if a, b := get("ann:one", testnet.APIName), get("bob:two", testnet.APIName); a != "200" || b != "407" {
		t.Fatalf("before: %s, %s; want 200, 407", a, b)
	}
	applied := func(n float64) func() bool {
		return func() bool { return value(t, r, `pando_config_reloads_total{outcome="ok"}`) == n }
	}
	write(users, "bob:two\n")
	testkit.Eventually(t, "the new users", applied(1))
	if a, b := get("ann:one", testnet.APIName), get("bob:two", testnet.APIName); a != "407" || b != "200" {
		t.Errorf("after the change: %s, %s; want 407, 200", a, b)
	}
	// A change that could not be read for want of a file descriptor is not forgotten:
	// whatever happens next has it read again.
	noFiles.Store(true)
	write(users, "ann:one\nbob:two\n")
	testkit.Eventually(t, "the change that can't be read", func() bool { return value(t, r, `pando_config_reloads_total{outcome="failed"}`) == 1 })
	noFiles.Store(false)
	write(filepath.Join(dir, "another"), "")
	testkit.Eventually(t, "the change to be read again", applied(2))
	if got := get("ann:one", testnet.APIName); got != "200" {
		t.Errorf("after the change that could not be read at first: %s", got)
	}
	// A zone that only the cloud's server knows; the tailnet does not name it.
	const other = "api.other.example"
	w.cloud.SetRecord(other, testnet.APIAddr)
	if got := get("bob:two", other); got != "502" {
		t.Errorf("before its zone: %s", got)
	}
	write(file, "log: {sample: 1000}\nresolve: {zones: [{suffix: other.example, servers: ["+testnet.DNSAddr.String()+"]}]}\n")
	testkit.Eventually(t, "the zone", applied(3))
	if got := get("bob:two", other); got != "200" { // what was known of it is forgotten
		t.Errorf("with its zone: %s", got)
	}
	for range 20 {
		get("bob:two", other)
	}
	well := 0
	for _, f := range r.flows.matching(other) {
		if f["class"] == "ok" {
			well++
		}
	}
	if well > 1 {
		t.Errorf("%d flow lines of 21 requests with log.sample at 1000, want at most 1", well)
	}
	if _, st := r.admin(t, "/status"); !strings.Contains(st, "other.example") {
		t.Errorf("the status does not know the zone: %s", st)
	}
}
