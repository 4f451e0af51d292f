package logging

import (
	"context"
	"log/slog"
)

// Library returns a handler for slog.SetDefault, which gets the lines that libraries
// write with package log. It passes them to h as messages of one kind, at debug level.
// Lines above info level keep their level.
func Library(h slog.Handler) slog.Handler { return library{h} }

type library struct{ slog.Handler }

// lower returns the level of a library's line.
func lower(level slog.Level) slog.Level {
	if level <= slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}

func (l library) Enabled(ctx context.Context, level slog.Level) bool {
	return l.Handler.Enabled(ctx, lower(level))
}

func (l library) Handle(ctx context.Context, r slog.Record) error {
	line := slog.NewRecord(r.Time, lower(r.Level), "library", r.PC)
	line.AddAttrs(slog.String("text", r.Message))
	r.Attrs(func(a slog.Attr) bool {
		line.AddAttrs(a)
		return true
	})
	return l.Handler.Handle(ctx, line)
}

func (l library) WithAttrs(a []slog.Attr) slog.Handler { return library{l.Handler.WithAttrs(a)} }

func (l library) WithGroup(name string) slog.Handler { return library{l.Handler.WithGroup(name)} }
