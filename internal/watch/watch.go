// Package watch reports changes of the content of files, such as a mounted
// ConfigMap. It listens to the file system, reads the files at intervals where
// the file system reports nothing, and compares content: a file that is
// written again with the same content has not changed. It does not know what
// the files mean.
//
// The order of things: New, which remembers the files as they are, then Run.
package watch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options say what to watch. The zero value watches nothing.
type Options struct {
	// Files are the paths of the files. A file that is missing counts as
	// changed when it appears.
	Files []string
	// Hangup calls for Changed even when no file has changed. It stands for
	// SIGHUP. Nil means never.
	Hangup <-chan os.Signal
	// Changed is called after a change, or for Hangup, by one goroutine. When
	// its error is one of Exhausted, the change was not read, and the next
	// event calls it again. Other errors are the caller's to report. Nil is
	// allowed without Files and Hangup only.
	Changed func() error
	// Quiet is how long the files must stay the same before a change is
	// reported, so that a file is not read while it is being written. Zero
	// means 500ms.
	Quiet time.Duration
	// Poll is how often the files are read where the file system reports no
	// events. Zero means 30s.
	Poll time.Duration
	Log  *slog.Logger // nil discards
}

// Watcher watches files. It is made by New.
type Watcher struct {
	opts Options
	last string // fingerprint of the content that was last reported
}

// New returns a watcher that compares with the files as they are now. It
// starts nothing.
func New(opts Options) *Watcher {
	if opts.Quiet == 0 {
		opts.Quiet = 500 * time.Millisecond
	}
	if opts.Poll == 0 {
		opts.Poll = 30 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	w := &Watcher{opts: opts}
	// If the files cannot be read now, last stays empty, and the first event
	// reports a change.
	w.last, _ = fingerprint(opts.Files)
	return w
}

// Run reports changes until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	if len(w.opts.Files) == 0 && w.opts.Hangup == nil {
		return
	}
	var events chan fsnotify.Event // nil, which is never ready, without notifications
	var overflows chan error
	if n := w.notifications(); n != nil {
		defer n.Close()
		events = n.Events
		overflows = n.Errors
	}
	poll := time.NewTicker(w.opts.Poll)
	defer poll.Stop()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-w.opts.Hangup:
			asked = true
		case <-events:
		case <-overflows: // events were lost, so there were some
		case <-poll.C:
		}
		w.check(ctx, asked)
	}
}

// check calls Changed if the files have changed, or if asked.
func (w *Watcher) check(ctx context.Context, asked bool) {
	now, err := fingerprint(w.opts.Files)
	if !asked {
		now, err = w.settled(ctx, now, err)
		if err != nil || now == w.last || ctx.Err() != nil {
			return
		}
	}
	w.last = now
	if Exhausted(w.opts.Changed()) {
		w.last = "" // no change was read: report it again at the next event
	}
}

// settled waits until changed files have stayed the same for Quiet, and returns
// their fingerprint. now and err are what fingerprint returned last. The wait
// ends early with ctx, and with an error of fingerprint.
func (w *Watcher) settled(ctx context.Context, now string, err error) (string, error) {
	for err == nil && now != w.last && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(w.opts.Quiet):
		}
		before := now
		now, err = fingerprint(w.opts.Files)
		if now == before {
			break
		}
	}
	return now, err
}

// notifications subscribes to the directories of the files: a mounted ConfigMap
// changes by a symbolic link next to the file, and a subscription to the file
// itself would report nothing. It returns nil when the system has no
// notifications left; polling remains.
func (w *Watcher) notifications() *fsnotify.Watcher {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		w.opts.Log.Warn("file watching unavailable; polling the configuration", "every", w.opts.Poll.String(), "err", err)
		return nil
	}
	for _, f := range w.opts.Files {
		if err := n.Add(filepath.Dir(f)); err != nil {
			w.opts.Log.Warn("cannot watch file; polling it", "file", f, "every", w.opts.Poll.String(), "err", err)
		}
	}
	return n
}

// Exhausted reports whether err means that the process is out of file
// descriptors or memory, rather than that something is wrong with a file.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// fingerprint returns a value that stands for the content of files. A file that
// cannot be read counts as content of its own. The error is one of Exhausted: the
// content is not known now.
func fingerprint(files []string) (string, error) {
	var b strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if Exhausted(err) {
			return "", err
		}
		fmt.Fprintf(&b, "%x %v\n", sha256.Sum256(data), err)
	}
	return b.String(), nil
}
