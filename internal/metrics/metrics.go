// Package metrics is every metric of a replica on one screen. They are made
// from the same flow.Record as the log line, so the two cannot disagree.
package metrics

import (
	"net/http"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pandoproxy/pando/internal/flow"
)

// Metrics belong to one replica. Their names and labels are an interface: a
// golden test holds them.
type Metrics struct {
	registry *prometheus.Registry

	flows   *prometheus.CounterVec
	bytes   *prometheus.CounterVec
	resolve prometheus.Histogram
	dial    prometheus.Histogram
	total   *prometheus.HistogramVec
}

// State is what is true of the replica now, asked at each scrape.
type State struct {
	Ready    func() bool // it would pass its readiness probe
	Up       func() bool // its device is on the tailnet
	Draining func() bool
	Tunnels  func() int // open now
}

// latency are the buckets of everything that a client waits for, in seconds:
// a cached lookup takes microseconds, a lost handshake 5 s.
var latency = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// New returns the metrics of a replica of the given version.
func New(version string, s State) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		flows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pando_flows_total", Help: "Flows that ended: tunnels, and plain-HTTP requests. A class other than ok is a failure."},
			[]string{"front", "class"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pando_relayed_bytes_total", Help: "Payload of the flows that ended: up is from client to target."},
			[]string{"direction"}),
		resolve: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pando_resolve_seconds", Help: "Time that flows spent on resolving a name.", Buckets: latency}),
		dial: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pando_dial_seconds", Help: "Time that flows spent on connecting to their target.", Buckets: latency}),
		total: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pando_flow_seconds", Help: "Life of flows, from the first byte of the request to the end.",
			Buckets: []float64{.005, .025, .1, .5, 1, 5, 15, 60, 300, 900, 3600}}, []string{"front"}),
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	yes := func(f func() bool) func() float64 {
		return func() float64 {
			if f() {
				return 1
			}
			return 0
		}
	}
	m.registry.MustRegister(m.flows, m.bytes, m.resolve, m.dial, m.total,
		gauge("pando_ready", "1 while the replica passes its readiness probe.", yes(s.Ready)),
		gauge("pando_tailnet_up", "1 while the replica's device is on the tailnet.", yes(s.Up)),
		gauge("pando_draining", "1 once the replica has begun to stop.", yes(s.Draining)),
		gauge("pando_tunnels", "Tunnels that are open now.", func() float64 { return float64(s.Tunnels()) }),
		buildInfo(version),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	for _, d := range []string{"up", "down"} {
		m.bytes.WithLabelValues(d)
	}
	return m
}

func buildInfo(version string) prometheus.Collector {
	engine := "unknown"
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, d := range bi.Deps {
			if d.Path == "tailscale.com" {
				engine = d.Version
			}
		}
	}
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pando_build_info", Help: "Always 1; its labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "tailscale": engine},
	}, func() float64 { return 1 })
}

// Observe counts a flow that has ended.
func (m *Metrics) Observe(r *flow.Record) {
	m.flows.WithLabelValues(string(r.Front), flow.ClassOf(r.Err).String()).Inc()
	m.bytes.WithLabelValues("up").Add(float64(r.Up))
	m.bytes.WithLabelValues("down").Add(float64(r.Down))
	m.total.WithLabelValues(string(r.Front)).Observe(r.Total.Seconds())
	if r.Resolve > 0 {
		m.resolve.Observe(r.Resolve.Seconds())
	}
	if r.Dial > 0 {
		m.dial.Observe(r.Dial.Seconds())
	}
}

// Handler serves the metrics in the format that the scraper asks for.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
