// Package logging makes the log of a replica. It bounds how many lines a client can
// cause, and keeps the lines of libraries apart. What the lines say is the work of the
// packages that write them.
package logging

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

const (
	// window is the time for which lines are counted.
	window = time.Second
	// perWindow is how many lines of one client and class are written in a window.
	perWindow = 50
	// maxCounts bounds the counts of a window. Further clients share those of the
	// client that is the zero Addr.
	maxCounts = 4096
)

// moreKey is the attribute that says how many more lines were like this one.
const moreKey = "more"

// New returns a log that writes to w, as text or as JSON. It writes all lines without
// a client. Of those with the same client, message and class it writes 50 a second,
// and counts the others: one line of them follows at the end of the second, with the
// number of the rest as more. flush writes such lines at once. Call it at the end.
func New(w io.Writer, text bool, level slog.Leveler) (log *slog.Logger, flush func()) {
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewJSONHandler(w, o)
	if text {
		h = slog.NewTextHandler(w, o)
	}
	counts := &counts{}
	return slog.New(bounded{h, counts}), counts.flush
}

// bounded is a handler that writes to another one what counts lets pass.
type bounded struct {
	slog.Handler
	counts *counts
}

// Handle writes r, unless r's client has caused too many lines like it.
func (h bounded) Handle(ctx context.Context, r slog.Record) error {
	if k, ok := keyOf(r); ok && !h.counts.admit(ctx, h.Handler, k, r) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs and WithGroup keep the counts.
func (h bounded) WithAttrs(a []slog.Attr) slog.Handler {
	return bounded{h.Handler.WithAttrs(a), h.counts}
}

func (h bounded) WithGroup(name string) slog.Handler {
	return bounded{h.Handler.WithGroup(name), h.counts}
}

// key says which lines are alike.
type key struct {
	client  netip.Addr
	message string
	class   flow.Class
}

// keyOf returns the key of a line that a client has caused. ok is false for others.
func keyOf(r slog.Record) (k key, ok bool) {
	k.message = r.Message
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "flow":
			var rec *flow.Record
			rec, ok = a.Value.Any().(*flow.Record)
			if ok {
				k.client = rec.Client.Addr()
				k.class = flow.ClassOf(rec.Err)
			}
		case "client":
			client, err := netip.ParseAddrPort(a.Value.String())
			k.client = client.Addr().Unmap()
			ok = err == nil
		}
		return !ok
	})
	return k, ok
}

// counts counts the lines of a window that are alike. The zero value is ready.
type counts struct {
	mu    sync.Mutex
	lines map[key]*count // nil between windows
}

// count is what is known of the lines of one key.
type count struct {
	seen  int
	write func(more int) // writes the first line that was held back; nil before that
}

// admit counts r, and reports whether it may be written to h.
func (c *counts) admit(ctx context.Context, h slog.Handler, k key, r slog.Record) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines == nil {
		c.lines = map[key]*count{}
		time.AfterFunc(window, c.flush)
	}
	if c.lines[k] == nil && len(c.lines) >= maxCounts {
		k.client = netip.Addr{}
	}
	n := c.lines[k]
	if n == nil {
		n = &count{}
		c.lines[k] = n
	}
	n.seen++
	if n.seen == perWindow+1 {
		n.write = hold(context.WithoutCancel(ctx), h, r)
	}
	return n.seen <= perWindow
}

// hold returns a function that writes r to h with the number of further lines. r's
// values are read now: they are bounded then, and their owners may change.
func hold(ctx context.Context, h slog.Handler, r slog.Record) func(more int) {
	held := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		a.Value = a.Value.Resolve()
		held.AddAttrs(a)
		return true
	})
	return func(more int) {
		if more > 0 {
			held.AddAttrs(slog.Int(moreKey, more))
		}
		h.Handle(ctx, held)
	}
}

// flush ends the window, and writes a line for each key that has lines held back.
func (c *counts) flush() {
	c.mu.Lock()
	lines := c.lines
	c.lines = nil
	c.mu.Unlock()
	for _, n := range lines {
		if n.write != nil {
			n.write(n.seen - perWindow - 1)
		}
	}
}
