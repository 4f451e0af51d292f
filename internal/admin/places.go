package admin

import (
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/pandoproxy/pando/internal/socket"
)

const (
	mostConns    = 96 // connections in all
	mostOfClient = 16 // connections of one client address
)

// places bounds the connections of the admin port, in all and for each client
// address. When there are too many, it closes the one that has been longest in its
// state, of the client that has the most. So a new connection always gets in, and
// others keep theirs: a client that opens as many as it can does not stop the
// probes of the kubelet. The zero value is ready.
type places struct {
	mu     sync.Mutex
	open   []place // the one longest in its state first
	ending []place // closed by places, but net/http has not ended its work for them
}

// place is a connection with its client, as socket.ClientAddr returns it.
type place struct {
	conn   net.Conn
	client netip.Addr
}

// follow is the ConnState function of the http.Server.
func (p *places) follow(c net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateNew:
		p.enter(place{c, socket.ClientAddr(c).Addr()})
	case http.StateClosed, http.StateHijacked:
		p.open = without(p.open, c)
		p.ending = without(p.ending, c)
	default:
		p.renew(c)
	}
}

// enter takes a new connection, and closes another one if there are too many.
func (p *places) enter(n place) {
	if p.hasManyEnding(n.client) {
		socket.Abort(n.conn)
		return
	}
	p.open = append(p.open, n)
	counts := map[netip.Addr]int{}
	for _, o := range p.open {
		counts[o.client]++
	}
	switch {
	case counts[n.client] > mostOfClient:
		p.evict(func(o place) bool { return o.client == n.client })
	case len(p.open) > mostConns:
		most := slices.Max(slices.Collect(maps.Values(counts)))
		p.evict(func(o place) bool { return counts[o.client] == most })
	}
}

// evict closes the first open connection that matches.
func (p *places) evict(matches func(place) bool) {
	i := slices.IndexFunc(p.open, matches)
	o := p.open[i]
	p.open = slices.Delete(p.open, i, i+1)
	p.ending = append(p.ending, o)
	socket.Abort(o.conn)
}

// hasManyEnding reports whether too many connections of client are ending, so that it
// gets no new one. net/http may work for a connection after it is closed: for half a
// second after a head that is too large. That work must not use up memory.
func (p *places) hasManyEnding(client netip.Addr) bool {
	mine := 0
	for _, e := range p.ending {
		if e.client == client {
			mine++
		}
	}
	return mine >= mostOfClient || mine > 0 && len(p.ending) >= mostConns
}

// renew makes c the one that is shortest in its state.
func (p *places) renew(c net.Conn) {
	i := slices.IndexFunc(p.open, func(o place) bool { return o.conn == c })
	if i < 0 {
		return // it is ending
	}
	o := p.open[i]
	p.open = append(slices.Delete(p.open, i, i+1), o)
}

// without returns list without the place of c.
func without(list []place, c net.Conn) []place {
	return slices.DeleteFunc(list, func(o place) bool { return o.conn == c })
}
