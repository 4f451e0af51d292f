// Package control logs a tailnet node in at its control server, logs it in again
// when its key has expired, and watches the connection to that server. It drives
// the engine's local backend and carries no traffic.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/health"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnlocal"
	"tailscale.com/tsconst"
	"tailscale.com/tstime"
)

const (
	// loginTime is how long a login with a key may take before the next key is
	// tried.
	loginTime = 30 * time.Second
	loginPoll = 20 * time.Millisecond // between two looks at the state of a login
	keyPoll   = 5 * time.Second       // between two looks for a key, while a person can log in
)

// Login logs a node in, logs it in again when its key has expired, and knows what
// a login waits for. Set the exported fields before Watch and Start.
type Login struct {
	Backend *ipnlocal.LocalBackend
	Health  *health.Tracker
	Log     *slog.Logger
	Prefs   *ipn.Prefs // of the device; ControlURL and WantRunning included

	// AuthKey logs the device in when the backend's store holds no login.
	AuthKey string
	// NextKey returns a key for another login. If it is nil, or returns an empty key,
	// a person logs the device in.
	NextKey func(context.Context) (string, error)

	up        chan struct{} // closed when the node runs for the first time
	upOnce    sync.Once
	reloginOn atomic.Bool            // relogin runs
	relogins  sync.WaitGroup         // its goroutine
	err       atomic.Pointer[string] // the last error of the control server or the engine; nil means none
	url       atomic.Pointer[string] // where a person can log in; nil means that this is not needed
}

// NewLogin returns a Login without its exported fields.
func NewLogin() *Login { return &Login{up: make(chan struct{})} }

// Up returns a channel that is closed when the node is up for the first time.
func (l *Login) Up() <-chan struct{} { return l.up }

// Start gives the preferences to the engine. If the store holds a login the
// engine uses it and ignores the auth key.
func (l *Login) Start(ctx context.Context) error {
	if err := l.Backend.Start(ipn.Options{UpdatePrefs: l.Prefs, AuthKey: l.AuthKey}); err != nil {
		return err
	}
	if l.Backend.State() == ipn.NeedsLogin && (l.NextKey == nil || l.AuthKey != "") {
		return l.Backend.StartLoginInteractive(ctx)
	}
	return nil
}

// Watch follows the engine's notifications until ctx ends. It waits for a
// relogin that it has started.
func (l *Login) Watch(ctx context.Context) {
	defer l.relogins.Wait()
	logged := "" // the last error in the log
	l.Backend.WatchNotifications(ctx, ipn.NotifyInitialState, nil, func(m *ipn.Notify) bool {
		if m.ErrMessage != nil {
			l.err.Store(m.ErrMessage)
			l.needsLogin(ctx, !l.running())
			if !l.reloginOn.Load() && *m.ErrMessage != logged { // relogin logs its own errors
				logged = *m.ErrMessage
				l.Log.Warn("tailnet reported an error", "err", logged)
			}
		}
		if m.BrowseToURL != nil && *m.BrowseToURL != "" {
			l.url.Store(m.BrowseToURL)
			l.Log.Warn("login required; open the URL or set tailnet.authKey", "url", *m.BrowseToURL)
		}
		if m.State != nil {
			l.Log.Info("tailnet state changed", "state", m.State.String())
			l.needsLogin(ctx, *m.State == ipn.NeedsLogin && (l.AuthKey == "" || l.wasUp()))
			if *m.State == ipn.Running {
				logged = ""
				l.err.Store(nil)
				l.url.Store(nil)
				l.upOnce.Do(func() { close(l.up) })
			}
		}
		return true
	})
}

// needsLogin starts relogin if a login is required, a key source is configured,
// and none is running. Only Watch may call it.
func (l *Login) needsLogin(ctx context.Context, required bool) {
	if required && l.NextKey != nil && l.reloginOn.CompareAndSwap(false, true) {
		l.relogins.Go(func() { l.relogin(ctx) })
	}
}

