package wire

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
)

// Framing is how a final response reaches the client.
type Framing struct {
	Body    bool // the response has a body
	Chunked bool // the body is written in chunks
	Persist bool // the client's connection stays open after it
}

// BodyAllowed reports whether resp, the response to req, may have a body (RFC
// 9112 section 6.3).
func BodyAllowed(req *http.Request, resp *http.Response) bool {
	return req.Method != http.MethodHead && resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusNotModified
}

// WriteResponseHead writes the status line and the end-to-end fields of resp,
// without the empty line after them. CheckResponse has accepted resp. proxy is the
// name of this proxy in Via.
func WriteResponseHead(w *bufio.Writer, resp *http.Response, proxy string) {
	status := resp.Status
	if !strings.Contains(status, " ") {
		status = status[:3] + " " // RFC 9112 section 4: the space is required, the reason is not
	}
	w.WriteString("HTTP/1.1 " + status + "\r\n")
	options := ConnectionOptions(resp.Header)
	for name, values := range resp.Header {
		if !options.EndToEnd(name) || name == "Via" {
			continue
		}
		WriteField(w, name, values...)
	}
	writeVia(w, resp.Header["Via"], resp.ProtoMajor, resp.ProtoMinor, proxy)
}

// WriteFraming writes the fields for framing and for this connection, and ends
// the head of resp, the final response to req.
func WriteFraming(w *bufio.Writer, req *http.Request, resp *http.Response, f Framing) {
	switch {
	case f.Chunked:
		w.WriteString("Transfer-Encoding: chunked\r\n")
	case f.Body && resp.ContentLength >= 0:
		w.WriteString("Content-Length: " + strconv.FormatInt(resp.ContentLength, 10) + "\r\n")
	case !f.Body && resp.StatusCode != http.StatusNoContent:
		if length := resp.Header["Content-Length"]; len(length) > 0 { // of a HEAD or a 304
			WriteField(w, "Content-Length", length[0])
		}
	}
	switch {
	case !f.Persist:
		w.WriteString("Connection: close\r\n")
	case !req.ProtoAtLeast(1, 1):
		w.WriteString("Connection: keep-alive\r\n")
	}
	if f.Chunked {
		WriteTrailerField(w, resp.Trailer)
	}
	w.WriteString("\r\n")
}

// AuthenticatesConnection reports whether a field is about NTLM or Negotiate
// (RFC 4559). They authenticate a connection and not a request, so that the
// connection must not serve another client after it.
func AuthenticatesConnection(values []string) bool {
	for _, v := range values {
		scheme, _, _ := strings.Cut(v, " ")
		if strings.EqualFold(scheme, "NTLM") || strings.EqualFold(scheme, "Negotiate") {
			return true
		}
	}
	return false
}
