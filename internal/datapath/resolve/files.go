package resolve

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// podFiles is what the pod's /etc/hosts and resolv.conf say.
type podFiles struct {
	hosts map[string][]netip.Addr
	conf  *dns.ClientConfig // nil if confErr is set
	// confErr says why there is no resolv.conf to use. It is nil if an older
	// version of the file was usable.
	confErr error
}

// fileReader reads the two files, and reads them again when they change.
type fileReader struct {
	hosts, conf string // paths

	mu      sync.Mutex
	checked time.Time
	stamps  [2]time.Time // modification times of hosts and conf
	files   podFiles
}

// load returns what the files say. It looks at them at most once a second.
func (f *fileReader) load() podFiles {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.checked) < time.Second {
		return f.files
	}
	f.checked = time.Now()
	stamps := [2]time.Time{modTime(f.hosts), modTime(f.conf)}
	if stamps == f.stamps && f.files.conf != nil {
		return f.files
	}
	f.stamps = stamps
	if hosts, err := readHosts(f.hosts); err == nil {
		f.files.hosts = hosts
	}
	conf, err := readResolvConf(f.conf)
	switch {
	case err == nil:
		f.files.conf = conf
		f.files.confErr = nil
	case f.files.conf == nil:
		f.files.confErr = err
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

// lookupHosts finds name in a host table, exactly or by its closest wildcard.
func lookupHosts(table map[string][]netip.Addr, name string) []netip.Addr {
	if a := table[name]; len(a) > 0 {
		return a
	}
	rest := name
	for {
		var ok bool
		_, rest, ok = strings.Cut(rest, ".")
		if !ok {
			return nil
		}
		if a := table["*."+rest]; len(a) > 0 {
			return a
		}
	}
}