// relogin logs in with the next key, and tries again after 1 s, 2 s, and so on
// up to a minute until the node is up or ctx ends. Between two attempts it
// disconnects the engine from the control server: the engine's own retries
// would start fast again with each attempt.
func (l *Login) relogin(ctx context.Context) {
	defer l.reloginOn.Store(false)
	for wait := time.Second; ctx.Err() == nil; wait = min(2*wait, time.Minute) {
		err := l.loginWith(ctx, l.NextKey)
		if err == nil {
			return
		}
		why := err.Error()
		l.err.Store(&why)
		l.Log.Warn("login failed; will try again", "err", err, "retry_in", wait.String())
		tstime.Sleep(ctx, wait)
	}
}

// loginWith makes one login with a key of nextKey and waits for its result. It
// returns nil when the node is up or ctx has ended.
func (l *Login) loginWith(ctx context.Context, nextKey func(context.Context) (string, error)) (err error) {
	key, err := nextKey(ctx)
	if err != nil {
		return err
	}
	l.err.Store(nil)
	if key == "" {
		return l.awaitPerson(ctx, nextKey)
	}
	l.url.Store(nil)
	defer func() {
		if err != nil {
			l.Backend.DisconnectControl()
		}
	}()
	if err := l.Backend.Start(ipn.Options{AuthKey: key}); err != nil {
		return err
	}
	if err := l.Backend.StartLoginInteractive(ctx); err != nil {
		return err
	}
	for range loginTime / loginPoll {
		if l.running() || ctx.Err() != nil {
			return nil
		}
		if why := l.err.Load(); why != nil {
			return errors.New(*why)
		}
		tstime.Sleep(ctx, loginPoll)
	}
	return fmt.Errorf("the control server did not answer the login within %v: %s", loginTime, l.WaitsFor())
}

// awaitPerson asks for a login by a person, and waits for it. If nextKey returns a key
// meanwhile, it logs in with that. It returns nil when the node is up or ctx has ended.
func (l *Login) awaitPerson(ctx context.Context, nextKey func(context.Context) (string, error)) error {
	if err := l.Backend.StartLoginInteractive(ctx); err != nil {
		return err
	}
	for tstime.Sleep(ctx, keyPoll) && !l.running() {
		if key, err := nextKey(ctx); err == nil && key != "" {
			return l.loginWith(ctx, func(context.Context) (string, error) { return key, nil })
		}
	}
	return nil
}

// LogUntilUp logs what the login waits for until the node is up for the first
// time or ctx ends: after 5 s, 10 s, and so on up to a minute. While relogin
// runs and waits for no person it logs nothing, because relogin does.
func (l *Login) LogUntilUp(ctx context.Context) {
	for wait := 5 * time.Second; ; wait = min(2*wait, time.Minute) {
		select {
		case <-l.up:
			return
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if !l.reloginOn.Load() || l.url.Load() != nil {
			what := []any{"err", l.WaitsFor()}
			if u := l.URL(); u != "" {
				what = append(what, "url", u)
			}
			l.Log.Warn("not on the tailnet yet", what...)
		}
	}
}

// URL returns the page on which a person can log the device in, or "" if that is not
// needed. Who opens it chooses the device's tailnet: show it to operators alone.
func (l *Login) URL() string {
	if u := l.url.Load(); u != nil {
		return *u
	}
	return ""
}

// WaitsFor returns the reason why the node is not up, as far as it is known. The text
// does not hold the URL of a login: every pod can read it.
func (l *Login) WaitsFor() string {
	if why := l.err.Load(); why != nil {
		return *why
	}
	if l.URL() != "" {
		return "login required: set tailnet.authKey, or open the URL that the log and pando status show"
	}
	state := l.Health.CurrentState().Warnings[tsconst.HealthWarnableLoginState]
	if why := state.Args[health.ArgError]; why != "" {
		return "the last login attempt failed: " + why
	}
	return "state " + l.Backend.State().String()
}

func (l *Login) running() bool { return l.Backend.State() == ipn.Running }

// wasUp reports whether the node has been up since it was started.
func (l *Login) wasUp() bool {
	select {
	case <-l.up:
		return true
	default:
		return false
	}
}
