package account

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
)

// memory is a Memory with a bound.
type memory struct{ held, most int64 }

var errFull = errors.New("full")

func (m *memory) Take(_ netip.Addr, n int64) error {
	if m.held+n > m.most {
		return errFull
	}
	m.held += n
	return nil
}

func (m *memory) Add(_ netip.Addr, n int64) { m.held += n }

// TestAccount checks that what a request takes is given back, whatever it was.
func TestAccount(t *testing.T) {
	m := &memory{most: exchangeCost + 41*headShare}
	a := &Account{Memory: m}
	if err := a.Head(40); err != nil || m.held != 40*headShare {
		t.Errorf("Head(40) = %v with %d held", err, m.held)
	}
	if err := a.Exchange(false); err != nil {
		t.Errorf("Exchange = %v, want nil", err)
	}
	if err := a.Head(40); err != errFull {
		t.Errorf("Head without memory = %v, want %v", err, errFull)
	}
	a.Measure(time.Now(), 5000, 1)
	if want := int64(40*headShare + exchangeCost + 5000); m.held != want {
		t.Errorf("held %d, want %d", m.held, want)
	}
	a.Release()
	a.Release()
	if m.held != 0 {
		t.Errorf("held %d after Release, want none", m.held)
	}
	a.Measure(time.Now(), 5000, 1)
	if m.held != 0 {
		t.Errorf("held %d after the request has ended, want none", m.held)
	}
}

// TestStalled checks which requests make no progress.
func TestStalled(t *testing.T) {
	a := &Account{Memory: &memory{most: 1 << 20}}
	now := time.Now()
	a.Exchange(false)
	for i, c := range []struct {
		held     int64
		progress uint64
		stalled  bool
	}{
		{1 << 20, 1, false}, // seen for the first time
		{1 << 20, 1, true},
		{1 << 20, 2, false}, // it moves
		{1 << 20, 2, true},
		{10, 2, false}, // nothing waits: it awaits its response
	} {
		now = now.Add(time.Second)
		if _, stalled := a.Measure(now, c.held, c.progress); stalled != c.stalled {
			t.Errorf("%d: stalled %v, want %v", i, stalled, c.stalled)
		}
	}
	a.Release()
	a.BeginHead()
	a.Head(10)
	if h, stalled := a.Measure(now, 0, 0); !stalled || h.Bytes != 10*headShare {
		t.Errorf("an unfinished head: %+v, stalled %v; want stalled with %d bytes", h, stalled, 10*headShare)
	}
	if !a.Evict() || flow.ClassOf(a.Evicted()) != flow.Overloaded {
		t.Errorf("Evicted = %v after Evict in a head, want class overloaded", a.Evicted())
	}
	a.Release()
	if err := a.Evicted(); err != nil {
		t.Errorf("Evicted = %v after the request, want nil for the next one", err)
	}
}
