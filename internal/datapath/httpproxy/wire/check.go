package wire

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// CheckResponse returns what is wrong with a response head that net/http's parser
// accepts: what another parser may read differently. A gateway answers 502 then
// (RFC 9112 section 5.1), because a field that it removes may have meant something.
// Folded lines are not wrong: the parser has replaced each fold by a space (section
// 5.2).
func CheckResponse(resp *http.Response) error {
	switch {
	case resp.ProtoMajor != 1:
		return fmt.Errorf("version %s", resp.Proto)
	case resp.StatusCode < 100: // RFC 9110 section 15
		return fmt.Errorf("status code %03d", resp.StatusCode)
	case !httpguts.ValidHeaderFieldValue(resp.Status):
		return errors.New("control character in the status line")
	}
	for name := range resp.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("malformed field name %q", name)
		}
	}
	return nil
}

// AsksUpgrade reports whether req asks its origin to switch protocols (RFC 9110
// section 7.8).
func AsksUpgrade(req *http.Request) bool {
	return req.ProtoAtLeast(1, 1) && req.Header.Get("Upgrade") != "" && ConnectionOptions(req.Header)["Upgrade"]
}

// CheckSwitch returns why resp, which has status 101, does not answer req: an
// origin may switch only to protocols that the request lists.
func CheckSwitch(req *http.Request, resp *http.Response) error {
	if !AsksUpgrade(req) {
		return errors.New("the origin switched protocols, which the request did not ask for")
	}
	names := 0
	for _, v := range resp.Header["Upgrade"] {
		for name := range strings.SplitSeq(v, ",") {
			name = strings.TrimSpace(name)
			if name == "" {
				continue
			}
			names++
			if !hasToken(req.Header["Upgrade"], name) {
				return fmt.Errorf("the origin switched to %q, which the request did not ask for", name)
			}
		}
	}
	if names == 0 {
		return errors.New("the origin switched protocols and did not say to which")
	}
	return nil
}
