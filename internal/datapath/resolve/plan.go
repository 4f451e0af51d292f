package resolve

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/datapath/resolve/dnsclient"
	"github.com/pandoproxy/pando/internal/datapath/resolve/owner"
	"github.com/pandoproxy/pando/internal/datapath/resolve/podfiles"
	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/host"
)

// view is everything that a lookup depends on, at one moment.
type view struct {
	owner.Owners
	up        bool // false while the tailnet is not up
	files     podfiles.Files
	served    []string // see Options.Served
	askGlobal bool     // see Options.DialGlobal

	client netip.Addr // whose lookup it is; see Options.Enter
	whole  bool       // all addresses are kept: see LookupPod

	qtype   uint16            // of the records; zero means addresses
	inTable func(string) bool // whether a table has an address of a name, if qtype is set
}

func (r *Resolver) view() view {
	v := view{
		files:     r.files.Load(),
		served:    r.opts.Served,
		askGlobal: r.opts.DialGlobal != nil,
	}
	v.Owners, v.up = r.owners()
	return v
}

// step is one source's part in a plan.
type step struct {
	source  string
	name    string            // what the source is asked for
	skip    string            // why the source gives no answer; empty if it is used
	known   *dnsclient.Result // its answer, if no server is asked
	servers []string          // the servers that are asked, if known is nil
	via     network           // how servers are reached
	guess   bool              // the name probably does not exist
	ends    ending
	last    string // why no later source is asked if this step ends the plan
}

// network is how the servers of a step are reached.
type network uint8

const (
	tunnel network = iota
	podNetwork
	globalNetwork // see Options.DialGlobal
	magicDNS      // no server: see Options.QueryMagic
)

// networkOf returns how the servers of z are reached.
func networkOf(z Zone) network {
	switch {
	case z.Direct:
		return podNetwork
	case z.OfTailnet:
		return globalNetwork
	}
	return tunnel
}

// ending says which outcomes of a step end its plan. An answer always does.
type ending uint8

const (
	onAnswer          ending = iota // only an answer
	onAnswerOrFailure               // the source owns the name, but another form of the name may exist
	onAnswerOrTimeout               // the pod's resolvers may refuse one form of the name and know the next
	unlessPartial                   // as onAnswerOrTimeout, or if the answer shows that the name is a whole one
	onAnything                      // the source owns the name
)

// endedBy reports whether res ends the plan.
func (e ending) endedBy(res *dnsclient.Result) bool {
	switch {
	case e == onAnything:
		return true
	case flow.ClassOf(res.Err) == flow.Overloaded: // another source must not answer instead
		return true
	case res.Err != nil:
		return e == onAnswerOrFailure || e >= onAnswerOrTimeout && timedOut(res.Err)
	}
	return res.Found() || e == unlessPartial && strings.Contains(res.Zone, ".")
}

// Lifetimes of answers that no server gives a TTL for.
const (
	tableTTL  = 5 * time.Second // of the host table, /etc/hosts and nodes
	recordTTL = time.Minute
)

// plan returns the steps of a lookup of name, in order. It sends no query.
func (v *view) plan(name string) []step {
	p := plan{view: v}
	if p.tables(name) {
		return p.steps
	}
	if !v.up {
		p.add(step{name: name, known: &dnsclient.Result{Err: errNotReady}, ends: onAnything})
		return p.steps
	}
	if !strings.Contains(name, ".") && v.qtype == 0 { // records have the whole name
		for _, domain := range v.Search {
			if p.completed(name + "." + domain) {
				return p.steps
			}
		}
		if p.node(name) {
			return p.steps
		}
	}
	switch {
	case p.owned(name, onAnything, "the name has an owner"):
	case p.servedHere(name):
	case p.global(name, onAnything, "the tailnet has resolvers for such names"):
	default:
		p.pod(name)
	}
	return p.steps
}

// planPod is the plan for a name of the cluster. Tables other than /etc/hosts
// are not used.
func (v *view) planPod(name string) []step {
	p := plan{view: v}
	if !p.table(SourceFile, name, v.files.Hosts[name]) {
		p.pod(name)
	}
	return p.steps
}

// plan collects steps. Its methods add the steps of one kind of source. They
// report whether the plan is complete: no later step can be reached.
type plan struct {
	*view
	steps []step
}

func (p *plan) add(s step) (complete bool) {
	p.steps = append(p.steps, s)
	return s.skip == "" && (s.ends == onAnything || s.known != nil && s.ends.endedBy(s.known))
}

// table adds the entry of a table for name.
func (p *plan) table(source, name string, addrs []netip.Addr) (complete bool) {
	if len(addrs) == 0 {
		return p.add(step{source: source, name: name, skip: "no entry"})
	}
	return p.add(step{
		source: source,
		name:   name,
		known:  &dnsclient.Result{Addrs: addrs, TTL: tableTTL},
		last:   "the name is in a table",
	})
}

// tables adds the host table, and the pod's /etc/hosts.
func (p *plan) tables(name string) (complete bool) {
	return p.table(SourceHosts, name, owner.InTable(p.Hosts, name)) ||
		p.table(SourceFile, name, p.files.Hosts[name])
}

