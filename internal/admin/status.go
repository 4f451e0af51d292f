package admin

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// Status is everything that a person asks of a replica. Its JSON is an
// interface: pando status reads it, and a golden test holds its keys.
type Status struct {
	Version string    `json:"version"`
	Mode    string    `json:"mode"`
	Started time.Time `json:"started"`
	Listen  []string  `json:"listen"`
	Ready   bool      `json:"ready"`
	Checks  []Check   `json:"checks"`
	// Configuration says what of a change is not applied; empty is all.
	Configuration string        `json:"configuration,omitempty"`
	Tailnet       Tailnet       `json:"tailnet"`
	Peers         []Peer        `json:"peers"`
	Zones         []Zone        `json:"zones"`     // split DNS of the tailnet
	Resolvers     []Resolver    `json:"resolvers"` // those asked of late
	Limits        []Limit       `json:"limits"`
	FlowsTotal    int           `json:"flowsTotal"` // in progress
	Flows         []flow.Record `json:"flows"`      // the oldest of them
}

// Tailnet is the replica's device.
type Tailnet struct {
	ID               string       `json:"id"`
	Name             string       `json:"name"`
	Addrs            []netip.Addr `json:"addrs"`
	State            string       `json:"state"`
	Up               bool         `json:"up"`
	ControlConnected bool         `json:"controlConnected"`
	KeyExpiry        *time.Time   `json:"keyExpiry,omitempty"` // nil means never
	HomeRelay        string       `json:"homeRelay"`           // DERP region; empty means that none is reached
	HomeHeard        *time.Time   `json:"homeHeard,omitempty"` // from its relay, last; nil means never
	// ClockAhead is how many seconds the control server's clock was ahead of this
	// machine's when it told its time last; nil means never.
	ClockAhead     *float64 `json:"clockAhead,omitempty"`
	Health         []string `json:"health"` // what the engine finds wrong
	SessionsMended int64    `json:"sessionsMended"`
}

// Peer is another device of the tailnet.
type Peer struct {
	Name          string         `json:"name"`
	Addrs         []netip.Addr   `json:"addrs"`
	Routes        []netip.Prefix `json:"routes"`
	Online        bool           `json:"online"`
	Path          string         `json:"path"` // "direct …" or "relay …"; empty while unused
	LastHandshake *time.Time     `json:"lastHandshake,omitempty"`
	Received      int64          `json:"received"` // bytes
	Sent          int64          `json:"sent"`
}

// Zone is a DNS suffix with its resolvers.
type Zone struct {
	Suffix    string   `json:"suffix"`
	Resolvers []string `json:"resolvers"`
}

// Resolver is how a resolver has fared.
type Resolver struct {
	Server   string     `json:"server"`
	Answered *time.Time `json:"answered,omitempty"`
	Failed   *time.Time `json:"failed,omitempty"`
	Err      string     `json:"err,omitempty"`
}

// Limit is an upper bound and how near it is.
type Limit struct {
	Name string `json:"name"`
	Now  int    `json:"now"`
	Most int    `json:"most"` // 0 is no limit
	Note string `json:"note,omitempty"`
}

// MarshalJSON writes the check with its error as text.
func (c Check) MarshalJSON() ([]byte, error) {
	out := struct {
		Name string `json:"name"`
		OK   bool   `json:"ok"`
		Err  string `json:"err,omitempty"`
		Note string `json:"note,omitempty"`
	}{Name: c.Name, OK: c.Err == nil, Note: c.Note}
	if c.Err != nil {
		out.Err = c.Err.Error()
	}
	return json.Marshal(out)
}

// defaultFlows is how many flows a status shows unless ?flows says otherwise.
const defaultFlows = 100

// status answers with JSON, or with a page for a browser.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	flows := defaultFlows
	if v := r.URL.Query().Get("flows"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			http.Error(w, "flows: a number of flows to show", http.StatusBadRequest)
			return
		}
		flows = n
	}
	st := s.Status(flows)
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		writePage(w, st)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(st)
}
