package httpproxy

import (
	"net/http"
	"strconv"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/reply"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// refuse answers req with err. The connection stays open if nothing of the
// request is left to read, which could be mistaken for the next one.
func (s *session) refuse(rec *flow.Record, req *http.Request, err error) fate {
	rec.Err = err
	if rec.Status == 0 {
		rec.Status = reply.StatusFor(flow.ClassOf(err)).Code
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
	st := reply.StatusFor(class)
	hint := flow.HintOf(rec.Err)
	body := reply.Body(rec, st, class, hint)
	details := class.String()
	if hint != "" {
		details += ": " + hint
	}
	w := s.w
	w.WriteString("HTTP/1.1 " + strconv.Itoa(rec.Status) + " " + st.ReasonFor(rec.Status) + "\r\n")
	w.WriteString("Content-Type: text/plain; charset=utf-8\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n")
	w.WriteString("Proxy-Status: " + s.p.name())
	if st.Error != "" {
		w.WriteString("; error=" + st.Error)
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
