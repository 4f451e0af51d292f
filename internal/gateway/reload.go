package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/pandoproxy/pando/internal/auth"
	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway/settings"
	"github.com/pandoproxy/pando/internal/memory"
	"github.com/pandoproxy/pando/internal/watch"
)

// reloads is the outcome of the reloads so far.
type reloads struct {
	mu      sync.Mutex    // guards the fields below
	applied config.Config // the last good configuration
	err     error         // of the last reload
	restart []string      // keys that differ from those at the start and need a restart
}

// newWatcher returns a watcher that calls reload when the configuration or the file of
// users changes. Without Options.Load it watches nothing.
func (g *Gateway) newWatcher() *watch.Watcher {
	if g.opts.Load == nil {
		return watch.New(watch.Options{})
	}
	files := slices.Clone(g.opts.Files)
	if f := g.cfg.Auth.UsersFile; f != "" {
		files = append(files, f)
	}
	return watch.New(watch.Options{
		Files:   files,
		Hangup:  g.opts.Hangup,
		Changed: g.reload,
		Log:     g.log,
	})
}

// reload reads the configuration and applies what can change without a restart:
// all of it, or nothing when there is a mistake in it. Of the open connections it
// ends those that the new policy denies. It has logged the error that it returns.
func (g *Gateway) reload() error {
	cfg, users, err := g.readConfig()
	r := &g.reloads
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	g.metrics.Reloaded(err == nil)
	if err != nil {
		if watch.Exhausted(err) {
			g.log.Error("cannot read the configuration; keeping the previous one", "err", err)
		} else {
			g.log.Error("new configuration rejected; keeping the previous one", "err", err)
		}
		return err
	}
	changed, _ := config.Changes(&r.applied, &cfg)
	_, restart := config.Changes(&g.cfg, &cfg)
	r.applied = cfg
	r.restart = restart
	g.apply(cfg, users)
	g.log.Info("configuration reloaded", "changed", changed)
	if len(restart) > 0 {
		g.log.Warn("some changes need a restart", "keys", restart)
	}
	return nil
}

// readConfig reads the configuration and the users. The users are nil when they
// do not change: because no client needs a password, or because the name of
// their file has changed, which needs a restart.
func (g *Gateway) readConfig() (config.Config, *auth.Users, error) {
	cfg, err := g.opts.Load()
	if config.OnlySecretFiles(err) {
		err = nil // the login has been made, and the keys that name these files need a restart
	}
	if err != nil || cfg.Auth.UsersFile != g.cfg.Auth.UsersFile {
		return cfg, nil, err
	}
	users, err := loadUsers(cfg.Auth)
	return cfg, users, err
}

// apply puts into force what can change without a restart.
func (g *Gateway) apply(cfg config.Config, users *auth.Users) {
	if users != nil {
		g.users.Set(users)
	}
	g.road.Resolver.SetHosts(settings.Hosts(cfg.Resolve))
	g.road.Resolver.SetZones(settings.Zones(cfg.Resolve))
	ended := g.road.SetPolicy(settings.Policy(&cfg, g.own))
	if ended > 0 {
		g.log.Info("ended flows that the new policy denies", "flows", ended)
	}
	g.road.Limit.Set(settings.Limits(cfg.Limits))
	g.road.Limit.Memory.Set(memory.Size(cfg.Limits.Memory))
	g.finished.setSample(cfg.Log)
	if g.opts.Level != nil {
		g.opts.Level.Set(cfg.Log.SlogLevel())
	}
}

// state says in words for a person how the configuration in force differs from
// what the files say; empty when it does not. For the public, it does not say why a
// change was rejected: that text quotes the file.
func (r *reloads) state() (words, public string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list, publicList []string
	if r.err != nil {
		const rejected = "the last change was rejected, and the previous configuration is in force"
		list = append(list, rejected+": "+strings.ReplaceAll(r.err.Error(), "\n", "; "))
		publicList = append(publicList, rejected+": the log and pando status say why")
	}
	if len(r.restart) > 0 {
		restart := "waiting for a restart: " + strings.Join(r.restart, ", ")
		list = append(list, restart)
		publicList = append(publicList, restart)
	}
	return strings.Join(list, "; "), strings.Join(publicList, "; ")
}

// restartNeeded reports whether a change waits for a restart.
func (r *reloads) restartNeeded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.restart) > 0
}

// authenticator returns the function that checks a client's password; nil when
// clients need none.
func authenticator(users *auth.Guard) func(client netip.Addr, user, password string) error {
	if users == nil {
		return nil
	}
	return users.Check
}

// verifier returns the function that checks a password for pando explain; nil when
// clients need none.
func verifier(users *auth.Guard) func(user, password string) bool {
	if users == nil {
		return nil
	}
	return users.Verify
}

// loadUsers reads auth.usersFile; nil when there is none.
func loadUsers(c config.Auth) (*auth.Users, error) {
	if c.UsersFile == "" {
		return nil, nil
	}
	list, err := auth.Load(c.UsersFile)
	if err != nil {
		return nil, fmt.Errorf("auth.usersFile: %w", err)
	}
	return list, nil
}
