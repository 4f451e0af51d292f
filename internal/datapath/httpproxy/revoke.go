package httpproxy

import "github.com/pandoproxy/pando/internal/socket"

// revoke ends the exchange because of why, a *flow.Error: it resets the client's
// connection and closes that of the origin. Once the exchange is over it does
// nothing, because the connections may be in use for another one.
func (x *exchange) revoke(why error) {
	p := x.s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.s.current != x || x.revoked != nil {
		return
	}
	x.revoked = why
	socket.Abort(x.s.c)
	x.o.Close()
}

// whyRevoked returns the argument of revoke, or nil if the exchange was not revoked.
func (x *exchange) whyRevoked() error {
	x.s.p.mu.Lock()
	defer x.s.p.mu.Unlock()
	return x.revoked
}
