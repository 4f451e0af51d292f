package wire

import (
	"strconv"
	"strings"
	"time"
)

// KeepAlive returns what the values of a Keep-Alive field say of a connection: how long
// the peer keeps it while it is idle, and how many more requests it takes (RFC 2068
// section 19.7.1.1). Either is negative if the field does not say it, or not as a number.
func KeepAlive(values []string) (timeout time.Duration, most int) {
	timeout = -1
	most = -1
	for _, v := range values {
		for param := range strings.SplitSeq(v, ",") {
			name, value, _ := strings.Cut(param, "=")
			n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 31)
			switch name = strings.TrimSpace(name); {
			case err != nil:
			case strings.EqualFold(name, "timeout"):
				timeout = time.Duration(n) * time.Second
			case strings.EqualFold(name, "max"):
				most = int(n)
			}
		}
	}
	return timeout, most
}
