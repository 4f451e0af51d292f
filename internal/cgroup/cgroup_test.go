package cgroup

import (
	"errors"
	"os"
	"testing"
	"testing/fstest"
)

func files(m map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, text := range m {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

// TestFind checks where limit and use are read, in the forms that container runtimes
// leave.
func TestFind(t *testing.T) {
	for _, c := range []struct {
		name        string
		files       map[string]string
		limit, used int64 // zero limit means errNone
	}{
		{"v2_in_a_namespace", map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"proc/self/mountinfo":          "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n",
			"sys/fs/cgroup/memory.max":     "536870912\n",
			"sys/fs/cgroup/memory.current": "1000\n",
			"sys/fs/cgroup/memory.stat":    "anon 600\nfile 300\nfile_mapped 5\n",
		}, 536870912, 700},
		{"v2_limit_above", map[string]string{
			"proc/self/cgroup":                      "0::/pods/one/box\n",
			"proc/self/mountinfo":                   "30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
			"sys/fs/cgroup/pods/one/box/memory.max": "max\n",
			"sys/fs/cgroup/pods/one/memory.max":     "7000\n",
			"sys/fs/cgroup/pods/one/memory.current": "60\n",
		}, 7000, 60},
		{"v1_of_a_container", map[string]string{
			"proc/self/cgroup":                                    "5:cpu:/x\n4:memory:/docker/abc\n0::/\n",
			"proc/self/mountinfo":                                 "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          "134217728\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes":          "1000\n",
			"sys/fs/cgroup/memory/memory.kmem.tcp.usage_in_bytes": "50\n",
			"sys/fs/cgroup/memory/memory.stat":                    "cache 1\ntotal_cache 200\n",
		}, 134217728, 850},
		{"v1_without_limit", map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n",
			"proc/self/mountinfo":                        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0, 0},
		{"not_mounted", map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": "1 1 0:1 / / rw - ext4 x rw\n"}, 0, 0},
		{"no_proc", nil, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Find(files(c.files))
			if c.limit == 0 {
				if !errors.Is(err, errNone) {
					t.Errorf("Find = %v, %v; want %v", m, err, errNone)
				}
				return
			}
			if err != nil || m.Limit != c.limit {
				t.Fatalf("Find = %v, %v; want a limit of %d", m, err, c.limit)
			}
			if used, err := m.Used(); err != nil || used != c.used {
				t.Errorf("Used = %d, %v; want %d", used, err, c.used)
			}
		})
	}
}

// TestThisMachine checks that the files of this machine can be read.
func TestThisMachine(t *testing.T) {
	m, err := Find(os.DirFS("/"))
	if errors.Is(err, errNone) {
		t.Log(err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	used, err := m.Used()
	t.Logf("limit %d, used %d", m.Limit, used)
	if err != nil || used <= 0 {
		t.Errorf("Used = %d, %v; want more than zero", used, err)
	}
}
