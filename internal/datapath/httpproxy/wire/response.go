package wire

import (
	"bufio"
	"net/http"
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

// Response is the head of a response, with its fields as they came.
type Response struct {
	*http.Response
	Order Order
	// Ambiguous is set if the end of the response is not clear: it has
	// Transfer-Encoding together with Content-Length, or in HTTP/1.0. net/http has
	// decided, and does not say so. The connection must be closed after such a
	// response (RFC 9112 sections 6.1 and 6.3).
	Ambiguous bool
}

// WriteInterim writes resp, an interim response. proxy is the name of this proxy in Via.
// CheckResponse has accepted resp.
func WriteInterim(w *bufio.Writer, resp *Response, proxy string) {
	writeHead(w, resp, proxy, nil, false)
}

// WriteSwitch writes resp, a response with status 101 that CheckSwitch has accepted.
func WriteSwitch(w *bufio.Writer, resp *Response, proxy string) {
	writeHead(w, resp, proxy, upgrade(resp.Header), false)
}

// WriteFinal writes the head of resp, the final response to req, with the fields for
// framing and for this connection.
func WriteFinal(w *bufio.Writer, req *http.Request, resp *Response, f Framing, proxy string) {
	mine := make([]own, 0, 4)
	switch {
	case f.Chunked:
		mine = append(mine, own{name: "Transfer-Encoding", key: "Transfer-Encoding", value: "chunked"})
	case f.Body && resp.ContentLength >= 0:
		mine = append(mine, contentLength(resp.ContentLength))
	case !f.Body && resp.StatusCode != http.StatusNoContent:
		if length := resp.Header["Content-Length"]; len(length) > 0 { // of a HEAD or a 304
			mine = append(mine, own{name: "Content-Length", key: "Content-Length", value: length[0]})
		}
	}
	connection := ""
	switch {
	case !f.Persist:
		connection = "close"
	case !req.ProtoAtLeast(1, 1):
		connection = "keep-alive"
	}
	if resp.StatusCode == http.StatusUpgradeRequired && len(resp.Header["Upgrade"]) > 0 { // RFC 9110 section 15.5.22
		asked := upgrade(resp.Header)
		mine = append(mine, asked[1])
		connection = strings.TrimSuffix(asked[0].value+", "+connection, ", ")
	}
	if connection != "" {
		mine = append(mine, own{name: "Connection", key: "Connection", value: connection})
	}
	writeHead(w, resp, proxy, mine, f.Chunked)
}

// writeHead writes the status line and the fields of resp, with mine in their place.
func writeHead(w *bufio.Writer, resp *Response, proxy string, mine []own, trailers bool) {
	status := resp.Status
	if !strings.Contains(status, " ") {
		status = status[:3] + " " // RFC 9112 section 4: the space is required, the reason is not
	}
	w.WriteString("HTTP/1.1 " + status + "\r\n")
	mine = append(mine, via(resp.Header["Via"], resp.ProtoMajor, resp.ProtoMinor, proxy))
	writeFields(w, resp.Order, resp.Header, mine, trailers)
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
