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
// whose own resolvers are asked then. whole is the name that a search domain
// completed; empty when none did.
func (r *Resolver) askBase(ctx context.Context, conf *dns.ClientConfig, v view, name string) (res result, source, whole string) {
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
	if (!strings.Contains(name, ".") || under(name, "svc")) && len(candidates) > 1 {
		candidates = append(candidates[1:], name) // a name that is not whole is completed first
	}
	var failed result
	for _, c := range candidates {
		var listed []netip.Addr
		if c != name { // which was looked for there before
			listed, source = r.listed(ctx, c)
		}
		if len(listed) > 0 {
			res = result{addrs: listed, ttl: hostsTTL}
		} else if v.owner(c) != "" {
			res, source = r.askPrivate(ctx, v, c)
		} else {
			res, source = r.askServers(ctx, v, SourceBase, r.dialBase, servers, c), SourceBase
		}
		if res.err == nil && !res.found() {
			continue
		}
		if c != name {
			whole = c
		}
		if res.found() && res.err == nil || source != SourceBase || timedOut(res.err) {
			return res, source, whole
		}
		failed = res // a cluster's DNS may refuse what is not the cluster's, and know the next
	}
	if failed.err != nil {
		return failed, SourceBase, ""
	}
	return res, source, ""
}

// ofCluster reports whether name is the cluster's: a single label, or a name of
// a Service with "svc" and no more, which the pod's search domains complete, or
// one under such a domain.
func ofCluster(conf *dns.ClientConfig, name string) bool {
	if !strings.Contains(name, ".") || under(name, "svc") {
		return true
	}
	return conf != nil && slices.ContainsFunc(conf.Search, func(domain string) bool {
		return under(name, strings.ToLower(strings.Trim(domain, ".")))
	})
}

// disbelieve drops from a reply of source what it says of names that have another
// owner: a CNAME that leads into a private zone is followed there, and that
// the public DNS has no such name means nothing.
func disbelieve(reply *dns.Msg, v view, source string) {
	others := func(fqdn string) bool {
		owner := v.owner(strings.ToLower(strings.TrimSuffix(fqdn, ".")))
		return owner != "" && owner != source
	}
	reply.Answer = slices.DeleteFunc(reply.Answer, func(rr dns.RR) bool { return others(rr.Header().Name) })
	for _, rr := range reply.Answer {
		if c, ok := rr.(*dns.CNAME); ok && others(c.Target) {
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
	config  *dns.ClientConfig // the last good one
	err     error             // nil when it is what the file says, or that has become unreadable
}

// load returns what the files say. The error is of resolv.conf alone.
func (b *baseFiles) load() (map[string][]netip.Addr, *dns.ClientConfig, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.checked) < time.Second {
		return b.table, b.config, b.err
	}
	b.checked = time.Now()
	stamps := [2]time.Time{modTime(b.hosts), modTime(b.conf)}
	if stamps == b.stamps && b.err == nil && b.config != nil {
		return b.table, b.config, nil
	}
	b.stamps = stamps
	if table, err := readHosts(b.hosts); err == nil {
		b.table = table
	}
	config, err := dns.ClientConfigFromFile(b.conf)
	if err == nil && len(config.Servers) == 0 {
		err = fmt.Errorf("%s names no server", b.conf)
	}
	switch {
	case err == nil:
		b.config, b.err = config, nil
	case b.config == nil:
		b.err = fmt.Errorf("resolver configuration: %w", err)
	}
	return b.table, b.config, b.err
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
