package wire

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
)

// IsChunked reports whether the body of req is passed on in chunks, because its
// length is not known.
func IsChunked(req *http.Request) bool { return req.Body != http.NoBody && req.ContentLength < 0 }

// WriteRequestHead writes the head of req for its origin, with its fields in order. proxy
// is the name of this proxy in Via.
func WriteRequestHead(w *bufio.Writer, req *http.Request, order Order, proxy string) {
	hasBody := req.Body != http.NoBody
	w.WriteString(req.Method + " " + OriginForm(req) + " HTTP/1.1\r\n")
	host := own{name: "Host", key: "Host", value: req.Host}
	if !order.has("Host") {
		WriteField(w, host.name, host.value)
		host.written = true
	}
	mine := append(make([]own, 0, 6), host, via(req.Header["Via"], req.ProtoMajor, req.ProtoMinor, proxy)) // no allocation
	switch {
	case AsksUpgrade(req):
		mine = append(mine, upgrade(req.Header)...)
	case hasToken(req.Header["Te"], "trailers"):
		mine = append(mine, own{name: "Connection", key: "Connection", value: "TE"}, own{name: "TE", key: "Te", value: "trailers"})
	}
	switch {
	case IsChunked(req):
		mine = append(mine, own{name: "Transfer-Encoding", key: "Transfer-Encoding", value: "chunked"})
	case hasBody || len(req.Header["Content-Length"]) > 0:
		mine = append(mine, contentLength(max(req.ContentLength, 0)))
	}
	if !hasBody || !req.ProtoAtLeast(1, 1) { // RFC 9110 section 10.1.1
		mine = append(mine, own{key: "Expect", written: true})
	}
	writeFields(w, order, req.Header, mine, IsChunked(req))
	w.WriteString("\r\n")
}

// upgrade returns the fields with which a message with the fields h asks for, or
// announces, other protocols.
func upgrade(h http.Header) []own {
	return []own{
		{name: "Connection", key: "Connection", value: "Upgrade"},
		{name: "Upgrade", key: "Upgrade", value: strings.Join(h["Upgrade"], ", ")},
	}
}

func contentLength(n int64) own {
	return own{name: "Content-Length", key: "Content-Length", value: strconv.FormatInt(n, 10)}
}

// OriginForm returns the request-target for the origin: what the client sent
// after the authority, byte for byte (RFC 9112 section 3.2.1).
func OriginForm(req *http.Request) string {
	if strings.HasPrefix(req.RequestURI, "/") || req.RequestURI == "*" {
		return req.RequestURI // it is in that form already
	}
	_, rest, _ := strings.Cut(req.RequestURI, "://")
	i := strings.IndexAny(rest, "/?#")
	if i < 0 {
		if req.Method == http.MethodOptions {
			return "*" // RFC 9112 section 3.2.4
		}
		return "/"
	}
	rest, _, _ = strings.Cut(rest[i:], "#")
	if !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	return rest
}

// Replayable reports whether req may be sent twice. It may if its method is
// idempotent (RFC 9110 section 9.2.2) and it has no body: the first try has
// consumed the body.
func Replayable(req *http.Request) bool {
	if req.Body != http.NoBody {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// BodyHasMeaning reports whether a request with this method may have a body that
// every origin reads (RFC 9110 section 9.3).
func BodyHasMeaning(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions, http.MethodTrace:
		return false
	}
	return true
}
