package httpproxy

import (
	"net/http"
	"strconv"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// status is the response for a class of failure.
type status struct {
	code int
	// reason is the reason phrase of the status line. Many clients, such as wget,
	// git, Java and Python, print nothing else of the response to a CONNECT.
	reason string
	error  string // error type of RFC 9209 section 2.3; empty where none fits
	text   string // the first line of the body
}

func statusFor(class flow.Class) status {
	switch class {
	case flow.OK:
		return status{http.StatusOK, "OK", "", "ok"}
	case flow.BadRequest:
		return status{http.StatusBadRequest, "Request not valid for Pando", "http_request_error", "the request is not valid"}
	case flow.Unauthenticated:
		return status{http.StatusProxyAuthRequired, "Password required by Pando", "http_request_denied", "authentication is required"}
	case flow.Denied:
		return status{http.StatusForbidden, "Denied by Pando policy", "http_request_denied", "the policy denies this target"}
	case flow.NotFound:
		return status{http.StatusBadGateway, "Name not found by Pando", "dns_error", "the name does not exist"}
	case flow.ResolveFailed:
		return status{http.StatusBadGateway, "Name not resolved by Pando: no resolver answered", "dns_error", "the name could not be resolved"}
	case flow.NoRoute:
		return status{http.StatusBadGateway, "No route from Pando to the target", "destination_ip_unroutable", "no tailnet peer routes this address"}
	case flow.Refused:
		return status{http.StatusBadGateway, "Target refused the connection from Pando", "connection_refused", "the target refused the connection"}
	case flow.Unreachable:
		return status{http.StatusBadGateway, "Target not reachable from Pando", "destination_unavailable", "the target is unreachable"}
	case flow.Timeout:
		return status{http.StatusGatewayTimeout, "Target did not answer Pando in time", "connection_timeout", "no answer came in time"}
	case flow.Reset:
		return status{http.StatusBadGateway, "Target closed the connection from Pando", "connection_terminated", "the target closed the connection"}
	case flow.BadResponse:
		return status{http.StatusBadGateway, "Target sent Pando an invalid answer", "http_protocol_error", "the target's answer is not valid"}
	case flow.Idle:
		return status{http.StatusGatewayTimeout, "Connection through Pando was idle for too long", "connection_read_timeout", "the connection was idle for too long"}
	case flow.Overloaded:
		return status{http.StatusServiceUnavailable, "Pando is at its connection limit", "connection_limit_reached", "the gateway has reached a limit"}
	case flow.NotReady:
		return status{http.StatusServiceUnavailable, "Pando is not ready", "destination_unavailable", "the gateway is not ready yet"}
	case flow.Cut:
		return status{http.StatusServiceUnavailable, "Pando is shutting down", "connection_terminated", "the gateway is shutting down"}
	case flow.Loop:
		return status{http.StatusBadGateway, "Request came back to Pando", "proxy_loop_detected", "the request came back to the gateway"}
	case flow.Canceled, flow.Internal: // a client that has left reads no answer
	}
	return status{http.StatusInternalServerError, "Pando failed", "proxy_internal_error", "the gateway failed"}
}

// reasonFor returns the reason phrase for a status code that is sent for st's
// class. A code other than the class's own is more exact, and so is its phrase.
func (st status) reasonFor(code int) string {
	if code == st.code {
		return st.reason
	}
	return http.StatusText(code)
}

// refuse answers req with err. The connection stays open if nothing of the
// request is left to read, which could be mistaken for the next one.
func (s *session) refuse(rec *flow.Record, req *http.Request, err error) fate {
	rec.Err = err
	if rec.Status == 0 {
		rec.Status = statusFor(flow.ClassOf(err)).code
	}
	// What follows a CONNECT was meant for the tunnel, and is not a request.
	persist := req.Method != http.MethodConnect && req.Body == http.NoBody && s.persistent(req)
	s.writeError(rec, req, persist)
	if !persist {
		return closeGently
	}
	return keep
}

// writeError answers req with rec's status and error: the class and the hint,
// never the cause. A nil req is one that could not be read. If the response
// can't be sent, rec's status becomes 0.
func (s *session) writeError(rec *flow.Record, req *http.Request, persist bool) {
	class := flow.ClassOf(rec.Err)
	st := statusFor(class)
	hint := flow.HintOf(rec.Err)
	body := errorBody(rec, st, class, hint)
	details := class.String()
	if hint != "" {
		details += ": " + hint
	}
	w := s.w
	w.WriteString("HTTP/1.1 " + strconv.Itoa(rec.Status) + " " + st.reasonFor(rec.Status) + "\r\n")
	w.WriteString("Content-Type: text/plain; charset=utf-8\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n")
	w.WriteString("Proxy-Status: " + s.p.name())
	if st.error != "" {
		w.WriteString("; error=" + st.error)
	}
	w.WriteString("; details=" + wire.SFString(details) + "\r\n")
	switch class {
	case flow.Unauthenticated:
		w.WriteString("Proxy-Authenticate: Basic realm=\"pando\", charset=\"UTF-8\"\r\n")
	case flow.Overloaded, flow.NotReady:
		w.WriteString("Retry-After: 1\r\n")
	}
	if !persist {
		w.WriteString("Connection: close\r\n")
	}
	w.WriteString("\r\n")
	if req == nil || req.Method != http.MethodHead {
		w.WriteString(body)
	}
	if w.Flush() != nil {
		rec.Status = 0
	}
}

// errorBody returns the body of an error response: what happened, the target and
// the class, and the hint on a line of its own.
func errorBody(rec *flow.Record, st status, class flow.Class, hint string) string {
	body := "pando: " + st.text
	if rec.Host != "" {
		body += ": " + rec.Target()
	}
	body += " (" + class.String() + ")\n"
	if hint != "" {
		body += hint + "\n"
	}
	return body
}

// persistent reports whether the client's connection may stay open after req
// (RFC 9112 section 9.3).
func (s *session) persistent(req *http.Request) bool {
	if s.p.closing.Load() || req.Close {
		return false
	}
	if req.ProtoAtLeast(1, 1) {
		return true
	}
	return wire.ConnectionOptions(req.Header)["Keep-Alive"]
}
