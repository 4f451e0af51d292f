//go:build abuse && linux

package abuse

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is a memory cgroup, of version 1 or 2.
type cgroup struct {
	dir string
	v1  bool
}

// newCgroup makes a memory cgroup with a limit in bytes, below that of this
// process. It is removed at the end of the test.
func newCgroup(t *testing.T, limit int64) *cgroup {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: a memory cgroup needs root; run as root")
	}
	parent, v1 := ownCgroup(t)
	g := &cgroup{filepath.Join(parent, "pando-abuse-"+strconv.Itoa(os.Getpid())+"-"+strconv.FormatInt(time.Now().UnixNano(), 36)), v1}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: cannot make a memory cgroup: %v", err)
	}
	t.Cleanup(func() { unix.Rmdir(g.dir) })
	value := strconv.FormatInt(limit, 10)
	if !v1 {
		g.set(t, "memory.max", value)
		os.WriteFile(filepath.Join(g.dir, "memory.swap.max"), []byte("0"), 0)
		return g
	}
	g.set(t, "memory.limit_in_bytes", value)
	// Version 1 counts the memory of sockets apart, and only if it is limited.
	g.set(t, "memory.kmem.tcp.limit_in_bytes", value)
	return g
}

// ownCgroup returns the directory of the memory cgroup of this process.
func ownCgroup(t *testing.T) (dir string, v1 bool) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && parts[1] == "memory" {
			return filepath.Join("/sys/fs/cgroup/memory", parts[2]), true
		}
		if len(parts) == 3 && parts[0] == "0" {
			dir = filepath.Join("/sys/fs/cgroup", parts[2])
		}
	}
	return dir, false
}

func (g *cgroup) set(t *testing.T, file, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
}

// join moves this process to the cgroup in dir.
func join(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}

// used returns the memory in use, in bytes, that of sockets included and without
// the page cache.
func (g *cgroup) used() int64 {
	if !g.v1 {
		return g.number("memory.current") - g.field("memory.stat", "file")
	}
	return g.number("memory.usage_in_bytes") - g.field("memory.stat", "cache") + g.number("memory.kmem.tcp.usage_in_bytes")
}

// sockets returns the memory of sockets, in bytes.
func (g *cgroup) sockets() int64 {
	if !g.v1 {
		return g.field("memory.stat", "sock")
	}
	return g.number("memory.kmem.tcp.usage_in_bytes")
}

// kills returns how many processes were killed for memory.
func (g *cgroup) kills() int64 {
	if !g.v1 {
		return g.field("memory.events", "oom_kill")
	}
	return g.field("memory.oom_control", "oom_kill")
}

func (g *cgroup) number(file string) int64 {
	data, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return -1
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n
}

func (g *cgroup) field(file, key string) int64 {
	data, _ := os.ReadFile(filepath.Join(g.dir, file))
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}