// completed adds the sources of a name that one of the tailnet's search domains
// has completed.
func (p *plan) completed(whole string) (complete bool) {
	const last = "a search domain of the tailnet completes the name"
	if p.tables(whole) {
		return true
	}
	before := len(p.steps)
	if p.owned(whole, onAnswerOrFailure, last) {
		return true
	}
	if used(p.steps[before:]) {
		return false
	}
	return p.global(whole, onAnswer, last)
}

// node adds the node whose name begins with label. No search domain may lead to it, as
// when MagicDNS is off; the stock container knows it by its first label, too.
func (p *plan) node(label string) (complete bool) {
	whole := label + "." + p.MagicSuffix
	suffix, _, _ := p.Zone(whole)
	if slices.Contains(p.Search, p.MagicSuffix) || len(p.Nodes[whole]) == 0 && !p.IsMagic(whole, suffix) {
		return false
	}
	return p.owned(whole, onAnswer, "a node of the tailnet has the name")
}

// used reports whether one of steps gives an answer.
func used(steps []step) bool {
	return slices.ContainsFunc(steps, func(s step) bool { return s.skip == "" })
}

// owned adds the sources that own parts of the name space. One of them is used
// at most.
func (p *plan) owned(name string, ends ending, last string) (complete bool) {
	s := step{name: name, ends: ends, last: last}
	if addrs := p.Records[name]; len(addrs) > 0 {
		s.source = SourceRecord
		s.known = &dnsclient.Result{Addrs: addrs, TTL: recordTTL}
		return p.add(s)
	}
	p.add(step{source: SourceRecord, name: name, skip: "no entry"})
	if addrs := p.Nodes[name]; len(addrs) > 0 {
		s.source = SourceNode
		s.known = &dnsclient.Result{Addrs: addrs, TTL: tableTTL}
		return p.add(s)
	}
	suffix, zone, zoned := p.Zone(name)
	if p.IsMagic(name, suffix) {
		s.source = SourceMagicDNS
		s.via = magicDNS
		return p.add(s)
	}
	p.add(step{source: SourceMagicDNS, name: name, skip: "not asked: " + p.NotMagic(name)})
	if !zoned {
		return p.add(step{source: "zone", name: name, skip: "no zone contains the name"})
	}
	s.source = SourceZone + suffix
	s.servers = zone.Servers
	s.via = networkOf(zone)
	if len(zone.Servers) == 0 { // only the tailnet itself knows this zone
		s.known = &dnsclient.Result{NX: true, TTL: negativeTTL}
	}
	return p.add(s)
}

// servedHere adds the failure for a name that cluster DNS forwards to this
// process and that no source owns.
func (p *plan) servedHere(name string) (complete bool) {
	if !slices.ContainsFunc(p.served, func(suffix string) bool { return host.Under(name, suffix) }) {
		return false
	}
	return p.add(step{
		source: SourceServed,
		name:   name,
		known:  &dnsclient.Result{Err: errUnknownZone},
		ends:   onAnything,
		last:   "it would forward the query back to this fleet",
	})
}

// global adds the tailnet's global resolvers.
func (p *plan) global(name string, ends ending, last string) (complete bool) {
	var usable []string
	for _, s := range p.Resolvers {
		if _, err := dnsclient.ServerAddr(s); err != nil {
			p.add(step{source: SourceGlobal, name: name, skip: "not asked: " + err.Error()})
			continue
		}
		usable = append(usable, s)
	}
	s := step{
		source:  SourceGlobal,
		name:    name,
		servers: usable,
		via:     globalNetwork,
		ends:    ends,
		last:    last,
	}
	switch {
	case len(usable) == 0 || !p.askGlobal:
		s.skip = "not asked: the tailnet has no usable global resolver"
	case p.files.OfCluster(name):
		s.skip = "not asked: the name belongs to the cluster"
	}
	return p.add(s)
}

// pod adds the pod's own resolvers. A name with a dot is asked as it is first,
// and then with the pod's search domains, whatever ndots says: the replica's
// clients give whole names. It is not completed if the first answer shows that it
// is a whole name: a zone of two labels or more contains it. A search domain may
// lead into a zone; its own resolvers are asked then.
func (p *plan) pod(name string) {
	if p.files.ConfErr != nil {
		p.add(step{
			source: SourceBase,
			name:   name,
			known:  &dnsclient.Result{Err: p.files.ConfErr},
			ends:   onAnything,
		})
		return
	}
	var servers []string
	for _, s := range p.files.Conf.Servers {
		servers = append(servers, net.JoinHostPort(s, p.files.Conf.Port))
	}
	for _, c := range p.files.Forms(name) {
		if c != name && p.qtype != 0 { // records have the whole name
			continue
		}
		if c != name && p.tables(c) { // the tables have no entry for name itself
			return
		}
		const last = "a search domain of the pod completes the name"
		before := len(p.steps)
		if c != name && p.owned(c, onAnswerOrFailure, last) {
			return
		}
		if used(p.steps[before:]) {
			continue
		}
		s := step{
			source:  SourceBase,
			name:    c,
			servers: servers,
			via:     podNetwork,
			guess:   c != name,
			ends:    onAnswerOrTimeout,
		}
		if c == name {
			s.ends = unlessPartial
		}
		p.add(s)
	}
}
