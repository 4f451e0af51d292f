// Package names checks the host names that a configuration contains.
package names

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/pandoproxy/pando/internal/host"
)

var labelForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// IsLabel reports whether s is one label of a host name, in lower case (RFC 1123).
func IsLabel(s string) bool { return labelForm.MatchString(s) }

var nameForm = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// Check returns what is wrong with a host name, or a "*.suffix"; nil if it is
// valid.
func Check(name string) error {
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Errorf("%q is an address, not a name", name)
	}
	if host.EndsInNumber(name) {
		return fmt.Errorf("%q ends in a number, so it is never a name", name)
	}
	if strings.HasSuffix(name, ".") {
		return fmt.Errorf("%q ends in a dot; leave the dot out", name)
	}
	if !nameForm.MatchString(strings.ToLower(name)) || len(name) > 253 {
		return fmt.Errorf("invalid host name %q: write one such as api.example.com, or *.example.com for all names below it", name)
	}
	return nil
}

// hostForm is any name that a resolver may know. It is wider than nameForm: only
// the resolver can decide whether the name exists.
var hostForm = regexp.MustCompile(`^([a-zA-Z0-9_-]{1,63}\.)*[a-zA-Z0-9_-]{1,63}\.?$`)

// IsHost reports whether name has the form of a host, and the fronts do not read
// it as a malformed address.
func IsHost(name string) bool {
	_, err := host.Parse(name)
	return err == nil && hostForm.MatchString(name)
}
