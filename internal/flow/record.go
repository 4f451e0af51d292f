package flow

import (
	"log/slog"
	"net/netip"
	"time"
)

// Record is everything that is known of one flow: a tunnel, or one plain-HTTP
// request. Stages fill it in as the flow goes down the road, one after the
// other, so it needs no lock; the log line, the metrics and the status page
// are all made from it.
type Record struct {
	Request
	Start time.Time

	Source  string         // which source answered the name: "hosts", "magicdns", "zone …"; empty before resolution
	Rule    string         // the policy rule that judged it; empty means no rule matched
	Report  string         // in report mode, why it would have been denied; empty otherwise
	Addr    netip.AddrPort // the address that was dialled; invalid when it came to none
	Path    Path           // empty when nothing was dialled
	Reused  bool           // a pooled connection to the origin served it
	Status  int            // HTTP status sent to the client; 0 for SOCKS
	Method  string         // HTTP method of a plain request; empty for tunnels
	Resolve time.Duration  // time spent resolving
	Dial    time.Duration  // time spent dialling
	Total   time.Duration  // from Start to the end of the flow

	// Up counts the bytes from the client to the target, Down those back: all
	// of a tunnel's, and the body's alone of a plain request.
	Up, Down int64

	Err error // nil when the flow ended well
}

// NewRecord returns the record of a flow that starts now. client is the
// client's own address.
func NewRecord(front Front, client netip.AddrPort) *Record {
	return &Record{
		Request: Request{
			Front:  front,
			Client: client,
		},
		Start: time.Now(),
	}
}

// Keys of the log line, in order. Record.LogValue is the only place that
// spells them, and a golden test holds them.
const (
	keyFront, keyClient, keyUser, keyTarget, keyMethod, keyClass = "front", "client", "user", "target", "method", "class"
	keyStatus, keyPath, keyAddr, keySource, keyRule, keyReport   = "status", "path", "addr", "source", "rule", "would_deny"
	keyReused, keyResolve, keyDial, keyTotal, keyUp, keyDown     = "reused", "resolve_ms", "dial_ms", "total_ms", "up", "down"
	keyErr, keyHint                                              = "err", "hint"
)

// LogValue returns the flow as the attributes of its one log line. Values that
// are not known are left out; front, client, target, class, total_ms, up and
// down are always there.
func (r *Record) LogValue() slog.Value {
	a := make([]slog.Attr, 0, 20)
	add := func(k, v string) {
		if v != "" {
			a = append(a, slog.String(k, v))
		}
	}
	ms := func(k string, d time.Duration) {
		a = append(a, slog.Float64(k, float64(d.Microseconds())/1000))
	}
	a = append(a, slog.String(keyFront, string(r.Front)), slog.String(keyClient, r.Client.String()))
	add(keyUser, r.User)
	a = append(a, slog.String(keyTarget, r.Target()))
	add(keyMethod, r.Method)
	a = append(a, slog.String(keyClass, ClassOf(r.Err).String()))
	if r.Status != 0 {
		a = append(a, slog.Int(keyStatus, r.Status))
	}
	add(keyPath, string(r.Path))
	if r.Addr.IsValid() {
		a = append(a, slog.String(keyAddr, r.Addr.String()))
	}
	add(keySource, r.Source)
	add(keyRule, r.Rule)
	add(keyReport, r.Report)
	if r.Reused {
		a = append(a, slog.Bool(keyReused, true))
	}
	if r.Resolve > 0 {
		ms(keyResolve, r.Resolve)
	}
	if r.Dial > 0 {
		ms(keyDial, r.Dial)
	}
	ms(keyTotal, r.Total)
	a = append(a, slog.Int64(keyUp, r.Up), slog.Int64(keyDown, r.Down))
	if r.Err != nil {
		add(keyErr, r.Err.Error())
		add(keyHint, HintOf(r.Err))
	}
	return slog.GroupValue(a...)
}
