package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pandoproxy/pando/internal/flow"
)

// State is the present state of the replica. Each scrape calls its functions.
type State struct {
	// Readiness reports whether the replica passes its readiness probe, and how
	// many targets of probe.targets prevent that, both from one look at the checks.
	Readiness     func() (ready bool, probesFailing int)
	Draining      func() bool
	RestartNeeded func() bool // whether a change of the configuration needs a restart
	Tunnels       func() int  // tunnels that are open
	Connections   func() (connections, clients int)
	Dials         func() int // dials in progress
	Memory        func() (held, budget int64)
	Flows         func() map[string]int // flows in progress, by front
	Tailnet       func() Tailnet
}

// Tailnet is the state of the device and of the peers that carry routes.
type Tailnet struct {
	Up             bool
	Control        bool      // whether the control server is connected
	KeyExpiry      time.Time // zero means never
	SessionsMended int64
	Peers          int
	Routes         int // routes that peers carry
	// Direct, Relayed and Unused count the peers that carry routes by the path to
	// them. A peer is unused while nothing has been sent to it.
	Direct, Relayed, Unused int
	// HandshakeAge is the time since the last WireGuard handshake with that peer
	// that carries routes and is online for which it is longest ago. Zero means
	// that there was no handshake yet.
	HandshakeAge time.Duration
}

// gauges returns the metrics that read one value each.
func (s State) gauges() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	yes := func(f func() bool) func() float64 { return func() float64 { return oneIf(f()) } }
	count := func(f func() int) func() float64 { return func() float64 { return float64(f()) } }
	connections := func() int {
		n, _ := s.Connections()
		return n
	}
	clients := func() int {
		_, n := s.Connections()
		return n
	}
	held := func() float64 {
		n, _ := s.Memory()
		return float64(n)
	}
	budget := func() float64 {
		_, n := s.Memory()
		return float64(n)
	}
	return []prometheus.Collector{
		gauge("pando_memory_held_bytes", "Memory that is held for clients: connections, heads, requests in progress and the buffers of tunnels.", held),
		gauge("pando_memory_budget_bytes", "The most memory that may be held for clients. 0 means no bound.", budget),
		gauge("pando_draining", "1 once the replica has begun to shut down.", yes(s.Draining)),
		gauge("pando_config_restart_needed", "1 while a change of the configuration needs a restart to take effect.", yes(s.RestartNeeded)),
		gauge("pando_tunnels", "Open tunnels.", count(s.Tunnels)),
		gauge("pando_connections", "Open client connections, including tunnels.", count(connections)),
		gauge("pando_clients", "Client addresses that have an open connection.", count(clients)),
		gauge("pando_dials", "Connections to targets that are being opened.", count(s.Dials)),
	}
}

// oneIf returns 1 for true and 0 for false.
func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var (
	readyNow      = prometheus.NewDesc("pando_ready", "1 while the replica passes its readiness probe.", nil, nil)
	probesFailing = prometheus.NewDesc("pando_probes_failing", "Targets of probe.targets whose failure makes the replica unready.", nil, nil)
)

// readinessCollector collects the outcome of the checks, which it reads once for
// a scrape.
type readinessCollector struct{ readiness func() (bool, int) }

func (c readinessCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- readyNow
	ch <- probesFailing
}

func (c readinessCollector) Collect(ch chan<- prometheus.Metric) {
	ready, failing := c.readiness()
	ch <- prometheus.MustNewConstMetric(readyNow, prometheus.GaugeValue, oneIf(ready))
	ch <- prometheus.MustNewConstMetric(probesFailing, prometheus.GaugeValue, float64(failing))
}

var activeFlows = prometheus.NewDesc("pando_flows_active", "Flows in progress, which are tunnels and plain-HTTP requests.", []string{"front"}, nil)

// flowsCollector collects the number of flows in progress, by front.
type flowsCollector struct{ flows func() map[string]int }

func (c flowsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- activeFlows }

func (c flowsCollector) Collect(ch chan<- prometheus.Metric) {
	n := c.flows()
	for _, f := range flow.Fronts() {
		ch <- prometheus.MustNewConstMetric(activeFlows, prometheus.GaugeValue, float64(n[string(f)]), string(f))
	}
}

// Values of the label path of pando_tailnet_routers.
const (
	direct = "direct"
	relay  = "relay"
	unused = "unused"
)

var (
	tailnetUp      = prometheus.NewDesc("pando_tailnet_up", "1 while the device is on the tailnet.", nil, nil)
	tailnetControl = prometheus.NewDesc("pando_tailnet_control_connected", "1 while the control server is connected. Traffic does not need it.", nil, nil)
	tailnetExpiry  = prometheus.NewDesc("pando_tailnet_key_expiry_timestamp_seconds", "Unix time at which the device key expires. 0 means never.", nil, nil)
	tailnetPeers   = prometheus.NewDesc("pando_tailnet_peers", "Other devices in the network map.", nil, nil)
	tailnetRoutes  = prometheus.NewDesc("pando_tailnet_routes", "Routes that peers carry.", nil, nil)
	tailnetRouters = prometheus.NewDesc("pando_tailnet_routers", "Peers that carry routes, by the path to them. path=unused: nothing has been sent to the peer yet.", []string{"path"}, nil)
	tailnetAge     = prometheus.NewDesc("pando_tailnet_handshake_age_seconds", "Longest time since the last WireGuard handshake with a peer that carries routes and is online. 0 means that there was none yet.", nil, nil)
	tailnetMended  = prometheus.NewDesc("pando_tailnet_sessions_mended_total", "WireGuard sessions that were started again because the peer had lost its side.", nil, nil)
)

// tailnetCollector collects the state of the tailnet, which it reads once for a
// scrape.
type tailnetCollector struct{ tailnet func() Tailnet }

func (c tailnetCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tailnetUp, tailnetControl, tailnetExpiry, tailnetPeers, tailnetRoutes, tailnetRouters, tailnetAge, tailnetMended} {
		ch <- d
	}
}

func (c tailnetCollector) Collect(ch chan<- prometheus.Metric) {
	t := c.tailnet()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	expiry := 0.0
	if !t.KeyExpiry.IsZero() {
		expiry = float64(t.KeyExpiry.Unix())
	}
	gauge(tailnetUp, oneIf(t.Up))
	gauge(tailnetControl, oneIf(t.Control))
	gauge(tailnetExpiry, expiry)
	gauge(tailnetPeers, float64(t.Peers))
	gauge(tailnetRoutes, float64(t.Routes))
	gauge(tailnetRouters, float64(t.Direct), direct)
	gauge(tailnetRouters, float64(t.Relayed), relay)
	gauge(tailnetRouters, float64(t.Unused), unused)
	gauge(tailnetAge, t.HandshakeAge.Seconds())
	ch <- prometheus.MustNewConstMetric(tailnetMended, prometheus.CounterValue, float64(t.SessionsMended))
}
