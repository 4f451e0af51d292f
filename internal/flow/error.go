package flow

import "errors"

// Class says in one word why a flow failed. Each front turns a class into
// a reply of its protocol, and metrics count by class, so the set is closed.
type Class uint8

const (
	// OK is the class of a flow that ended well. No Error has it.
	OK Class = iota
	// Internal: the replica itself failed. It is also the class of errors that are
	// not an Error.
	Internal
	// BadRequest: the client broke its protocol, or asked for something that its
	// front does not do.
	BadRequest
	// Unauthenticated: credentials are required and were missing or wrong.
	Unauthenticated
	// Denied: the policy forbids the target, by name or by address.
	Denied
	// NotFound: the name does not exist, or has no address (RFC 2308).
	NotFound
	// ResolveFailed: no resolver gave a usable answer.
	ResolveFailed
	// NoRoute: no tailnet peer routes the address, and the policy does not let it
	// be dialled directly.
	NoRoute
	// Refused: the target answered with a reset, because nothing listens there.
	Refused
	// Unreachable: the network reported that the target can't be reached.
	Unreachable
	// Timeout: no answer came in time.
	Timeout
	// Reset: an established connection broke before the flow was complete.
	Reset
	// BadResponse: the target sent something that its protocol does not allow.
	BadResponse
	// BadCertificate: the target's TLS certificate could not be verified.
	BadCertificate
	// Idle: no byte moved for longer than the idle timeout.
	Idle
	// Overloaded: a limit of the replica was reached.
	Overloaded
	// NotReady: the replica is not connected to the tailnet yet.
	NotReady
	// Cut: the replica shut down and the flow took longer than the drain, or it was
	// older than it may become.
	Cut
	// Canceled: the client left before the flow was complete.
	Canceled
	// Loop: the request came back to the replica that had sent it.
	Loop

	classes // number of classes
)

var classNames = [classes]string{
	OK:              "ok",
	Internal:        "internal",
	BadRequest:      "bad_request",
	Unauthenticated: "unauthenticated",
	Denied:          "denied",
	NotFound:        "not_found",
	ResolveFailed:   "resolve_failed",
	NoRoute:         "no_route",
	Refused:         "refused",
	Unreachable:     "unreachable",
	Timeout:         "timeout",
	Reset:           "reset",
	BadResponse:     "bad_response",
	BadCertificate:  "bad_certificate",
	Idle:            "idle",
	Overloaded:      "overloaded",
	NotReady:        "not_ready",
	Cut:             "cut",
	Canceled:        "canceled",
	Loop:            "loop",
}

// Classes lists every class, OK first.
func Classes() []Class {
	all := make([]Class, classes)
	for i := range all {
		all[i] = Class(i)
	}
	return all
}

// String returns the class as the log and the metrics spell it, such as
// "no_route". It returns "unknown" for a class that does not exist.
func (c Class) String() string {
	if c >= classes {
		return "unknown"
	}
	return classNames[c]
}

// ErrNoAddress is the cause of a NotFound for a name that exists but has no
// address: it has records of other types, or there are names below it (RFC
// 8020).
var ErrNoAddress = errors.New("the name has no address")

// Error is a failure that a front can answer. The client may see Class and
// Hint. Err is for the log only.
type Error struct {
	Class  Class
	Op     string // the stage that failed: "policy", "resolve", "dial", "relay", …
	Target string // the name or address that it concerns; empty when there is none
	Hint   string // what a person can do about it; empty when there is nothing to suggest
	Err    error  // the cause; nil when the class says it all
}

// Error returns "op target: class: cause", without the parts that are empty. A long
// target is cut.
func (e *Error) Error() string {
	s := e.Op
	if e.Target != "" {
		s += " " + shorten(e.Target, maxErrorTarget)
	}
	s += ": " + e.Class.String()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of the first Error in err's chain. It returns OK if err
// is nil, and Internal if a panic is the cause or the chain has no Error.
func ClassOf(err error) Class {
	if err == nil {
		return OK
	}
	if IsPanic(err) { // whatever other stages make of it
		return Internal
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return Internal
}

// HintOf returns the hint of the first Error in err's chain, or "" without one.
func HintOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}
