// Package cgroup reads the memory limit of the container that this process runs
// in, and how much of it is in use, from cgroups of version 1 and 2. It changes
// nothing.
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// errNone is the error where no cgroup limits the memory of this process.
var errNone = errors.New("no cgroup limits the memory of this process")

// Memory is the memory cgroup of this process.
type Memory struct {
	root fs.FS
	dir  string // in root
	v1   bool
	// Limit is the most memory that the processes of the cgroup may use, in bytes.
	Limit int64
}

// unlimited is from where on a limit means none: version 1 has no word for it.
const unlimited = 1 << 50

// Find finds the cgroup of this process with the least limit among it and those
// above it. root is the root of the file system: os.DirFS("/"). It is an error if
// none of them has a limit.
func Find(root fs.FS) (*Memory, error) {
	own, v1, err := ownPath(root)
	if err != nil {
		return nil, err
	}
	mount, top, err := mountPoint(root, v1)
	if err != nil {
		return nil, err
	}
	rel, below := strings.CutPrefix(own, strings.TrimSuffix(top, "/"))
	if !below {
		rel = "/" // a namespace shows the path from elsewhere; the mount is our own
	}
	var least *Memory
	for dir := path.Join(mount, rel); ; dir = path.Dir(dir) {
		m := &Memory{root: root, dir: strings.TrimPrefix(dir, "/"), v1: v1}
		m.Limit, err = m.readLimit()
		if err == nil && m.Limit < unlimited && (least == nil || m.Limit < least.Limit) {
			least = m
		}
		if dir == mount || len(dir) <= len(mount) {
			break
		}
	}
	if least == nil {
		return nil, errNone
	}
	return least, nil
}

// ownPath returns the path of this process's memory cgroup in its hierarchy.
func ownPath(root fs.FS) (own string, v1 bool, err error) {
	data, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return "", false, errNone
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			if controller == "memory" {
				return parts[2], true, nil
			}
		}
		if parts[0] == "0" {
			own = parts[2]
		}
	}
	if own == "" {
		return "", false, errNone
	}
	return own, false, nil
}

// mountPoint returns where the hierarchy of memory cgroups is mounted, and the
// cgroup that the mount shows at its top (proc_pid_mountinfo(5)).
func mountPoint(root fs.FS, v1 bool) (mount, top string, err error) {
	data, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return "", "", errNone
	}
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		kind := strings.Fields(after)
		if len(fields) < 5 || len(kind) < 3 {
			continue
		}
		isV1 := kind[0] == "cgroup" && strings.Contains(","+kind[2]+",", ",memory,")
		if v1 && isV1 || !v1 && kind[0] == "cgroup2" {
			return fields[4], fields[3], nil
		}
	}
	return "", "", errNone
}

func (m *Memory) readLimit() (int64, error) {
	if m.v1 {
		return m.number("memory.limit_in_bytes")
	}
	return m.number("memory.max")
}

// Used returns how many bytes of memory are in use, those of sockets included,
// without files that the kernel can drop.
func (m *Memory) Used() (int64, error) {
	if m.v1 {
		used, err := m.number("memory.usage_in_bytes")
		if err != nil {
			return 0, err
		}
		sockets, err := m.number("memory.kmem.tcp.usage_in_bytes")
		if err != nil {
			sockets = 0 // newer kernels do without
		}
		return used - m.stat("total_cache") + sockets, nil
	}
	used, err := m.number("memory.current")
	if err != nil {
		return 0, err
	}
	return used - m.stat("file"), nil
}

// number reads a file that holds one number, or the word max.
func (m *Memory) number(name string) (int64, error) {
	data, err := fs.ReadFile(m.root, path.Join(m.dir, name))
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(data))
	if text == "max" {
		return unlimited, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

// stat returns a field of memory.stat, and zero if it is not there.
func (m *Memory) stat(key string) int64 {
	data, err := fs.ReadFile(m.root, path.Join(m.dir, "memory.stat"))
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), key+" "); ok {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}
