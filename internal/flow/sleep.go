package flow

import "time"

// Sleep waits for d and reports true. It reports false as soon as done is closed. It
// does not wait if d is zero or less.
func Sleep(done <-chan struct{}, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-done:
		return false
	}
}
