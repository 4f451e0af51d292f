// Package metrics holds every metric of a replica: their names, labels and help.
// The metrics of a flow come from the same flow.Record as its log line, so the
// two cannot disagree. metrics.go has what is counted as it happens, collect.go
// what is read at each scrape. docs/metrics.md lists them all; a test writes it
// with -update.
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

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/flow"
)

// Metrics are the metrics of one replica. Their names and labels are an
// interface, which a golden test holds. All methods may be called concurrently.
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
	origins  *prometheus.CounterVec
	trailers prometheus.Counter
	panics   prometheus.Counter
	reloads  *prometheus.CounterVec
	reloadOK prometheus.Gauge
	reloadAt prometheus.Gauge
}

// Buckets of the histograms, in seconds.
var (
	// latency is for what a client waits for. A cached lookup takes microseconds,
	// and a lost handshake costs 5 s.
	latency = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	// lifetime is for whole flows.
	lifetime = []float64{.005, .025, .1, .5, 1, 5, 15, 60, 300, 900, 3600}
)

// New returns the metrics of a replica of the given version. Now is the time of
// the last reload. All functions of s are required.
func New(version string, s State) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		flows: counters("pando_flows_total",
			"Flows that ended, which are tunnels and plain-HTTP requests. Every class but ok is a failure.",
			"front", "class"),
		bytes: counters("pando_relayed_bytes_total",
			"Payload bytes of the flows that ended. direction=up is from the client to the target.",
			"direction"),
		resolve: histogram("pando_resolve_seconds", "Time that a flow spent on the lookup of its name.", latency),
		dial:    histogram("pando_dial_seconds", "Time that a flow spent on connecting to its target.", latency),
		total: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pando_flow_seconds",
			Help:    "Duration of a flow, from the first byte of the request to the end.",
			Buckets: lifetime,
		}, []string{"front"}),
		lookups: counters("pando_dns_lookups_total",
			"Lookups of names, by the kind of source that is responsible for the name, the outcome, and whether the answer was cached. source=none: the caller gave up first.",
			"source", "class", "cached"),
		answers: counters("pando_dns_answers_total", "Answers of the DNS server at listen.dns, by response code.", "rcode"),
		refusals: counters("pando_limit_refusals_total",
			"Connections, dials, DNS queries and passwords that were refused because of a limit.",
			"limit"),
		origins: counters("pando_origin_connections_total",
			"Connections to origins of plain HTTP at the end of a request, by what became of them. kept: it waits for another request. broken: the exchange did not end well. Each other outcome is a reason for which a working connection was closed.",
			"outcome"),
		trailers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pando_dropped_trailer_fields_total",
			Help: "Trailer fields of plain HTTP that were not passed on, because they must not come after a body (RFC 9110 section 6.5.1).",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pando_panics_total",
			Help: "Panics that ended one flow, one DNS answer or one request of the admin port. Each is a defect of Pando; the log has its stack.",
		}),
		reloads: counters("pando_config_reloads_total", "Attempts to reload the configuration.", "outcome"),
		reloadOK: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pando_config_last_reload_successful",
			Help: "1 if the last reload succeeded, 0 if it failed and the previous configuration stays in force.",
		}),
		reloadAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pando_config_last_reload_success_timestamp_seconds",
			Help: "Unix time of the start or of the last reload that succeeded.",
		}),
	}
	m.registry.MustRegister(m.flows, m.bytes, m.resolve, m.dial, m.total, m.lookups, m.answers, m.refusals, m.origins, m.trailers, m.panics, m.reloads, m.reloadOK, m.reloadAt)
	m.registry.MustRegister(s.gauges()...)
	m.registry.MustRegister(
		readinessCollector{s.Readiness},
		flowsCollector{s.Flows},
		tailnetCollector{s.Tailnet},
		buildInfo(version),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.begin()
	return m
}

