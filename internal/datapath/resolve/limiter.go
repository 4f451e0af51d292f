package resolve

import (
	"context"
	"fmt"
	"sync"
)

// limiter bounds the lookups in progress for each source on its own. A zone
// whose resolvers are dead does not delay the lookups of other zones.
type limiter struct {
	perSource int

	mu     sync.Mutex
	places map[string]chan struct{} // by source; holds one element for each lookup
}

// enter waits for a place at source, or until ctx ends. If it returns no error,
// the caller must call leave.
func (l *limiter) enter(ctx context.Context, source string) (leave func(), err error) {
	l.mu.Lock()
	if l.places == nil {
		l.places = map[string]chan struct{}{}
	}
	places := l.places[source]
	if places == nil {
		places = make(chan struct{}, l.perSource)
		l.places[source] = places
	}
	l.mu.Unlock()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("too many lookups of this source are in progress: %w", ctx.Err())
	}
}
