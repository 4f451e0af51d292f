// Package podfiles reads the pod's own /etc/hosts and resolv.conf, and says which
// names belong to the cluster.
package podfiles

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/pandoproxy/pando/internal/host"
)

// Files is what the two files say.
type Files struct {
	Hosts map[string][]netip.Addr // by name, in lower case
	Conf  *dns.ClientConfig       // nil if ConfErr is set
	// ConfErr says why resolv.conf cannot be used. It is nil if an older version of
	// the file was usable.
	ConfErr error
}

// Reader reads the two files, and reads them again when they change. Its method may
// be called at the same time.
type Reader struct {
	Hosts, Conf string // paths

	mu      sync.Mutex
	checked time.Time
	stamps  [2]time.Time // modification times of Hosts and Conf
	files   Files
}

// Load returns what the files say. It looks at them at most once a second. A hosts
// file that is missing is an empty one.
func (f *Reader) Load() Files {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.checked) < time.Second {
		return f.files
	}
	f.checked = time.Now()
	stamps := [2]time.Time{modTime(f.Hosts), modTime(f.Conf)}
	if stamps == f.stamps && f.files.Conf != nil {
		return f.files
	}
	f.stamps = stamps
	if hosts, err := readHosts(f.Hosts); err == nil {
		f.files.Hosts = hosts
	}
	conf, err := readResolvConf(f.Conf)
	switch {
	case err == nil:
		f.files.Conf = conf
		f.files.ConfErr = nil
	case f.files.Conf == nil:
		f.files.ConfErr = err
	}
	return f.files
}

func modTime(path string) time.Time {
	fi, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime()
}

func readResolvConf(path string) (*dns.ClientConfig, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("resolver configuration: %w", err)
	}
	if len(conf.Servers) == 0 {
		return nil, fmt.Errorf("resolver configuration: %s names no server", path)
	}
	var search []string
	for _, domain := range conf.Search {
		if d := strings.ToLower(strings.Trim(domain, ".")); d != "" {
			search = append(search, d)
		}
	}
	conf.Search = search
	return conf, nil
}

// readHosts reads a file in the format of hosts(5). A missing file is an empty
// one.
func readHosts(path string) (map[string][]netip.Addr, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hosts file: %w", err)
	}
	defer f.Close()
	table := map[string][]netip.Addr{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line, _, _ := strings.Cut(sc.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		a, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		for _, name := range fields[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			table[name] = append(table[name], a.WithZone("").Unmap())
		}
	}
	return table, nil
}

// Forms returns name as it is and completed by each of the pod's search domains,
// in the order in which the pod's resolvers are asked.
func (f *Files) Forms(name string) []string {
	var completed []string
	for _, domain := range f.Conf.Search {
		completed = append(completed, name+"."+domain)
	}
	if IsPartial(name) {
		return append(completed, name)
	}
	return append([]string{name}, completed...)
}

// IsPartial reports whether name is to be completed before it is asked as it is:
// a single label, or a Service's name that ends in "svc".
func IsPartial(name string) bool {
	return !strings.Contains(name, ".") || host.Under(name, "svc")
}

// OfCluster reports whether name belongs to the cluster: it is partial, or below
// one of the pod's search domains.
func (f *Files) OfCluster(name string) bool {
	if IsPartial(name) {
		return true
	}
	return f.Conf != nil && slices.ContainsFunc(f.Conf.Search, func(domain string) bool { return host.Under(name, domain) })
}
