// Package metrics is every metric of a replica on one screen. They are made
// from the same flow.Record as the log line, so the two cannot disagree.
package metrics

import (
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/flow"
)

// Metrics belong to one replica. Their names and labels are an interface: a
// golden test holds them.
type Metrics struct {
	registry *prometheus.Registry

	flows    *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	resolve  prometheus.Histogram
	dial     prometheus.Histogram
	total    *prometheus.HistogramVec
	lookups  *prometheus.CounterVec
	answers  *prometheus.CounterVec
	refusals *prometheus.CounterVec
	reloads  *prometheus.CounterVec
	reloadOK prometheus.Gauge
	reloadAt prometheus.Gauge
}

// State is what is true of the replica now, asked at each scrape.
type State struct {
	Ready         func() bool // it would pass its readiness probe
	Draining      func() bool
	RestartNeeded func() bool // the configuration changed in what wants a restart
	Tunnels       func() int  // open now
	Connections   func() (connections, clients int)
	Dials         func() int            // in progress
	Flows         func() map[string]int // in progress, by front end
	ProbesFailing func() int
	Tailnet       func() Tailnet
}

// Tailnet is the state of the device and of the peers that carry routes.
type Tailnet struct {
	Up             bool
	Control        bool      // in contact with the control server
	KeyExpiry      time.Time // zero means never
	SessionsMended int64
	Peers          int
	Routes         int // that peers carry
	// Direct, Relayed and Unused count the peers that carry routes by the path
	// to them.
	Direct, Relayed, Unused int
	HandshakeAge            time.Duration // the oldest of those peers that are online; zero means none yet
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
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pando_dns_lookups_total", Help: "Names looked up, by the kind of source that is responsible for the name, the outcome, and whether the cache knew. Source none: its caller gave up before."},
			[]string{"source", "class", "cached"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pando_dns_answers_total", Help: "Queries that the DNS answerer has answered, by the code of the answer."}, []string{"rcode"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pando_limit_refusals_total", Help: "Connections, dials and DNS queries that were refused because of a limit."}, []string{"limit"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pando_config_reloads_total", Help: "Attempts to reload the configuration."}, []string{"outcome"}),
		reloadOK: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pando_config_last_reload_successful", Help: "1 unless the last reload failed; the configuration before it goes on then."}),
		reloadAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pando_config_last_reload_success_timestamp_seconds", Help: "When the configuration was last loaded."}),
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
	count := func(f func() int) func() float64 { return func() float64 { return float64(f()) } }
	m.registry.MustRegister(m.flows, m.bytes, m.resolve, m.dial, m.total,
		m.lookups, m.answers, m.refusals, m.reloads, m.reloadOK, m.reloadAt,
		gauge("pando_ready", "1 while the replica passes its readiness probe.", yes(s.Ready)),
		gauge("pando_draining", "1 once the replica has begun to stop.", yes(s.Draining)),
		gauge("pando_config_restart_needed", "1 while a change of the configuration waits for a restart.", yes(s.RestartNeeded)),
		gauge("pando_tunnels", "Tunnels that are open now.", count(s.Tunnels)),
		gauge("pando_connections", "Client connections that are open now, tunnels included.", count(func() int { n, _ := s.Connections(); return n })),
		gauge("pando_clients", "Client addresses that are connected now.", count(func() int { _, n := s.Connections(); return n })),
		gauge("pando_dials", "Connections to targets that are being opened now.", count(s.Dials)),
		gauge("pando_probes_failing", "Probe targets that keep the replica from being ready.", count(s.ProbesFailing)),
		flowsCollector{s.Flows}, tailnetCollector{s.Tailnet},
		buildInfo(version),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	for _, d := range []string{"up", "down"} {
		m.bytes.WithLabelValues(d)
	}
	for _, l := range limit.All() {
		m.refusals.WithLabelValues(string(l))
	}
	for _, c := range []string{"NOERROR", "NXDOMAIN", "REFUSED", "SERVFAIL"} {
		m.answers.WithLabelValues(c)
	}
	for _, o := range []string{"ok", "failed"} {
		m.reloads.WithLabelValues(o)
	}
	m.reloadOK.Set(1)
	m.reloadAt.SetToCurrentTime()
	return m
}

// Looked counts a lookup; see resolve.Options.
func (m *Metrics) Looked(source string, class flow.Class, cached bool) {
	if source == "" {
		source = "none"
	}
	m.lookups.WithLabelValues(source, class.String(), strconv.FormatBool(cached)).Inc()
}

// Answered counts an answer of the DNS answerer.
func (m *Metrics) Answered(rcode string) { m.answers.WithLabelValues(rcode).Inc() }

// Refused counts a refusal because of a limit.
func (m *Metrics) Refused(w limit.Kind) { m.refusals.WithLabelValues(string(w)).Inc() }

// Reloaded counts a reload of the configuration.
func (m *Metrics) Reloaded(ok bool) {
	if !ok {
		m.reloads.WithLabelValues("failed").Inc()
		m.reloadOK.Set(0)
		return
	}
	m.reloads.WithLabelValues("ok").Inc()
	m.reloadOK.Set(1)
	m.reloadAt.SetToCurrentTime()
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

// Handler serves the metrics in the format that the scraper asks for, with
// those that engine writes in the text format of Prometheus.
func (m *Metrics) Handler(engine func() (string, error)) http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{m.registry, prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		text, err := engine()
		if err != nil {
			return nil, err
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(text))
		return slices.Collect(maps.Values(families)), err
	})}, promhttp.HandlerOpts{Registry: m.registry})
}
