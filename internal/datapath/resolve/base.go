package resolve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// hostsTTL is how long an answer of /etc/hosts is kept.
const hostsTTL = 5 * time.Second

// askBase asks the resolvers of resolv.conf. A name with a dot is asked as it
// is first, and then with the search domains, whatever ndots says: the
// gateway's clients give whole names. A search domain may lead into a zone,
// whose own resolvers are asked then.
func (r *Resolver) askBase(ctx context.Context, conf *dns.ClientConfig, v view, name string) (res result, source string) {
	servers := make([]string, len(conf.Servers))
	for i, s := range conf.Servers {
		servers[i] = net.JoinHostPort(s, conf.Port)
	}
	candidates := []string{name}
	for _, domain := range conf.Search {
		if d := strings.ToLower(strings.Trim(domain, ".")); d != "" {
			candidates = append(candidates, name+"."+d)
		}
	}
	if !strings.Contains(name, ".") && len(candidates) > 1 {
		candidates = append(candidates[1:], name) // a short name is completed first
	}
	for _, c := range candidates {
		if v.owns(c) {
			res, source = r.askPrivate(ctx, v, c)
		} else {
			res, source = r.askServers(ctx, v, r.dialBase, servers, c), SourceBase
		}
		if res.err != nil || res.found() {
			break
		}
	}
	return res, source
}

// ofCluster reports whether name lies under a search domain of the pod's own
// resolver, or is a single label, which those complete: it is the cluster's.
func ofCluster(conf *dns.ClientConfig, name string) bool {
	if !strings.Contains(name, ".") {
		return true
	}
	return conf != nil && slices.ContainsFunc(conf.Search, func(domain string) bool {
		return under(name, strings.ToLower(strings.Trim(domain, ".")))
	})
}

// disbelieve drops from a reply of the pod's network what it says of names that
// have an owner: a CNAME that leads into a private zone is followed there, and that
// the public DNS has no such name means nothing.
func disbelieve(reply *dns.Msg, v view) {
	owned := func(fqdn string) bool { return v.owns(strings.ToLower(strings.TrimSuffix(fqdn, "."))) }
	reply.Answer = slices.DeleteFunc(reply.Answer, func(rr dns.RR) bool { return owned(rr.Header().Name) })
	for _, rr := range reply.Answer {
		if c, ok := rr.(*dns.CNAME); ok && owned(c.Target) {
			reply.Rcode = dns.RcodeSuccess
		}
	}
}

// baseFiles reads /etc/hosts and resolv.conf, again when they change.
type baseFiles struct {
	hosts, conf string // paths

	mu      sync.Mutex
	checked time.Time
	stamps  [2]time.Time
	table   map[string][]netip.Addr
	config  *dns.ClientConfig
}

func (b *baseFiles) load() (map[string][]netip.Addr, *dns.ClientConfig, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.config != nil && time.Since(b.checked) < time.Second {
		return b.table, b.config, nil
	}
	b.checked = time.Now()
	stamps := [2]time.Time{modTime(b.hosts), modTime(b.conf)}
	if b.config != nil && stamps == b.stamps {
		return b.table, b.config, nil
	}
	config, err := dns.ClientConfigFromFile(b.conf)
	if err != nil {
		return nil, nil, fmt.Errorf("resolver configuration: %w", err)
	}
	if len(config.Servers) == 0 {
		return nil, nil, fmt.Errorf("resolver configuration: %s names no server", b.conf)
	}
	table, err := readHosts(b.hosts)
	if err != nil {
		return nil, nil, err
	}
	b.stamps, b.table, b.config = stamps, table, config
	return table, config, nil
}

func modTime(path string) time.Time {
	fi, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime()
}

// readHosts reads a file of hosts(5); a missing one is empty.
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
