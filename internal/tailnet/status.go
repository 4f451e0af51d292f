package tailnet

import (
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tailscale.com/ipn/ipnstate"
)

// Status is what a node knows of itself and of its peers.
type Status struct {
	ID        string // the control server's name for the device; empty before it is up
	Name      string // fully qualified, without a trailing dot
	Addrs     []netip.Addr
	State     string    // the engine's word: NeedsLogin, Starting, Running, …
	Up        bool      // on the tailnet
	Control   bool      // in contact with the control server; traffic does not need it
	KeyExpiry time.Time // when the device has to log in again; zero means never
	Home      string    // DERP region that peers find us at, such as "fra"; empty means none
	HomeHeard time.Time // when that region's relay was last heard of; zero means never
	// ClockAhead is how far the control server's clock was ahead of ours at its
	// last word on it; nil means that it said none.
	ClockAhead *time.Duration
	Health     []string // what the engine finds wrong, in its own words
	Peers      []Peer   // by name
}

// Peer is another device of the tailnet.
type Peer struct {
	Name          string
	Addrs         []netip.Addr
	Routes        []netip.Prefix // what it carries beside its own addresses
	Online        bool           // in contact with the control server
	Path          Path
	LastHandshake time.Time // zero means never
	Rx, Tx        int64     // bytes received from it, and sent
}

// statusAge is how old a status may be: it looks at every peer.
const statusAge = time.Second

// Status returns the state of things, a second old at most.
func (n *Node) Status() Status {
	n.statusMu.Lock()
	defer n.statusMu.Unlock()
	if time.Since(n.statusAt) > statusAge {
		n.status, n.statusAt = n.readStatus(), time.Now()
	}
	return n.status
}

func (n *Node) readStatus() Status {
	health := n.sys.HealthTracker.Get()
	st := n.lb.Status()
	s := Status{
		ID: n.ID(), Name: n.Name(), Addrs: n.Addrs(),
		State: st.BackendState, Up: n.Up(), Control: health.GetInPollNetMap(), Health: st.Health,
	}
	if nm := n.lb.NetMapNoPeers(); nm != nil && nm.SelfNode.Valid() {
		s.KeyExpiry = nm.SelfNode.KeyExpiry()
		s.HomeHeard = health.GetDERPRegionReceivedTime(nm.SelfNode.HomeDERP())
	}
	s.ClockAhead = n.clockAhead.Load()
	if st.Self != nil {
		s.Home = st.Self.Relay
	}
	for _, p := range st.Peer {
		if p.InNetworkMap {
			s.Peers = append(s.Peers, peerOf(p))
		}
	}
	slices.SortFunc(s.Peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return s
}

func peerOf(p *ipnstate.PeerStatus) Peer {
	peer := Peer{Name: trimDot(p.DNSName), Addrs: p.TailscaleIPs, Online: p.Online, LastHandshake: p.LastHandshake, Rx: p.RxBytes, Tx: p.TxBytes}
	if peer.Name == "" {
		peer.Name = p.HostName
	}
	if p.AllowedIPs != nil {
		for _, r := range p.AllowedIPs.All() {
			if !r.IsSingleIP() || !slices.Contains(p.TailscaleIPs, r.Addr()) {
				peer.Routes = append(peer.Routes, r)
			}
		}
	}
	switch {
	case p.CurAddr != "":
		peer.Path = Path{Direct, p.CurAddr}
	case p.PeerRelay != "":
		peer.Path = Path{Relay, p.PeerRelay}
	case p.Relay != "" && !p.LastWrite.IsZero():
		peer.Path = Path{Relay, p.Relay}
	}
	return peer
}

// WriteMetrics writes the engine's own metrics, tailscaled_*, in the text
// format of Prometheus.
func (n *Node) WriteMetrics(w io.Writer) error {
	out := &body{Writer: w, header: http.Header{}}
	n.sys.UserMetricsRegistry().Handler(out, &http.Request{Method: http.MethodGet})
	return out.err
}

// body is a http.ResponseWriter of which only the body is wanted.
type body struct {
	io.Writer
	header http.Header
	err    error
}

func (b *body) Header() http.Header { return b.header }
func (b *body) WriteHeader(int)     {}

func (b *body) Write(p []byte) (int, error) {
	n, err := b.Writer.Write(p)
	if b.err == nil {
		b.err = err
	}
	return n, err
}
