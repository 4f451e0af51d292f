// Package reply says how HTTP clients learn why a request failed: the status, the
// reason phrase and the words for each class. It does not write them.
package reply

import (
	"net/http"

	"github.com/pandoproxy/pando/internal/flow"
)

// Status is the response for a class of failure.
type Status struct {
	Code int
	// Reason is the reason phrase of the status line. Many clients, such as wget,
	// git, Java and Python, print nothing else of the response to a CONNECT.
	Reason string
	Error  string // error type of RFC 9209 section 2.3; empty where none fits
	Text   string // the first line of the body
}

// StatusFor returns the response for a class.
func StatusFor(class flow.Class) Status {
	switch class {
	case flow.OK:
		return Status{http.StatusOK, "OK", "", "ok"}
	case flow.BadRequest:
		return Status{http.StatusBadRequest, "Request not valid for Pando", "http_request_error", "the request is not valid"}
	case flow.Unauthenticated:
		return Status{http.StatusProxyAuthRequired, "Password required by Pando", "http_request_denied", "authentication is required"}
	case flow.Denied:
		return Status{http.StatusForbidden, "Denied by Pando policy", "http_request_denied", "the policy denies this target"}
	case flow.NotFound:
		return Status{http.StatusBadGateway, "Name not found by Pando", "dns_error", "the name does not exist"}
	case flow.ResolveFailed:
		return Status{http.StatusBadGateway, "Name not resolved by Pando: no resolver answered", "dns_error", "the name could not be resolved"}
	case flow.NoRoute:
		return Status{http.StatusBadGateway, "No route from Pando to the target", "destination_ip_unroutable", "no tailnet peer routes this address"}
	case flow.Refused:
		return Status{http.StatusBadGateway, "Target refused the connection from Pando", "connection_refused", "the target refused the connection"}
	case flow.Unreachable:
		return Status{http.StatusBadGateway, "Target not reachable from Pando", "destination_unavailable", "the target is unreachable"}
	case flow.Timeout:
		return Status{http.StatusGatewayTimeout, "Target did not answer Pando in time", "connection_timeout", "no answer came in time"}
	case flow.Reset:
		return Status{http.StatusBadGateway, "Target closed the connection from Pando", "connection_terminated", "the target closed the connection"}
	case flow.BadResponse:
		return Status{http.StatusBadGateway, "Target sent Pando an invalid answer", "http_protocol_error", "the target's answer is not valid"}
	case flow.BadCertificate:
		return Status{http.StatusBadGateway, "Target's certificate is not trusted by Pando", "tls_certificate_error", "the target's certificate could not be verified"}
	case flow.Idle:
		return Status{http.StatusGatewayTimeout, "Connection through Pando was idle for too long", "connection_read_timeout", "the connection was idle for too long"}
	case flow.Overloaded:
		return Status{http.StatusServiceUnavailable, "Pando is at its connection limit", "connection_limit_reached", "the replica has reached a limit"}
	case flow.NotReady:
		return Status{http.StatusServiceUnavailable, "Pando is not ready", "destination_unavailable", "the replica is not ready yet"}
	case flow.Cut:
		return Status{http.StatusServiceUnavailable, "Pando is shutting down", "connection_terminated", "the replica is shutting down"}
	case flow.Loop:
		return Status{http.StatusBadGateway, "Request came back to Pando", "proxy_loop_detected", "the request came back to the replica"}
	case flow.Canceled, flow.Internal: // a client that has left reads no answer
	}
	return Status{http.StatusInternalServerError, "Pando failed", "proxy_internal_error", "the replica failed"}
}

// ReasonFor returns the reason phrase for a status code that is sent for st's
// class. A code other than the class's own is more exact, and so is its phrase.
func (st Status) ReasonFor(code int) string {
	if code == st.Code {
		return st.Reason
	}
	return http.StatusText(code)
}

// Body returns the body of an error response: what happened, the target and
// the class, and the hint on a line of its own.
func Body(rec *flow.Record, st Status, class flow.Class, hint string) string {
	body := "pando: " + st.Text
	if rec.Host != "" {
		body += ": " + rec.Target()
	}
	body += " (" + class.String() + ")\n"
	if hint != "" {
		body += hint + "\n"
	}
	return body
}
