package podproxy

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checkTime bounds the lookups of a Check.
const checkTime = 5 * time.Second

// knowledge is what is known of the own fleet at a time.
type knowledge struct {
	p      *Proxy
	names  []string // of the fleet, and addresses, in the form of canonical
	addrs  []netip.Addr
	missed bool // an address of the fleet is not known
}

// newKnowledge looks the names of the fleet up.
func (p *Proxy) newKnowledge(ctx context.Context) *knowledge {
	k := &knowledge{p: p}
	if governing := governingService(p.opts.HostsFile); governing != "" {
		k.names = append(k.names, canonical(governing))
	}
	for _, host := range p.opts.Fleet {
		k.names = append(k.names, canonical(host))
		found, err := k.lookup(ctx, host)
		k.missed = k.missed || err != nil
		k.addrs = append(k.addrs, found...)
	}
	return k
}

// leadsBack reports whether a proxy is a replica of the own fleet, or leads to one.
// sure reports whether that is known.
func (k *knowledge) leadsBack(ctx context.Context, proxy *url.URL) (own, sure bool) {
	host := proxy.Hostname()
	name := canonical(host)
	if slices.Contains(k.names, name) || slices.Contains(k.names, canonical(name+".svc")) {
		return true, true
	}
	addrs, err := k.lookup(ctx, host)
	if err != nil {
		return false, false
	}
	n, err := strconv.ParseUint(port(proxy), 10, 16)
	if err != nil {
		return false, true
	}
	for _, a := range addrs {
		if slices.Contains(k.addrs, a) || k.isOwn(netip.AddrPortFrom(a, uint16(n))) {
			return true, true
		}
	}
	return false, !k.missed
}

// isOwn is Options.Own for every spelling of loopback: all of 127.0.0.0/8 leads to
// this host, and so do the unspecified addresses.
func (k *knowledge) isOwn(a netip.AddrPort) bool {
	own := k.p.opts.Own
	if own == nil {
		return false
	}
	if ip := a.Addr(); ip.IsLoopback() || ip.IsUnspecified() {
		for _, loopback := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			if own(netip.AddrPortFrom(loopback, a.Port())) {
				return true
			}
		}
	}
	return own(a)
}

// lookup returns the addresses of a host, which may be one.
func (k *knowledge) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap().WithZone("")}, nil
	}
	if canonical(host) == "localhost" {
		return []netip.Addr{netip.IPv6Loopback()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	find := k.p.opts.Lookup
	if find == nil {
		find = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		}
	}
	found, err := find(ctx, host)
	for i, a := range found {
		found[i] = a.Unmap()
	}
	return found, err
}

// canonical returns a name in lower case, without its final dot. Of the full name of a
// Service it returns the part without the domain of the cluster.
func canonical(name string) string {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	service, _, isFull := strings.Cut(name, ".svc.")
	if isFull {
		return service + ".svc"
	}
	return name
}

// governingService returns the name of the Service that governs this pod's
// StatefulSet: Kubernetes writes pod.service.namespace.svc.domain into the pod's
// /etc/hosts. Empty means that there is none.
func governingService(hostsFile string) string {
	if hostsFile == "" {
		hostsFile = "/etc/hosts"
	}
	hostname, err := os.Hostname()
	if err != nil {
		return ""
	}
	data, err := os.ReadFile(hostsFile)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		for _, name := range strings.Fields(line) {
			service, isPod := strings.CutPrefix(name, hostname+".")
			if isPod && strings.Contains(service, ".svc") {
				return service
			}
		}
	}
	return ""
}

// replicaName is a name that Kubernetes gives to a pod: that of a StatefulSet or
// ReplicaSet, and a number or five characters.
var replicaName = regexp.MustCompile(`^(.+-)([0-9]+|[bcdfghjklmnpqrstvwxz2456789]{5})$`)

// isReplica reports whether name, of Via or Proxy-Status, is that of this replica or of
// one more of its fleet.
func (p *Proxy) isReplica(name string) bool {
	a := replicaName.FindStringSubmatch(name)
	b := replicaName.FindStringSubmatch(p.opts.Name)
	return name != "" && name == p.opts.Name || a != nil && b != nil && a[1] == b[1]
}

// look notices when a replica of the own fleet has refused a CONNECT to the proxy. No
// other CONNECT goes there: the replica would need its fleet to join the tailnet.
func (p *Proxy) look(proxy *url.URL, res *http.Response) {
	if res.StatusCode == http.StatusOK {
		return
	}
	var names []string
	for _, v := range res.Header.Values("Proxy-Status") { // RFC 9209 section 2: name; error=…
		for member := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(member, ";")
			names = append(names, strings.Trim(strings.TrimSpace(name), `"`))
		}
	}
	for _, v := range res.Header.Values("Via") { // RFC 9110 section 7.6.3: 1.1 name
		for member := range strings.SplitSeq(v, ",") {
			if f := strings.Fields(member); len(f) > 1 {
				names = append(names, f[1])
			}
		}
	}
	if i := slices.IndexFunc(names, p.isReplica); i >= 0 && !p.looped.Swap(true) {
		p.log.Warn("proxy variable leads back to this fleet", "proxy", proxy.String(), "answered_by", names[i], "effect", "the replica connects without it")
	}
}
