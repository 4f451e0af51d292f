package flow

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestMoment checks that the time since a moment begins again when it is set.
func TestMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Moment
		m.SetNow()
		time.Sleep(time.Hour)
		if got := m.Elapsed(); got != time.Hour {
			t.Errorf("Elapsed() = %v, want 1h", got)
		}
		m.SetNow()
		if got := m.Elapsed(); got != 0 {
			t.Errorf("Elapsed() = %v after SetNow, want 0s", got)
		}
	})
}
