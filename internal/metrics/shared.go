package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// shared gathers at most once in a period, whoever asks and how often: a gathering
// looks at every flow and every peer. The result of a gathering is read only.
type shared struct {
	prometheus.Gatherer
	period time.Duration

	mu       sync.Mutex // held during a gathering
	gathered time.Time  // when the last gathering began; zero means never
	families []*dto.MetricFamily
	err      error
}

// Gather returns what was gathered within the period, or gathers.
func (s *shared) Gather() ([]*dto.MetricFamily, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.gathered) >= s.period {
		s.gathered = now
		s.families, s.err = s.Gatherer.Gather()
	}
	return s.families, s.err
}
