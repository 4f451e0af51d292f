package limit

import "net/netip"

// tally counts what clients hold, in all and for each client. The zero value is
// ready. It has no lock.
type tally[N int | int64] struct {
	total   N
	clients map[netip.Addr]N // without those that hold nothing
}

// add changes what client holds by n. A negative n gives back.
func (t *tally[N]) add(client netip.Addr, n N) {
	if t.clients == nil {
		t.clients = map[netip.Addr]N{}
	}
	t.total += n
	t.clients[client] += n
	if t.clients[client] == 0 {
		delete(t.clients, client)
	}
}

// shareOf returns how much of whole client may hold, see share.
func (t *tally[N]) shareOf(whole N, client netip.Addr) N {
	others := len(t.clients) > 1 || len(t.clients) == 1 && t.clients[client] == 0
	return N(share(int64(whole), int64(t.total), others))
}

// hasShare reports whether client holds as much of whole as it may. Zero means no
// bound.
func (t *tally[N]) hasShare(whole N, client netip.Addr) bool {
	return whole > 0 && t.clients[client] >= t.shareOf(whole, client)
}
