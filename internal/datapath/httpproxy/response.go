package httpproxy

import (
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// respond copies the final response and settles both connections.
func (x *exchange) respond(resp *http.Response) fate {
	s, rec := x.s, x.rec
	rec.Status = resp.StatusCode
	x.answered = true
	w := s.bw
	persist := s.persistent(x.req)
	expect := bodyAllowed(x.req, resp)
	chunked := false
	switch {
	case !expect:
	case resp.ContentLength < 0 && x.req.ProtoAtLeast(1, 1):
		chunked = true
	case resp.ContentLength < 0:
		persist = false // HTTP/1.0: the end of the connection is the end of the body
	}
	if x.sent != nil && !x.bodySent(bodyGrace) {
		persist = false // an early response: the rest of the request is in the way
	}
	x.writeHead(resp, &framing{chunked: chunked, persist: persist, body: expect})
	if chunked {
		writeTrailerField(w, resp.Trailer)
	}
	w.WriteString("\r\n")

	var err error
	if expect {
		var dst io.Writer = w
		var cw io.WriteCloser
		if chunked {
			cw = httputil.NewChunkedWriter(w)
			dst = cw
		}
		rec.Down, err = copyFlushing(dst, w, resp.Body, x.o.br, nil)
		if err == nil && chunked {
			cw.Close()
			writeTrailers(w, resp.Trailer)
			w.WriteString("\r\n")
		}
	}
	if err == nil {
		err = s.flush()
	}
	if err != nil {
		rec.Err = x.classify(err)
		x.settle(false)
		s.c.SetLinger(0) // the client must not take this for a whole response
		return closeNow
	}
	if x.settle(!resp.Close && !authenticatesConnection(x.req.Header["Authorization"]) && !authenticatesConnection(resp.Header["Www-Authenticate"])) && persist {
		return keep
	}
	return closeGently
}

// authenticatesConnection reports whether a field speaks of NTLM or Negotiate
// (RFC 4559), which authenticate a connection and not a request: it must not
// serve another client after that.
func authenticatesConnection(fields []string) bool {
	for _, f := range fields {
		scheme, _, _ := strings.Cut(f, " ")
		if strings.EqualFold(scheme, "NTLM") || strings.EqualFold(scheme, "Negotiate") {
			return true
		}
	}
	return false
}

// framing is how the body of a response reaches the client.
type framing struct{ chunked, persist, body bool }

// writeHead writes the status line and fields of resp, without the empty line
// behind them. A nil framing means an interim response.
func (x *exchange) writeHead(resp *http.Response, f *framing) {
	w := x.s.bw
	status := resp.Status
	if !strings.Contains(status, " ") || !httpguts.ValidHeaderFieldValue(status) {
		status = status[:3] + " " // RFC 9112 section 4: the space is required, the reason is not
	}
	w.WriteString("HTTP/1.1 " + status + "\r\n")
	options := connectionOptions(resp.Header)
	for k, vs := range resp.Header {
		// net/http lets "Name :" pass; RFC 9112 section 5.1 wants the space gone,
		// lest the client take for framing what we did not.
		k = http.CanonicalHeaderKey(strings.TrimRight(k, " "))
		if hopByHop[k] || options[k] || k == "Via" || !httpguts.ValidHeaderFieldName(k) {
			continue
		}
		writeField(w, k, vs)
	}
	writeField(w, "Via", []string{via(resp.Header["Via"], resp.ProtoMajor, resp.ProtoMinor, x.s.p.name())})
	if f == nil {
		return
	}
	switch {
	case f.chunked:
		w.WriteString("Transfer-Encoding: chunked\r\n")
	case f.body && resp.ContentLength >= 0:
		w.WriteString("Content-Length: " + strconv.FormatInt(resp.ContentLength, 10) + "\r\n")
	case !f.body && resp.StatusCode != http.StatusNoContent:
		if cl := resp.Header["Content-Length"]; len(cl) > 0 { // of a HEAD or a 304
			writeField(w, "Content-Length", cl[:1])
		}
	}
	switch {
	case !f.persist:
		w.WriteString("Connection: close\r\n")
	case !x.req.ProtoAtLeast(1, 1):
		w.WriteString("Connection: keep-alive\r\n")
	}
}

func bodyAllowed(req *http.Request, resp *http.Response) bool {
	return req.Method != http.MethodHead && resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusNotModified
}
