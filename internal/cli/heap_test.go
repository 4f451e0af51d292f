package cli

import (
	"os"
	"runtime/debug"
	"testing"

	"github.com/pandoproxy/pando/internal/cgroup"
)

// TestBoundHeap checks that the collector's limit follows the container's, and that
// GOMEMLIMIT comes first.
func TestBoundHeap(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	boundHeap([]string{"GOMEMLIMIT=1GiB"})
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("with GOMEMLIMIT: the limit is %d, want it left at %d", got, before)
	}
	want := before // nothing limits the memory here
	if m, err := cgroup.Find(os.DirFS("/")); err == nil {
		want = m.Limit * 4 / 5
	}
	boundHeap(nil)
	if got := debug.SetMemoryLimit(-1); got != want {
		t.Errorf("the limit is %d, want %d", got, want)
	}
}
