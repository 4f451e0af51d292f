// Package wire reads and writes HTTP/1.1 messages (RFC 9112) as a proxy has to:
// it checks what the next server may read differently, keeps the fields of one
// connection from the next one, and passes bodies on as they come. net/http
// parses the heads. The package does not know connections or flows.
package wire

import (
	"bufio"
	"encoding/base64"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// hopByHop are the fields that concern one connection alone: those of RFC 9110
// section 7.6.1, and two that clients made up for proxies. The framing fields
// are among them, because the framing of a message is written afresh.
var hopByHop = map[string]bool{
	"Connection":          true,
	"Proxy-Connection":    true,
	"Keep-Alive":          true,
	"Te":                  true,
	"Trailer":             true,
	"Transfer-Encoding":   true,
	"Upgrade":             true,
	"Proxy-Authorization": true,
	"Proxy-Authenticate":  true,
	"Content-Length":      true,
}

// Options are what the Connection field of a message lists, in canonical form.
type Options map[string]bool

// ConnectionOptions returns the options of a message with the fields h.
func ConnectionOptions(h http.Header) Options {
	vs := h["Connection"]
	if len(vs) == 0 {
		return nil
	}
	o := Options{}
	for _, v := range vs {
		for name := range strings.SplitSeq(v, ",") {
			name = strings.TrimSpace(name)
			if name != "" {
				o[http.CanonicalHeaderKey(name)] = true
			}
		}
	}
	return o
}

// EndToEnd reports whether a field of the message is for its last recipient,
// not for this connection alone. name is canonical.
func (o Options) EndToEnd(name string) bool { return !hopByHop[name] && !o[name] }

// hasToken reports whether a comma-separated list of tokens has token. Case
// does not matter.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// WriteField writes a field line. It trims surrounding white space, which is not part
// of the value (RFC 9110 section 5.5): net/http leaves some where a value ends with an
// empty continuation line.
func WriteField(w *bufio.Writer, name, value string) {
	w.WriteString(name)
	w.WriteString(": ")
	w.WriteString(textproto.TrimString(value))
	w.WriteString("\r\n")
}

// via returns the Via field of a message that this proxy passes on (RFC 9110 section
// 7.6.3). before are the values it came with, major and minor the version it came in.
func via(before []string, major, minor int, proxy string) own {
	v := strconv.Itoa(major) + "." + strconv.Itoa(minor) + " " + proxy
	if len(before) > 0 {
		v = strings.Join(before, ", ") + ", " + v
	}
	return own{name: "Via", key: "Via", value: v}
}

// HasVia reports whether the values of a Via field name proxy.
func HasVia(values []string, proxy string) bool {
	for _, value := range values {
		for v := range strings.SplitSeq(value, ",") {
			f := strings.Fields(v)
			if len(f) >= 2 && strings.EqualFold(f[1], proxy) {
				return true
			}
		}
	}
	return false
}

// BasicAuth returns the credentials in a field of the Basic scheme, RFC 7617.
func BasicAuth(field string) (user, password string, ok bool) {
	scheme, rest, _ := strings.Cut(field, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(b), ":")
}

// SFString returns s as a string of RFC 9651 section 3.3.3, which holds
// printable ASCII only.
func SFString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r >= 0x20 && r < 0x7f:
			b.WriteRune(r)
		default:
			b.WriteByte('?')
		}
	}
	b.WriteByte('"')
	return b.String()
}
