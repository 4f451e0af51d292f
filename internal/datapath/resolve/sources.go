package resolve

import (
	"context"
	"fmt"
	"sync"
)

// sources bounds the names that each source is asked for at a time, one by one, so
// that a zone whose resolvers are dead keeps nobody else waiting.
type sources struct {
	most int

	mu sync.Mutex
	m  map[string]chan struct{} // has one for each name; one channel for each source there ever was
}

// enter waits for a place at source until ctx ends. Whoever came in leaves.
func (s *sources) enter(ctx context.Context, source string) (leave func(), err error) {
	s.mu.Lock()
	if s.m == nil {
		s.m = map[string]chan struct{}{}
	}
	places := s.m[source]
	if places == nil {
		places = make(chan struct{}, s.most)
		s.m[source] = places
	}
	s.mu.Unlock()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("too many names are being asked of this source: %w", ctx.Err())
	}
}
