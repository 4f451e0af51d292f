// Package flow holds the words that every stage of the data path shares: what
// a client asked for (Request), why it failed (Error and its Class), and what
// became of it (Record). It imports the standard library alone and does
// nothing by itself.
package flow

import (
	"net"
	"net/netip"
	"strconv"
)

// Front names the protocol that a client spoke to the gateway.
type Front string

const (
	Connect Front = "connect" // HTTP CONNECT, RFC 9110 section 9.3.6
	HTTP    Front = "http"    // an HTTP/1.1 request in absolute-form, RFC 9112 section 3.2.2
	SOCKS5  Front = "socks5"  // SOCKS version 5, RFC 1928
	SNI     Front = "sni"     // TLS told apart by its server name, RFC 6066 section 3
	Web     Front = "web"     // an HTTP/1.1 request told apart by its Host, RFC 9112 section 3.2
	Forward Front = "forward" // a port that stands for one target
)

// Fronts lists every front end, for tables and metrics.
func Fronts() []Front { return []Front{Connect, HTTP, SOCKS5, SNI, Web, Forward} }

// Request is what one client asked for, as its front end understood it.
type Request struct {
	Front  Front
	Client netip.AddrPort // the client's own address; the IPv4 form when it came in as IPv4-mapped
	User   string         // the authenticated user; empty means none was asked for

	// Host is the target as the client spelled it, without port and without
	// the brackets of an IPv6 literal. Port is never 0.
	Host string
	Port uint16
}

// Path is the network that carries a flow.
type Path string

const (
	Tailnet Path = "tailnet" // through a peer of the tailnet
	Direct  Path = "direct"  // through the host's own network
)

// Target is one address that a request may be sent to, judged already.
type Target struct {
	Addr netip.AddrPort
	Path Path
}

// Pair is two connections that belong together, with what was read ahead from
// each of them and is still to be passed on.
type Pair struct {
	Client, Target           net.Conn
	ClientEarly, TargetEarly []byte
}

// Target returns host:port, with brackets around an IPv6 literal.
func (r Request) Target() string {
	if r.Host == "" {
		return ""
	}
	return joinHostPort(r.Host, r.Port)
}

func joinHostPort(host string, port uint16) string {
	for i := range len(host) {
		if host[i] == ':' {
			return "[" + host + "]:" + strconv.Itoa(int(port))
		}
	}
	return host + ":" + strconv.Itoa(int(port))
}
