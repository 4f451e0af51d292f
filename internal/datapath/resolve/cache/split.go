package cache

import "net/netip"

// Split is a cache that keeps what does not exist apart, in a quarter of it: a client
// that asks for random names does not push out answers. Its methods may be called at the
// same time.
type Split[V any] struct{ good, failed *Cache[V] }

// NewSplit returns an empty cache that holds most bytes.
func NewSplit[V any](most int) *Split[V] {
	return &Split[V]{
		good:   New[V](most * 3 / 4),
		failed: New[V](most / 4),
	}
}

// Get is Get of Cache.
func (s *Split[V]) Get(name string) (value V, ok bool) {
	value, ok = s.good.Get(name)
	if !ok {
		value, ok = s.failed.Get(name)
	}
	return value, ok
}

// Add is Add of Cache. good says that value is an answer.
func (s *Split[V]) Add(addr netip.Addr, name string, value V, bytes int, good bool) {
	if good {
		s.good.Add(addr, name, value, bytes)
		s.failed.Remove(name)
		return
	}
	s.failed.Add(addr, name, value, bytes)
	s.good.Remove(name)
}

// Purge forgets all names.
func (s *Split[V]) Purge() {
	s.good.Purge()
	s.failed.Purge()
}

// Use returns the bytes that are held for answers, and for what does not exist.
func (s *Split[V]) Use() (good, failed int) {
	_, good = s.good.Use()
	_, failed = s.failed.Use()
	return good, failed
}
