package status

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// ExplainRequest is the body of POST /explain. The zero value asks for a check
// of the replica itself.
type ExplainRequest struct {
	// Target is a URL (http or https), or host:port.
	Target string `json:"target,omitempty"`
	// Client is the address of the client to stand for. Empty means 127.0.0.1,
	// which no rule matches that names clients.
	Client string `json:"client,omitempty"`
	// User is name:password, as a client would send them. Empty means none.
	User string `json:"user,omitempty"`
	// TLS requests a TLS handshake with a target of the form host:port. https
	// URLs and port 443 always get one.
	TLS bool `json:"tls,omitempty"`
	// HTTP requests "GET /" from a target of the form host:port. URLs are always
	// requested.
	HTTP bool `json:"http,omitempty"`
	// CA holds authorities in PEM that are trusted in addition to the system's.
	CA string `json:"ca,omitempty"`
}

// Outcome says how a stage went.
type Outcome string

// The outcomes of a stage.
const (
	OK   Outcome = "ok"
	Warn Outcome = "warn" // no failure, but a person should look
	Fail Outcome = "fail"
)

// Explanation says what happened, stage by stage: the answer of POST /explain.
// Its JSON is an interface.
type Explanation struct {
	Target string `json:"target,omitempty"`
	Client string `json:"client,omitempty"`
	Device string `json:"device"` // the replica's name on its tailnet
	// Class is the flow.Class of the first stage that failed, as text. It is "ok"
	// when none failed.
	Class  string  `json:"class"`
	Hint   string  `json:"hint,omitempty"` // what to do about the failure
	Stages []Stage `json:"stages"`

	Flow     *flow.Record `json:"flow,omitempty"`  // as far as it got, with the keys of the log line
	Steps    []Step       `json:"steps,omitempty"` // of the name's resolution
	Carriers []Carrier    `json:"carriers,omitempty"`
	TLS      *TLS         `json:"tls,omitempty"`
	HTTP     string       `json:"http,omitempty"` // status line of the target's answer
}

// Stage is one stage of the data path, or one check of the replica.
type Stage struct {
	Name   string   `json:"name"`
	Status Outcome  `json:"status"`
	Says   string   `json:"says"`
	Detail []string `json:"detail,omitempty"`
	Millis float64  `json:"ms,omitempty"` // how long it took; 0 means that it was not measured
}

// Step is what one source said about a name, or why it was not asked.
type Step struct {
	Source string `json:"source"` // as in flow.Record's Source, or one resolver's address
	Name   string `json:"name"`   // the name asked for; a search domain or an alias may have changed it
	Says   string `json:"says"`
}

// Kind is what a peer is to an address that it carries.
type Kind string

// The kinds of peers that carry an address.
const (
	KindPeer         Kind = "peer"          // the address is the peer's own
	KindSubnetRouter Kind = "subnet router" // the address is in a subnet that the peer routes
	KindExitNode     Kind = "exit node"     // the peer routes all addresses
)

// Carrier is the peer that carries an address, with the route for that address.
type Carrier struct {
	Addr  netip.Addr   `json:"addr"`
	Kind  Kind         `json:"kind"`
	Route netip.Prefix `json:"route"` // the peer's longest prefix that holds Addr
	Peer
}

// NewCarrier returns peer as the carrier of addr, which is in route.
func NewCarrier(addr netip.Addr, route netip.Prefix, peer Peer) Carrier {
	c := Carrier{
		Addr:  addr,
		Kind:  KindSubnetRouter,
		Route: route,
		Peer:  peer,
	}
	switch {
	case slices.Contains(peer.Addrs, addr):
		c.Kind = KindPeer
	case route.Bits() == 0:
		c.Kind = KindExitNode
	}
	return c
}

// String names the peer, what it carries, and how it is reached.
func (c Carrier) String() string {
	parts := []string{c.Name, string(c.Kind)}
	if c.Kind != KindPeer {
		parts[1] += " of " + c.Route.String()
	}
	if !c.Online {
		parts = append(parts, "OFFLINE according to the control server")
	}
	if c.Path != "" {
		parts = append(parts, c.Path)
	} else {
		parts = append(parts, "no path used yet")
	}
	if c.LastHandshake != nil {
		parts = append(parts, fmt.Sprintf("last handshake %v ago", time.Since(*c.LastHandshake).Round(time.Second)))
	} else {
		parts = append(parts, "no handshake yet")
	}
	return strings.Join(parts, ", ")
}

// TLS is what a target showed in its TLS handshake.
type TLS struct {
	Version  string    `json:"version"`            // such as "TLS 1.3"
	Protocol string    `json:"protocol,omitempty"` // chosen by ALPN; empty means none
	Names    []string  `json:"names"`              // DNS names and addresses in the certificate
	Issuer   string    `json:"issuer"`
	Expires  time.Time `json:"expires"`
	Verified bool      `json:"verified"`
	// WantsCertificate reports whether the target asked for a client certificate.
	WantsCertificate bool   `json:"wantsCertificate,omitempty"`
	Err              string `json:"err,omitempty"` // why the certificate is not verified
}
