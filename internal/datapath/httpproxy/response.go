package httpproxy

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
)

var errHeadTooLong = &badResponse{errors.New("the response head is larger than this gateway accepts")}

// readHead reads the head of the next response, interim or final. The error is a
// *badResponse if the origin sent something that is not a response.
func (x *exchange) readHead() (*http.Response, error) {
	head := &x.o.Head
	resp, err := http.ReadResponse(x.o.R, x.req)
	switch {
	case err != nil && head.Exceeded():
		return nil, errHeadTooLong
	case err != nil && head.Started() && !isBroken(err):
		return nil, &badResponse{err}
	case err != nil:
		return nil, err
	}
	if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
		head.End()
	}
	return resp, nil
}

// passInterim passes an interim response on. Clients of HTTP/1.0 do not know
// them (RFC 9110 section 15.2).
func (x *exchange) passInterim(resp *http.Response) error {
	if !x.req.ProtoAtLeast(1, 1) {
		return nil
	}
	x.answered = true
	x.writeResponseHead(resp)
	x.s.w.WriteString("\r\n")
	return wire.Flush(x.s.w)
}

// respond copies the final response and releases both connections.
func (x *exchange) respond(resp *http.Response) fate {
	x.rec.Status = resp.StatusCode
	x.answered = true
	f := x.framing(resp)
	x.writeResponseHead(resp)
	x.writeFraming(resp, f)
	if err := x.copyBody(resp, f); err != nil {
		x.rec.Err, _ = x.failure(err)
		x.release(false)
		x.s.c.SetLinger(0) // the client must not take this for a whole response
		return closeNow
	}
	reusable := !resp.Close && !authenticatesConnection(x.req.Header["Authorization"]) && !authenticatesConnection(resp.Header["Www-Authenticate"])
	if x.release(reusable) && f.persist {
		return keep
	}
	return closeGently
}

// framing is how a final response reaches the client.
type framing struct {
	body    bool // the response has a body
	chunked bool // the body is written in chunks
	persist bool // the client's connection stays open after it
}

// framing decides how resp reaches the client (RFC 9112 section 6.3).
func (x *exchange) framing(resp *http.Response) framing {
	f := framing{
		body:    bodyAllowed(x.req, resp),
		persist: x.s.persistent(x.req),
	}
	if f.body && resp.ContentLength < 0 {
		if x.req.ProtoAtLeast(1, 1) {
			f.chunked = true
		} else {
			f.persist = false // HTTP/1.0: the end of the connection is the end of the body
		}
	}
	if whole, _ := x.upload.done(bodyGrace); !whole {
		f.persist = false // an early response: the rest of the request is still to come
	}
	return f
}

func bodyAllowed(req *http.Request, resp *http.Response) bool {
	return req.Method != http.MethodHead && resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusNotModified
}

// writeResponseHead writes the status line and the end-to-end fields of resp,
// without the empty line behind them.
func (x *exchange) writeResponseHead(resp *http.Response) {
	w := x.s.w
	status := resp.Status
	if !strings.Contains(status, " ") || !httpguts.ValidHeaderFieldValue(status) {
		status = status[:3] + " " // RFC 9112 section 4: the space is required, the reason is not
	}
	w.WriteString("HTTP/1.1 " + status + "\r\n")
	options := wire.ConnectionOptions(resp.Header)
	for name, values := range resp.Header {
		// net/http accepts "Name :". RFC 9112 section 5.1 wants the space removed:
		// otherwise the client may take for framing what this proxy did not.
		name = http.CanonicalHeaderKey(strings.TrimRight(name, " "))
		if !options.EndToEnd(name) || name == "Via" || !httpguts.ValidHeaderFieldName(name) {
			continue
		}
		wire.WriteField(w, name, values...)
	}
	wire.WriteVia(w, resp.Header["Via"], resp.ProtoMajor, resp.ProtoMinor, x.s.p.name())
}

// writeFraming writes the fields for framing and for this connection, and ends
// the head of a final response.
func (x *exchange) writeFraming(resp *http.Response, f framing) {
	w := x.s.w
	switch {
	case f.chunked:
		w.WriteString("Transfer-Encoding: chunked\r\n")
	case f.body && resp.ContentLength >= 0:
		w.WriteString("Content-Length: " + strconv.FormatInt(resp.ContentLength, 10) + "\r\n")
	case !f.body && resp.StatusCode != http.StatusNoContent:
		if length := resp.Header["Content-Length"]; len(length) > 0 { // of a HEAD or a 304
			wire.WriteField(w, "Content-Length", length[0])
		}
	}
	switch {
	case !f.persist:
		w.WriteString("Connection: close\r\n")
	case !x.req.ProtoAtLeast(1, 1):
		w.WriteString("Connection: keep-alive\r\n")
	}
	if f.chunked {
		wire.WriteTrailerField(w, resp.Trailer)
	}
	w.WriteString("\r\n")
}

// copyBody copies the body of a final response, if it has one.
func (x *exchange) copyBody(resp *http.Response, f framing) error {
	if !f.body {
		return wire.Flush(x.s.w)
	}
	body := wire.Body{
		Reader:  resp.Body,
		Source:  x.o.R,
		Chunked: f.chunked,
		Trailer: &resp.Trailer,
	}
	n, err := body.CopyTo(x.s.w)
	x.rec.Down = n
	return err
}

// authenticatesConnection reports whether a field is about NTLM or Negotiate
// (RFC 4559). They authenticate a connection and not a request, so that the
// connection must not serve another client after it.
func authenticatesConnection(values []string) bool {
	for _, v := range values {
		scheme, _, _ := strings.Cut(v, " ")
		if strings.EqualFold(scheme, "NTLM") || strings.EqualFold(scheme, "Negotiate") {
			return true
		}
	}
	return false
}
