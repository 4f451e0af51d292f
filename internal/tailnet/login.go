package tailnet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tailscale.com/control/controlclient"
	"tailscale.com/health"
	"tailscale.com/ipn"
	"tailscale.com/tsconst"
	"tailscale.com/tstime"
	"tailscale.com/types/preftype"
)

// controlEpoch is the time before which no control server tells the truth about
// it: the library ignores such times too, and its test server tells one.
var controlEpoch = time.Date(2023, 6, 1, 0, 0, 0, 0, time.UTC)

// noteClock compares the control server's clock with ours.
func (n *Node) noteClock(t controlclient.ControlTime) {
	if t.Value.After(controlEpoch) {
		ahead := time.Until(t.Value)
		n.clockAhead.Store(&ahead)
	}
}

// login hands the preferences to the engine. A stored login is used as it is,
// and then the auth key is not looked at.
func (n *Node) login() error {
	prefs := ipn.NewPrefs()
	prefs.WantRunning = true
	prefs.ControlURL = n.opts.ControlURL
	prefs.Hostname = n.opts.Hostname
	prefs.AdvertiseTags = n.opts.Tags
	prefs.AdvertiseRoutes = n.opts.AdvertiseRoutes
	prefs.RouteAll = !n.opts.IgnoreRoutes
	prefs.CorpDNS = true
	prefs.ShieldsUp = n.opts.ShieldsUp
	prefs.NetfilterMode = preftype.NetfilterOff
	if err := n.lb.Start(ipn.Options{UpdatePrefs: prefs, AuthKey: n.opts.AuthKey}); err != nil {
		return err
	}
	if n.lb.State() == ipn.NeedsLogin && (n.opts.NextKey == nil || n.opts.AuthKey != "") {
		return n.lb.StartLoginInteractive(n.ctx)
	}
	return nil
}

// loginTime is how long a login with a key may take before another key is
// tried.
const loginTime = 30 * time.Second

// relogin logs in with the next key. It goes on trying until the node is up or
// closed, ever more slowly: the control server hears of it when it is tried, and
// not of the engine's own tries, which would begin anew, fast, with each.
func (n *Node) relogin() {
	defer n.reloggingIn.Store(false)
	for wait := time.Second; n.ctx.Err() == nil; wait = min(2*wait, time.Minute) {
		err := n.loginWith(n.opts.NextKey)
		if err == nil {
			return
		}
		why := err.Error()
		n.loginErr.Store(&why)
		n.log.Warn("no login yet", "err", err, "retry_in", wait.String())
		tstime.Sleep(n.ctx, wait)
	}
}

func (n *Node) loginWith(nextKey func(context.Context) (string, error)) (err error) {
	key, err := nextKey(n.ctx)
	if err != nil {
		return err
	}
	n.loginErr.Store(nil)
	defer func() {
		if err != nil {
			n.lb.DisconnectControl()
		}
	}()
	if err := n.lb.Start(ipn.Options{AuthKey: key}); err != nil {
		return err
	}
	if err := n.lb.StartLoginInteractive(n.ctx); err != nil {
		return err
	}
	for range loginTime / loginPoll {
		if n.Up() || n.ctx.Err() != nil {
			return nil
		}
		if why := n.loginErr.Load(); why != nil {
			return errors.New(*why)
		}
		tstime.Sleep(n.ctx, loginPoll)
	}
	return fmt.Errorf("no answer to the login within %v: %s", loginTime, n.waitsFor())
}

const loginPoll = 20 * time.Millisecond

// watch follows the engine's notifications until the node is closed.
func (n *Node) watch() {
	defer close(n.watchDone)
	told := "" // the last error in the log
	n.lb.WatchNotifications(n.ctx, ipn.NotifyInitialState, nil, func(m *ipn.Notify) bool {
		if m.ErrMessage != nil {
			n.loginErr.Store(m.ErrMessage)
			if n.needsLogin(!n.Up()); !n.reloggingIn.Load() && *m.ErrMessage != told { // who logs in anew says it
				told = *m.ErrMessage
				n.log.Warn("tailnet error", "err", told)
			}
		}
		if m.BrowseToURL != nil && *m.BrowseToURL != "" {
			n.loginURL.Store(m.BrowseToURL)
			n.log.Warn("tailnet needs a login: open the URL, or set an auth key", "url", *m.BrowseToURL)
		}
		if m.State != nil {
			n.log.Info("tailnet state", "state", m.State.String())
			n.needsLogin(*m.State == ipn.NeedsLogin && (n.opts.AuthKey == "" || n.wasUp()))
			if *m.State == ipn.Running {
				told = ""
				n.loginErr.Store(nil)
				n.loginURL.Store(nil)
				n.upOnce.Do(func() { close(n.up) })
			}
		}
		return true
	})
}

// sayWhy logs what the node waits for until it is up for the first time, ever more
// rarely, unless it is said by who logs in anew.
func (n *Node) sayWhy() {
	for wait := 5 * time.Second; ; wait = min(2*wait, time.Minute) {
		select {
		case <-n.up:
			return
		case <-n.ctx.Done():
			return
		case <-time.After(wait):
		}
		if !n.reloggingIn.Load() {
			n.log.Warn("not on the tailnet yet", "err", n.waitsFor())
		}
	}
}

// waitsFor says why the node is not up, as far as anybody knows.
func (n *Node) waitsFor() string {
	if why := n.loginErr.Load(); why != nil {
		return *why
	}
	if u := n.loginURL.Load(); u != nil {
		return "login needed: set an auth key, or open " + *u
	}
	login := n.sys.HealthTracker.Get().CurrentState().Warnings[tsconst.HealthWarnableLoginState]
	if why := login.Args[health.ArgError]; why != "" {
		return "the last try to log in: " + why
	}
	return "state " + n.lb.State().String()
}

// watchControl notes when the control server is back, until the node is closed. The
// engine tells nobody.
func (n *Node) watchControl() {
	health, before := n.sys.HealthTracker.Get(), false
	for t := time.NewTicker(controlEvery); ; {
		select {
		case <-n.ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		connected := health.GetInPollNetMap()
		if was := n.control.Swap(connected); connected && !was && before {
			now := time.Now()
			n.controlBack.Store(&now)
		}
		before = before || connected
	}
}

// controlEvery is how often it is looked whether the control server is there: often
// enough for those who wait for a route that has gone with its return.
const controlEvery = 200 * time.Millisecond

// needsLogin begins to log in anew, if it must and may and doesn't already.
func (n *Node) needsLogin(must bool) {
	if must && n.opts.NextKey != nil && n.reloggingIn.CompareAndSwap(false, true) {
		n.workers.Go(n.relogin)
	}
}

func (n *Node) wasUp() bool {
	select {
	case <-n.up:
		return true
	default:
		return false
	}
}
