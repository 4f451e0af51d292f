package tailnet

import (
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"tailscale.com/ipn/ipnstate"
)

// Status is what a node knows about itself and its peers.
type Status struct {
	ID        string // the control server's name for the device; empty before the node is up
	Name      string // fully qualified, without a trailing dot
	Addrs     []netip.Addr
	State     string    // the engine's name of its state: NeedsLogin, Starting, Running, …
	Up        bool      // on the tailnet
	LoginURL  string    // where a person can log the device in, for operators alone; empty means that this is not needed
	Control   bool      // connected to the control server; traffic does not need it
	KeyExpiry time.Time // when the device must log in again; zero means never
	Home      string    // code of the DERP region where peers find us, such as "fra"; empty means none
	HomeHeard time.Time // when that region's relay last sent something; zero means never

	// ClockAhead is the control server's clock minus ours, as of its last
	// message with a time. Nil means that it has sent none.
	ClockAhead *time.Duration

	Health []string // problems that the engine reports, in its own words
	Peers  []Peer   // sorted by name
}

// Peer is another device of the tailnet.
type Peer struct {
	Name          string
	Addrs         []netip.Addr
	Routes        []netip.Prefix // what it carries besides its own addresses
	Online        bool           // connected to the control server, as that reports
	Path          Path           // the zero value while nothing is sent
	LastHandshake time.Time      // zero means never
	Rx, Tx        int64          // bytes received from it, and sent to it
}

// statusAge is the greatest age of a Status. Reading one looks at every peer.
const statusAge = time.Second

// statusCache keeps the last Status.
type statusCache struct {
	mu    sync.Mutex
	value Status
	read  time.Time // when value was read
}

// Status returns the node's status. It is at most a second old.
func (n *Node) Status() Status {
	n.status.mu.Lock()
	defer n.status.mu.Unlock()
	if time.Since(n.status.read) > statusAge {
		n.status.value = n.readStatus()
		n.status.read = time.Now()
	}
	return n.status.value
}

func (n *Node) readStatus() Status {
	health := n.sys.HealthTracker.Get()
	st := n.lb.Status()
	s := Status{
		ID:         n.ID(),
		Name:       n.Name(),
		Addrs:      n.Addrs(),
		State:      st.BackendState,
		Up:         n.Up(),
		LoginURL:   n.login.URL(),
		Control:    health.GetInPollNetMap(),
		ClockAhead: n.control.ClockAhead(),
		Health:     st.Health,
	}
	if nm := n.lb.NetMapNoPeers(); nm != nil && nm.SelfNode.Valid() {
		s.KeyExpiry = nm.SelfNode.KeyExpiry()
		s.HomeHeard = health.GetDERPRegionReceivedTime(nm.SelfNode.HomeDERP())
	}
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
	peer := Peer{
		Name:          trimDot(p.DNSName),
		Addrs:         p.TailscaleIPs,
		Online:        p.Online,
		LastHandshake: p.LastHandshake,
		Rx:            p.RxBytes,
		Tx:            p.TxBytes,
	}
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

// WriteMetrics writes the engine's own metrics, tailscaled_*, in the Prometheus
// text format. It returns the first error of w.
func (n *Node) WriteMetrics(w io.Writer) error {
	out := &body{Writer: w, header: http.Header{}}
	n.sys.UserMetricsRegistry().Handler(out, &http.Request{Method: http.MethodGet})
	return out.err
}

// body is an http.ResponseWriter that keeps only the body.
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
