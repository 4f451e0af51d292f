package flow

import (
	"log/slog"
	"net/netip"
	"time"
)

// Record is everything that is known of one flow. Its stages fill it in one
// after the other, so it needs no lock. The log line, the metrics and the
// status are all made from it.
type Record struct {
	Request
	Start time.Time

	Source  string         // what answered the name, a Source constant of package resolve; empty before the lookup
	Rule    string         // the policy rule that decided; empty when no rule matched
	Report  string         // in report mode, why the flow would have been denied; otherwise empty
	Addr    netip.AddrPort // the address that was dialled; invalid when none was
	Path    Path           // the network of Addr; empty when nothing was dialled
	Reused  bool           // a pooled connection to the origin served the request
	Status  int            // the HTTP status that the client got; 0 when it got none
	Method  string         // the HTTP method of a plain request; empty for tunnels
	Resolve time.Duration  // how long the lookup of the name took
	Dial    time.Duration  // how long it took to connect to the target
	Total   time.Duration  // from Start to the end of the flow

	// Up counts the bytes from the client to the target, and Down those from the
	// target to the client. For a plain request only bytes of bodies count.
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

// Keys of the log line, in order. Record.LogValue is the only place that uses
// them, and a golden test holds them. docs/metrics.md lists them, from the comments
// here. Each comment says when the key is present, and after the colon what it means.
const (
	// always: The front that took the flow.
	keyFront = "front"

	// always: The client's own address and port.
	keyClient = "client"

	// if it authenticated: The user of `auth.usersFile`.
	keyUser = "user"

	// always: The target as the client wrote it, host:port. Empty if the request did not
	// get that far.
	keyTarget = "target"

	// plain HTTP: The method of the request.
	keyMethod = "method"

	// always: How the flow ended: `ok`, or why it failed.
	keyClass = "class"

	// HTTP: The status code that the client got.
	keyStatus = "status"

	// if an address was dialled: The network that carried the flow: `tailnet` or
	// `direct`.
	keyPath = "path"

	// if an address was dialled: The address and port that was dialled.
	keyAddr = "addr"

	// if the name was looked up: What answered the name: a value of the label `source`.
	// A zone is followed by its suffix, as in `zone internal.example.com`. `literal` if
	// the target is an address.
	keySource = "source"

	// if a rule decided: The name of the policy rule, or its number.
	keyRule = "rule"

	// in report mode: Why the policy would have denied the flow in enforce mode.
	keyReport = "would_deny"

	// plain HTTP: `true` if an open connection to the origin was used again.
	keyReused = "reused"

	// if the name was looked up: Time spent on the lookup, in milliseconds.
	keyResolve = "resolve_ms"

	// if an address was dialled: Time spent on connecting, in milliseconds.
	keyDial = "dial_ms"

	// always: Duration of the flow, in milliseconds.
	keyTotal = "total_ms"

	// always: Bytes from the client to the target: all of a tunnel's, the body's of a
	// plain request.
	keyUp = "up"

	// always: Bytes from the target to the client.
	keyDown = "down"

	// if it failed: The error, for operators.
	keyErr = "err"

	// if it failed: What to do about it. The client gets the hint, too.
	keyHint = "hint"
)

// LogValue returns the flow as the attributes of its one log line. It leaves
// out what is not known, and cuts long texts. The keys front, client, target, class,
// total_ms, up and down are always there.
func (r *Record) LogValue() slog.Value {
	a := make([]slog.Attr, 0, 20)
	add := func(k, v string) {
		if v != "" {
			a = append(a, slog.String(k, Short(v)))
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
