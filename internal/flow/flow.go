// Package flow holds the words that all stages of the data path share: what a
// client asked for (Request), why that failed (Error and its Class), and what
// became of it (Record). A flow is one tunnel, or one plain-HTTP request. The
// package imports only the standard library. It opens no connection and makes
// no decision.
package flow

import (
	"net"
	"net/netip"
	"strconv"
	"time"
)

// Front is the front that serves a flow, named after the protocol that the
// client speaks.
type Front string

const (
	Connect Front = "connect" // HTTP CONNECT, RFC 9110 section 9.3.6
	HTTP    Front = "http"    // an HTTP/1.1 request in absolute-form, RFC 9112 section 3.2.2
	SOCKS5  Front = "socks5"  // SOCKS version 5, RFC 1928
	SOCKS4  Front = "socks4"  // SOCKS version 4, and its extension 4A
	SNI     Front = "sni"     // TLS to the target of its server name, RFC 6066 section 3
	Web     Front = "web"     // an HTTP/1.1 request to the target of its Host field, RFC 9112 section 3.2
	Forward Front = "forward" // a port that stands for one target
)

// Fronts lists every front, for tables and metrics.
func Fronts() []Front { return []Front{Connect, HTTP, SOCKS5, SOCKS4, SNI, Web, Forward} }

// Request is what one client asked for, as its front understood it.
type Request struct {
	Front  Front
	Client netip.AddrPort // the client's own address; never an IPv4-mapped one
	User   string         // the authenticated user; empty when clients need none

	// Host is the target as the client spelled it: without the port, and without
	// the brackets of an IPv6 literal. It is empty until it is known. With a Host,
	// Port is never 0.
	Host string
	Port uint16
}

// Path is the network that carries a flow.
type Path string

const (
	Tailnet Path = "tailnet" // through a peer of the tailnet
	Direct  Path = "direct"  // through the pod's own network
)

// Target is one address that the policy lets a request go to.
type Target struct {
	Addr netip.AddrPort
	Path Path
}

// Pair is the two connections of a tunnel.
type Pair struct {
	Client net.Conn
	Target net.Conn
	// ClientEarly and TargetEarly are bytes that were read from the connection
	// already and are still to be passed on. Nil when there are none.
	ClientEarly []byte
	TargetEarly []byte
	// Owner is the client whose memory the pair's is. The zero Addr is a client
	// too.
	Owner netip.Addr
}

// Memory counts the bytes of memory that are held for clients.
type Memory interface {
	// Take takes n bytes for a client, or returns an *Error of class Overloaded.
	Take(client netip.Addr, n int64) error
	// Add adds n bytes that are held already. A negative n gives back.
	Add(client netip.Addr, n int64)
}

// Holder is something that holds memory for a client and makes no progress.
type Holder struct {
	Owner netip.Addr
	Bytes int64     // how much it holds
	Since time.Time // when it last made progress
	// End ends it, as overloaded. It may be over already.
	End func()
}

// Target returns host:port, with brackets around an IPv6 literal, or "" as long
// as the host is not known. A host that is too long for a name is cut.
func (r Request) Target() string {
	if r.Host == "" {
		return ""
	}
	return joinHostPort(Short(r.Host), r.Port)
}

func joinHostPort(host string, port uint16) string {
	for i := range len(host) {
		if host[i] == ':' {
			return "[" + host + "]:" + strconv.Itoa(int(port))
		}
	}
	return host + ":" + strconv.Itoa(int(port))
}
