package gateway

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/metrics"
	"github.com/pandoproxy/pando/internal/panics"
)

// finishedFlows counts and logs the flows that have ended.
type finishedFlows struct {
	metrics *metrics.Metrics
	log     *slog.Logger
	sample  atomic.Int64 // one of this many flows that ended well is logged
	well    atomic.Int64 // flows that ended well
	panics  *panics.Log
}

func newFinishedFlows(m *metrics.Metrics, log *slog.Logger, c config.Log) *finishedFlows {
	f := &finishedFlows{metrics: m, log: log, panics: panics.New(log, m.Panicked)}
	f.setSample(c)
	return f
}

// setSample applies log.sample.
func (f *finishedFlows) setSample(c config.Log) { f.sample.Store(int64(c.Sample)) }

// add counts a flow and logs it. Of the flows that ended well it logs a sample;
// it logs all that failed or that report mode would have denied.
func (f *finishedFlows) add(rec *flow.Record) {
	f.metrics.Observe(rec)
	f.panics.Caught(rec.Err)
	if n := f.sample.Load(); n > 1 && rec.Err == nil && rec.Report == "" && f.well.Add(1)%n != 1 {
		return
	}
	f.log.Info("flow", "flow", rec)
}

// localhost is the client that probes are made for.
var localhost = netip.MustParseAddr("127.0.0.1")

// probeBy returns a function that connects to one of targets, which has the name
// of its key, by the road that clients take.
func probeBy(road *datapath.Road, targets map[string]config.Target) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		rec := &flow.Record{Start: time.Now()}
		rec.Client = netip.AddrPortFrom(localhost, 0)
		rec.Host = targets[name].Host
		rec.Port = targets[name].Port
		c, err := road.Probe(ctx, rec, nil)
		if err != nil {
			return err
		}
		return c.Close()
	}
}
