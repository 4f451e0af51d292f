// Package status has the types of a replica's status page and of its explanations:
// their JSON, and the words for what a person reads of them. The admin port writes
// the JSON; pando status, pando flows, pando explain and tests read it back. The
// package does not gather a status and does not serve one.
package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// Replica is the state of one replica: the answer of GET /status. Its JSON is
// an interface. pando status reads it, and a golden test holds its keys.
type Replica struct {
	Version string    `json:"version"`
	Mode    string    `json:"mode"` // "userspace" or "kernel"
	Started time.Time `json:"started"`
	Listen  []string  `json:"listen"` // addresses of the ports for clients, the proxy port's first
	// Ready reports whether all Checks hold.
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
	// Configuration says which changes of the configuration are not in force.
	// It is empty when all of it is.
	Configuration string        `json:"configuration,omitempty"`
	Tailnet       Device        `json:"tailnet"`
	Peers         []Peer        `json:"peers"`
	Zones         []Zone        `json:"zones"`     // the split DNS of the tailnet
	Resolvers     []Resolver    `json:"resolvers"` // those that were queried recently
	Limits        []Limit       `json:"limits"`
	FlowsTotal    int           `json:"flowsTotal"` // number of flows in progress
	Flows         []flow.Record `json:"flows"`      // the oldest of the flows in progress
}

// Names of checks that code refers to.
const (
	OnTailnet   = "tailnet"      // the device has joined its tailnet
	NotDraining = "not-draining" // the replica is not shutting down
	// ExpectedTailnet: the device is not in another tailnet than the expected one
	ExpectedTailnet = "expected-tailnet"
)

// Check is one condition of readiness.
type Check struct {
	Name string
	Err  error // nil when the condition holds
	// Note is a problem that does not make the replica unready. It is empty if
	// there is none.
	Note string
}

// checkJSON is the wire form of a Check.
type checkJSON struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Err  string `json:"err,omitempty"`
	Note string `json:"note,omitempty"`
}

// MarshalJSON writes the check with its error as text.
func (c Check) MarshalJSON() ([]byte, error) {
	wire := checkJSON{
		Name: c.Name,
		OK:   c.Err == nil,
		Note: c.Note,
	}
	if c.Err != nil {
		wire.Err = c.Err.Error()
	}
	return json.Marshal(wire)
}

// UnmarshalJSON reads what MarshalJSON writes. The error keeps its text alone.
func (c *Check) UnmarshalJSON(data []byte) error {
	var wire checkJSON
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	*c = Check{Name: wire.Name, Note: wire.Note}
	if !wire.OK {
		c.Err = errors.New(wire.Err)
	}
	return nil
}

// Device is the replica's device on the tailnet.
type Device struct {
	ID    string       `json:"id"`   // the control server's stable ID of the device
	Name  string       `json:"name"` // full MagicDNS name, without the final dot
	Addrs []netip.Addr `json:"addrs"`
	State string       `json:"state"` // the engine's own word, such as "Running" or "NeedsLogin"
	Up    bool         `json:"up"`    // the device has joined and has a network map
	// LoginURL is where a person can log the device in. Who opens it chooses the
	// device's tailnet. It is empty when no person has to log in.
	LoginURL         string     `json:"loginURL,omitempty"`
	ControlConnected bool       `json:"controlConnected"`
	KeyExpiry        *time.Time `json:"keyExpiry,omitempty"` // nil means that the key does not expire
	HomeRelay        string     `json:"homeRelay"`           // code of the DERP region; empty when none is reached
	HomeHeard        *time.Time `json:"homeHeard,omitempty"` // when the home relay last sent anything; nil means never
	// ClockAhead is how many seconds the control server's clock was ahead of
	// this machine's when the server last sent its time. It is negative when the
	// server's clock was behind, and nil when the server never sent its time.
	ClockAhead     *float64 `json:"clockAhead,omitempty"`
	Health         []string `json:"health"` // the engine's own warnings
	SessionsMended int64    `json:"sessionsMended"`
}

// Peer is another device of the tailnet.
type Peer struct {
	Name   string         `json:"name"`
	Addrs  []netip.Addr   `json:"addrs"`
	Routes []netip.Prefix `json:"routes"` // prefixes that the peer carries, besides its own addresses
	Online bool           `json:"online"` // according to the control server
	// Path is how packets reach the peer: "direct ADDRESS:PORT", "relay REGION"
	// (a DERP region's code, or the address of a peer relay), or empty while
	// nothing was sent to it.
	Path          string     `json:"path"`
	LastHandshake *time.Time `json:"lastHandshake,omitempty"` // of WireGuard; nil means never
	Received      int64      `json:"received"`                // bytes
	Sent          int64      `json:"sent"`                    // bytes
}

// Zone is a DNS suffix with its resolvers.
type Zone struct {
	Suffix    string   `json:"suffix"`
	Resolvers []string `json:"resolvers"` // empty when no resolver is set: the suffix's names do not exist
}

// Resolver is the state of one DNS resolver.
type Resolver struct {
	Server   string     `json:"server"`             // address:port
	Answered *time.Time `json:"answered,omitempty"` // its last answer; nil means never
	Failed   *time.Time `json:"failed,omitempty"`   // its last failure; nil means never
	Err      string     `json:"err,omitempty"`      // what failed then
}

// Fails reports whether the last query to the resolver failed.
func (r Resolver) Fails() bool {
	return r.Failed != nil && (r.Answered == nil || r.Failed.After(*r.Answered))
}

// State says how the last query to the resolver ended.
func (r Resolver) State() string {
	if r.Fails() {
		return "FAILS: " + r.Err
	}
	return "answers"
}

// Limit is an upper bound and its present value.
type Limit struct {
	Name string `json:"name"` // "connections", "per_client", "dials" or "memory"
	// Now is how many of the bounded things there are. For per_client, whose
	// bound is on the connections of one client address, it is the number of
	// client addresses that are connected.
	Now  int    `json:"now"`
	Most int    `json:"most"`           // 0 means no limit
	Note string `json:"note,omitempty"` // what Now counts, where that is not plain
}

// Join returns the items of a list, separated by spaces.
func Join[T fmt.Stringer](items []T) string {
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = item.String()
	}
	return strings.Join(words, " ")
}
