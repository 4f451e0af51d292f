package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pandoproxy/pando/internal/flow"
)

var activeFlows = prometheus.NewDesc("pando_flows_active", "Flows in progress: tunnels, and plain-HTTP requests.", []string{"front"}, nil)

// flowsCollector tells the flows in progress, by front end.
type flowsCollector struct{ flows func() map[string]int }

func (c flowsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- activeFlows }

func (c flowsCollector) Collect(ch chan<- prometheus.Metric) {
	n := c.flows()
	for _, f := range flow.Fronts() {
		ch <- prometheus.MustNewConstMetric(activeFlows, prometheus.GaugeValue, float64(n[string(f)]), string(f))
	}
}

var (
	tailnetUp      = prometheus.NewDesc("pando_tailnet_up", "1 while the replica's device is on the tailnet.", nil, nil)
	tailnetControl = prometheus.NewDesc("pando_tailnet_control_connected", "1 while the control server can be reached. Traffic does not need it.", nil, nil)
	tailnetExpiry  = prometheus.NewDesc("pando_tailnet_key_expiry_timestamp_seconds", "When the device has to log in again; 0 is never.", nil, nil)
	tailnetPeers   = prometheus.NewDesc("pando_tailnet_peers", "Devices that this one knows.", nil, nil)
	tailnetRoutes  = prometheus.NewDesc("pando_tailnet_routes", "Routes that peers carry.", nil, nil)
	tailnetRouters = prometheus.NewDesc("pando_tailnet_routers", "Peers that carry routes, by the path to them.", []string{"path"}, nil)
	tailnetAge     = prometheus.NewDesc("pando_tailnet_handshake_age_seconds", "Age of the oldest WireGuard handshake with a peer that carries routes and is online; 0 is none.", nil, nil)
	tailnetMended  = prometheus.NewDesc("pando_tailnet_sessions_mended_total", "WireGuard sessions that were begun anew because the peer had lost its side.", nil, nil)
)

// tailnetCollector tells the state of the tailnet, asked once for a scrape.
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
	yes := map[bool]float64{true: 1}
	gauge(tailnetUp, yes[t.Up])
	gauge(tailnetControl, yes[t.Control])
	if t.KeyExpiry.IsZero() {
		gauge(tailnetExpiry, 0)
	} else {
		gauge(tailnetExpiry, float64(t.KeyExpiry.Unix()))
	}
	gauge(tailnetPeers, float64(t.Peers))
	gauge(tailnetRoutes, float64(t.Routes))
	gauge(tailnetRouters, float64(t.Direct), "direct")
	gauge(tailnetRouters, float64(t.Relayed), "relay")
	gauge(tailnetRouters, float64(t.Unused), "unused")
	gauge(tailnetAge, t.HandshakeAge.Seconds())
	ch <- prometheus.MustNewConstMetric(tailnetMended, prometheus.CounterValue, float64(t.SessionsMended))
}
