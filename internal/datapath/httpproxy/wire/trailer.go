package wire

import (
	"bufio"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// notInTrailers are fields that must not come after a body (RFC 9110 section
// 6.5.1), besides the hop-by-hop ones and those of notInTrailersPrefixes: fields
// for routing, authentication and cookies, request modifiers, and control data of
// responses. A recipient that merges trailer fields into the head could take them
// for fields that were judged.
var notInTrailers = map[string]bool{
	"Host":                      true,
	"Via":                       true,
	"Forwarded":                 true,
	"Authorization":             true,
	"Www-Authenticate":          true,
	"Authentication-Info":       true,
	"Proxy-Authentication-Info": true,
	"Proxy-Status":              true,
	"Cookie":                    true,
	"Set-Cookie":                true,
	"Cache-Control":             true,
	"Pragma":                    true,
	"Expect":                    true,
	"Max-Forwards":              true,
	"Range":                     true,
	"Age":                       true,
	"Date":                      true,
	"Expires":                   true,
	"Location":                  true,
	"Retry-After":               true,
	"Vary":                      true,
	"Warning":                   true,
	"Origin":                    true,
	"X-Real-Ip":                 true,
}

// notInTrailersPrefixes begin the names of preconditions, of fields about the
// content, of fields that proxies add, and of fields that browsers obey.
var notInTrailersPrefixes = []string{"If-", "Content-", "X-Forwarded-", "Access-Control-", "Sec-"}

// MayTrail reports whether a trailer field is passed on. Others are dropped. The
// message is not refused, because its head and its body have been passed on when
// its trailer fields come. Content-Digest is made for trailers (RFC 9530 section 2).
// name is canonical.
func MayTrail(name string) bool {
	if hopByHop[name] || notInTrailers[name] || !httpguts.ValidHeaderFieldName(name) {
		return false
	}
	for _, p := range notInTrailersPrefixes {
		if strings.HasPrefix(name, p) {
			return name == "Content-Digest"
		}
	}
	return true
}

// writeAnnouncement writes f, a Trailer field, with the names of those trailer fields that
// are passed on.
func writeAnnouncement(w *bufio.Writer, f field) {
	var names []string
	for name := range strings.SplitSeq(f.value, ",") {
		name = strings.TrimSpace(name)
		if MayTrail(http.CanonicalHeaderKey(name)) {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		WriteField(w, f.name, strings.Join(names, ", "))
	}
}

// writeTrailer writes the trailer fields of c, and returns how many it left out.
func writeTrailer(w *bufio.Writer, c *Chunks) (dropped int) {
	all := fields{rest: c.order, header: c.Trailer}
	for f, ok := all.next(); ok; f, ok = all.next() {
		if MayTrail(f.key) {
			WriteField(w, f.name, f.value)
		} else {
			dropped++
		}
	}
	return dropped
}
