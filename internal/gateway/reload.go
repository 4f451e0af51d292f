package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pandoproxy/pando/internal/auth"
	"github.com/pandoproxy/pando/internal/config"
)

// reload is what has become of changes of the configuration.
type reload struct {
	seen string // fingerprint of the files at the start

	mu      sync.Mutex
	applied config.Config // the last good one
	at      time.Time     // when it was applied; zero for that of the start
	err     error         // of the last attempt
	restart []string      // keys that differ from the start's and want a restart
}

const (
	reloadQuiet = 500 * time.Millisecond // a file that is being written is left alone until it has not changed for so long
	reloadPoll  = 30 * time.Second       // for file systems that tell of none
)

// watchConfig applies changes of the configuration until ctx ends.
func (g *Gateway) watchConfig(ctx context.Context) {
	if g.opts.Load == nil {
		return
	}
	files := g.watched()
	var events chan fsnotify.Event // nil, which is never ready, without a watcher
	var overflows chan error
	if w := g.watcher(files); w != nil {
		defer w.Close()
		events, overflows = w.Events, w.Errors
	}
	last := g.reload.seen
	poll := time.NewTicker(reloadPoll)
	defer poll.Stop()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-g.opts.Hangup:
			asked = true
		case <-events:
		case <-overflows: // something happened
		case <-poll.C:
		}
		now, err := fingerprint(files)
		for err == nil && !asked && now != last && ctx.Err() == nil {
			sleep(ctx, reloadQuiet)
			before := now
			if now, err = fingerprint(files); now == before {
				break
			}
		}
		if asked || err == nil && now != last {
			last = now
			if exhausted(g.Reload()) {
				last = "" // no change was read: it is still to come
			}
		}
	}
}

// exhausted reports an error that says nothing of a file that was to be read, but
// that there was nothing left to read it with.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// watched are the files that make the configuration.
func (g *Gateway) watched() []string {
	files := slices.Clone(g.opts.Files)
	if f := g.cfg.Auth.UsersFile; f != "" {
		files = append(files, f)
	}
	return files
}

// watcher watches the directories of files: a mounted ConfigMap changes by a
// symbolic link beside the file, whose own name sees nothing. It is nil when
// there is none to be had.
func (g *Gateway) watcher(files []string) *fsnotify.Watcher {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		g.log.Warn("changes of the configuration are looked for every "+reloadPoll.String()+" only", "err", err)
		return nil
	}
	for _, f := range files {
		if err := w.Add(filepath.Dir(f)); err != nil {
			g.log.Warn("changes of a file are looked for every "+reloadPoll.String()+" only", "file", f, "err", err)
		}
	}
	return w
}

// fingerprint stands for the content of files. An error means that nothing can be
// said of it now.
func fingerprint(files []string) (string, error) {
	var b strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if exhausted(err) {
			return "", err
		}
		fmt.Fprintf(&b, "%x %v\n", sha256.Sum256(data), err)
	}
	return b.String(), nil
}

// Reload reads the configuration and applies what may change without a
// restart, all of it or, when there is a mistake in it, nothing. Connections
// that are open stay as they are. Its error was told of.
func (g *Gateway) Reload() error {
	cfg, err := g.opts.Load()
	if config.OnlySecretFiles(err) {
		err = nil // they have served, and the keys that name them want a restart
	}
	for _, f := range g.opts.Files {
		if data, rerr := os.ReadFile(f); err == nil && rerr == nil && len(bytes.TrimSpace(data)) == 0 {
			err = fmt.Errorf("%s is empty, which is more often a mistake than meant; write {} for no settings at all", f)
		}
	}
	var users *auth.Users
	if err == nil && cfg.Auth.UsersFile == g.cfg.Auth.UsersFile { // else it wants a restart
		users, err = loadUsers(cfg.Auth)
	}
	r := &g.reload
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	g.metrics.Reloaded(err == nil)
	if err != nil {
		what := "the changed configuration is not valid"
		if exhausted(err) {
			what = "the configuration can't be read now"
		}
		g.log.Error(what+": the one before goes on", "err", err)
		return err
	}
	live, _ := config.Changes(&r.applied, &cfg)
	_, restart := config.Changes(&g.cfg, &cfg)
	if users != nil {
		g.users.Store(users)
	}
	g.road.Resolver.SetHosts(hosts(cfg.Resolve))
	g.road.Resolver.SetZones(zones(cfg.Resolve))
	g.road.SetPolicy(g.policy(cfg.Policy))
	g.limit.Set(limits(cfg.Limits))
	g.sample.Store(int64(cfg.Log.Sample))
	if g.opts.Level != nil {
		g.opts.Level.Set(level(cfg.Log.Level))
	}
	r.applied, r.at, r.restart = cfg, time.Now(), restart
	g.log.Info("configuration reloaded", "changed", live)
	if len(restart) > 0 {
		g.log.Warn("some changes want a restart", "keys", restart)
	}
	return nil
}

// configState says how the configuration stands, in words for a person: "" is
// as at the start.
func (g *Gateway) configState() string {
	r := &g.reload
	r.mu.Lock()
	defer r.mu.Unlock()
	var words []string
	if r.err != nil {
		words = append(words, "the last change was not valid, the configuration before it goes on: "+strings.ReplaceAll(r.err.Error(), "\n", "; "))
	}
	if len(r.restart) > 0 {
		words = append(words, "waiting for a restart: "+strings.Join(r.restart, ", "))
	}
	return strings.Join(words, "; ")
}

// loadUsers reads who must give a password; nil is nobody.
func loadUsers(c config.Auth) (*auth.Users, error) {
	if c.UsersFile == "" {
		return nil, nil
	}
	users, err := auth.Load(c.UsersFile)
	if err != nil {
		return nil, fmt.Errorf("auth.usersFile: %w", err)
	}
	return users, nil
}

func level(name string) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return slog.LevelInfo // validated before
	}
	return l
}