// begin gives the series whose labels are known a value, so that a scraper sees
// their first increase. It also sets the state of the first configuration.
func (m *Metrics) begin() {
	for _, d := range directions {
		m.bytes.WithLabelValues(d)
	}
	for _, l := range limit.All() {
		m.refusals.WithLabelValues(string(l))
	}
	for _, o := range origin.Outcomes() {
		m.origins.WithLabelValues(string(o))
	}
	for _, c := range rcodes {
		m.answers.WithLabelValues(c)
	}
	for _, o := range outcomes {
		m.reloads.WithLabelValues(o)
	}
	m.reloadOK.Set(1)
	m.reloadAt.SetToCurrentTime()
}

// Values of labels.
const (
	up       = "up"
	down     = "down"
	ok       = "ok"
	failed   = "failed"
	noSource = "none" // no source was asked, because the caller gave up first
)

var (
	directions = []string{up, down}
	outcomes   = []string{ok, failed}
	rcodes     = []string{"NOERROR", "NXDOMAIN", "REFUSED", "SERVFAIL"}
)

// Looked counts a lookup; see resolve.Options.
func (m *Metrics) Looked(source string, class flow.Class, cached bool) {
	if source == "" {
		source = noSource
	}
	m.lookups.WithLabelValues(source, class.String(), strconv.FormatBool(cached)).Inc()
}

// Answered counts an answer of the DNS server. rcode is its code as DNS spells
// it, such as NXDOMAIN.
func (m *Metrics) Answered(rcode string) { m.answers.WithLabelValues(rcode).Inc() }

// Refused counts a refusal because of a limit.
func (m *Metrics) Refused(k limit.Kind) { m.refusals.WithLabelValues(string(k)).Inc() }

// OriginReleased counts a connection to an origin at the end of a request.
func (m *Metrics) OriginReleased(o origin.Outcome) { m.origins.WithLabelValues(string(o)).Inc() }

// TrailersDropped counts n trailer fields that were not passed on.
func (m *Metrics) TrailersDropped(n int) { m.trailers.Add(float64(n)) }

// Panicked counts a panic that was caught.
func (m *Metrics) Panicked() { m.panics.Inc() }

// Reloaded counts an attempt to reload the configuration. success reports
// whether the new configuration is in force.
func (m *Metrics) Reloaded(success bool) {
	if !success {
		m.reloads.WithLabelValues(failed).Inc()
		m.reloadOK.Set(0)
		return
	}
	m.reloads.WithLabelValues(ok).Inc()
	m.reloadOK.Set(1)
	m.reloadAt.SetToCurrentTime()
}

// Observe counts a flow that has ended.
func (m *Metrics) Observe(r *flow.Record) {
	m.flows.WithLabelValues(string(r.Front), flow.ClassOf(r.Err).String()).Inc()
	m.bytes.WithLabelValues(up).Add(float64(r.Up))
	m.bytes.WithLabelValues(down).Add(float64(r.Down))
	m.total.WithLabelValues(string(r.Front)).Observe(r.Total.Seconds())
	if r.Resolve > 0 {
		m.resolve.Observe(r.Resolve.Seconds())
	}
	if r.Dial > 0 {
		m.dial.Observe(r.Dial.Seconds())
	}
}

// Handler serves the metrics in the format that the scraper asks for. engine
// returns further metrics, in the text format of Prometheus; the handler adds
// them. If engine fails, the answer is an error. Values are gathered at most once in a
// period, and scrapes within it get the same; zero gathers them for each scrape.
func (m *Metrics) Handler(engine func() (string, error), period time.Duration) http.Handler {
	gatherEngine := func() ([]*dto.MetricFamily, error) {
		text, err := engine()
		if err != nil {
			return nil, err
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(text))
		return slices.Collect(maps.Values(families)), err
	}
	all := &shared{
		Gatherer: prometheus.Gatherers{m.registry, prometheus.GathererFunc(gatherEngine)},
		period:   period,
	}
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{Registry: m.registry})
}

// counters returns a counter for each combination of values of labels.
func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

// buildInfo returns a metric whose labels are the versions.
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
		Name:        "pando_build_info",
		Help:        "Always 1. Its labels are the versions of Pando and of its Tailscale engine.",
		ConstLabels: prometheus.Labels{"version": version, "tailscale": engine},
	}, func() float64 { return 1 })
}
