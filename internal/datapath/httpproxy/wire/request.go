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

// WriteRequestHead writes the head of req for its origin. proxy is the name of
// this proxy in Via.
func WriteRequestHead(w *bufio.Writer, req *http.Request, proxy string) {
	hasBody := req.Body != http.NoBody
	w.WriteString(req.Method + " " + OriginForm(req) + " HTTP/1.1\r\nHost: " + req.Host + "\r\n")
	options := ConnectionOptions(req.Header)
	for name, values := range req.Header {
		switch {
		case !options.EndToEnd(name), name == "Via":
			continue
		case name == "Expect" && !(hasBody && req.ProtoAtLeast(1, 1)): // RFC 9110 section 10.1.1
			continue
		}
		WriteField(w, name, values...)
	}
	writeVia(w, req.Header["Via"], req.ProtoMajor, req.ProtoMinor, proxy)
	switch {
	case AsksUpgrade(req):
		w.WriteString("Connection: Upgrade\r\n")
		WriteField(w, "Upgrade", req.Header["Upgrade"]...)
	case hasToken(req.Header["Te"], "trailers"):
		w.WriteString("Connection: TE\r\nTE: trailers\r\n")
	}
	switch {
	case IsChunked(req):
		w.WriteString("Transfer-Encoding: chunked\r\n")
		WriteTrailerField(w, req.Trailer)
	case hasBody || len(req.Header["Content-Length"]) > 0:
		w.WriteString("Content-Length: " + strconv.FormatInt(max(req.ContentLength, 0), 10) + "\r\n")
	}
	w.WriteString("\r\n")
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
