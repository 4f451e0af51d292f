package flow

import "errors"

// Class says in one word why a flow failed. Each front end turns a class into
// its own reply, and metrics count by it, so the set is closed.
type Class uint8

const (
	// OK is the class of a flow that ended well. No Error carries it.
	OK Class = iota
	// Internal: the gateway itself failed. Errors of unknown kind count here.
	Internal
	// BadRequest: the client broke its protocol, or asked for what no front end does.
	BadRequest
	// Unauthenticated: credentials are required and were missing or wrong.
	Unauthenticated
	// Denied: the policy forbids it, by name or by address.
	Denied
	// NotFound: the name does not exist, or has no address (RFC 2308).
	NotFound
	// ResolveFailed: no resolver gave an answer.
	ResolveFailed
	// NoRoute: nothing carries the address: no peer routes it and the policy
	// does not let it be dialled directly.
	NoRoute
	// Refused: the target answered with a reset (nothing listens there).
	Refused
	// Unreachable: the network answered that the target can't be reached.
	Unreachable
	// Timeout: nothing answered in time.
	Timeout
	// Reset: an established connection broke before the work was done.
	Reset
	// BadResponse: the target answered with what its protocol does not allow.
	BadResponse
	// Idle: nothing moved for longer than the idle timeout.
	Idle
	// Overloaded: a limit of the gateway was reached.
	Overloaded
	// NotReady: the tailnet is not up yet.
	NotReady
	// Cut: the gateway was shutting down and the flow outlived the drain.
	Cut
	// Canceled: the client went away before the work was done.
	Canceled
	// Loop: the request came back to the gateway that sent it.
	Loop

	classes // number of classes
)

var classNames = [classes]string{
	OK: "ok", Internal: "internal", BadRequest: "bad_request", Unauthenticated: "unauthenticated",
	Denied: "denied", NotFound: "not_found", ResolveFailed: "resolve_failed", NoRoute: "no_route",
	Refused: "refused", Unreachable: "unreachable", Timeout: "timeout", Reset: "reset", BadResponse: "bad_response", Idle: "idle",
	Overloaded: "overloaded", NotReady: "not_ready", Cut: "cut", Canceled: "canceled", Loop: "loop",
}

// Classes lists every class, OK first.
func Classes() []Class {
	all := make([]Class, classes)
	for i := range all {
		all[i] = Class(i)
	}
	return all
}

// String returns the class as logs and metrics spell it, such as "no_route".
func (c Class) String() string {
	if c >= classes {
		return "unknown"
	}
	return classNames[c]
}

// ErrNoAddress is the cause of a NotFound for a name that exists, with records
// other than addresses or with names below it (RFC 8020).
var ErrNoAddress = errors.New("the name has no address")

// Error is a failure that a front end can answer. Op and Target say where it
// happened and to what; Hint tells a person what to do next and may be sent to
// the client, as Class may; Err is the cause and is for logs alone.
type Error struct {
	Class  Class
	Op     string // the stage: "policy", "resolve", "dial", "relay", …
	Target string // the name or address concerned
	Hint   string // empty means there is nothing to suggest
	Err    error  // nil means the class says it all
}

// Error returns "op target: class: cause".
func (e *Error) Error() string {
	s := e.Op
	if e.Target != "" {
		s += " " + e.Target
	}
	s += ": " + e.Class.String()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of the first Error in err's chain: OK for nil,
// Internal when there is none.
func ClassOf(err error) Class {
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return Internal
}

// HintOf returns the hint of the first Error in err's chain, or "".
func HintOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}
