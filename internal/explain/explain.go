// Package explain answers "why does it fail": it walks the road for one target
// on a running replica, by the same code as clients do, and tells what each
// stage did; without a target it checks the replica itself. It changes nothing,
// counts as no flow, and dials only what the policy lets the client reach that
// it stands for.
package explain

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/admin"
	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
)

// Request is what is to be explained. The zero value checks the replica itself.
type Request struct {
	// Target is a URL (http, https), or host:port.
	Target string `json:"target,omitempty"`
	// Client is the address that the policy is asked about; empty means
	// 127.0.0.1, which rules that name clients do not.
	Client string `json:"client,omitempty"`
	// User is name:password, as a client would give them; empty means none.
	User string `json:"user,omitempty"`
	// TLS shakes hands with a target that is no https URL, HTTP asks one that is no
	// URL for /. A URL is asked for anyway.
	TLS  bool `json:"tls,omitempty"`
	HTTP bool `json:"http,omitempty"`
	// CA is PEM of authorities that are trusted beside the system's.
	CA string `json:"ca,omitempty"`
}

// Status is how a stage went.
type Status string

const (
	OK   Status = "ok"
	Warn Status = "warn" // it goes on, but somebody should look
	Fail Status = "fail"
)

// Report tells what happened, stage by stage. Its JSON is an interface.
type Report struct {
	Target string `json:"target,omitempty"`
	Client string `json:"client,omitempty"`
	Device string `json:"device"` // the replica's name on its tailnet
	// Class is a flow.Class: that of the first stage that failed, or "ok".
	Class  string  `json:"class"`
	Hint   string  `json:"hint,omitempty"` // what to do about it
	Stages []Stage `json:"stages"`

	Flow     *flow.Record   `json:"flow,omitempty"` // as far as it came, with the keys of the log line
	Steps    []resolve.Step `json:"steps,omitempty"`
	Carriers []Carrier      `json:"carriers,omitempty"`
	TLS      *TLS           `json:"tls,omitempty"`
	HTTP     string         `json:"http,omitempty"` // status line
}

// Stage is one step of the road, or one check of the replica.
type Stage struct {
	Name   string   `json:"name"`
	Status Status   `json:"status"`
	Says   string   `json:"says"`
	Detail []string `json:"detail,omitempty"`
	Millis float64  `json:"ms,omitempty"`
}

// Carrier is the peer that carries an address.
type Carrier struct {
	Addr  netip.Addr   `json:"addr"`
	Kind  string       `json:"kind"` // "peer", "subnet router" or "exit node"
	Route netip.Prefix `json:"route"`
	admin.Peer
}

// Explainer explains. All functions are needed.
type Explainer struct {
	Road *datapath.Road
	// Admits says why a client would be turned away at the port; nil if it wouldn't.
	Admits func(client netip.Addr) error
	// Password reports whether name:password is right; nil means that nobody is
	// asked for one.
	Password func(user, password string) bool
	// Carrier returns the peer that carries an address, and its route.
	Carrier func(netip.Addr) (admin.Peer, netip.Prefix, bool)
	// AcceptRoutes says that the routes of peers are used.
	AcceptRoutes bool
	// Status is the replica's own state, with at most so many flows.
	Status func(flows int) admin.Status
}

// walkTime bounds one explanation: a lookup twice, a dial, a handshake and an
// answer.
const walkTime = time.Minute

// Explain explains one request.
func (e *Explainer) Explain(ctx context.Context, q Request) Report {
	ctx, cancel := context.WithTimeout(ctx, walkTime)
	defer cancel()
	w := &walk{Explainer: e, request: q, Report: Report{Target: q.Target, Device: e.Status(0).Tailnet.Name, Class: flow.OK.String()}}
	if q.Target == "" {
		w.check(ctx)
		return w.Report
	}
	if err := w.parse(); err != nil {
		w.fail("target", 0, err)
		return w.Report
	}
	if w.admit() {
		w.road(ctx)
	}
	return w.Report
}

// walk is one explanation in progress.
type walk struct {
	*Explainer
	Report
	request Request
	rec     flow.Record
	url     *url.URL // nil when the target is host:port
}

// add notes a stage that went well, or well enough.
func (w *walk) add(name string, status Status, took time.Duration, says string, detail ...string) {
	w.Stages = append(w.Stages, Stage{name, status, says, detail, float64(took.Microseconds()) / 1000})
}

// fail notes a stage that ended the walk.
func (w *walk) fail(name string, took time.Duration, err error, detail ...string) {
	says := err.Error()
	if fe, ok := errors.AsType[*flow.Error](err); ok && fe.Err != nil {
		says = fe.Err.Error()
	}
	w.add(name, Fail, took, says, detail...)
	if w.Class == flow.OK.String() {
		w.blame(err)
	}
}

// blame makes err the end of the walk.
func (w *walk) blame(err error) {
	w.Class, w.Hint = flow.ClassOf(err).String(), flow.HintOf(err)
	if w.Class == flow.NoRoute.String() {
		w.Hint = w.unlessRoutesAreOff(w.Hint)
	}
}

func bad(hint string, err error) error {
	return &flow.Error{Class: flow.BadRequest, Op: "explain", Hint: hint, Err: err}
}

// parse reads the request.
func (w *walk) parse() error {
	q := w.request
	w.rec = flow.Record{Start: time.Now()}
	client := netip.MustParseAddr("127.0.0.1")
	if q.Client != "" {
		var err error
		if client, err = netip.ParseAddr(q.Client); err != nil {
			return bad("write the client's address, such as 10.244.1.7", err)
		}
	}
	w.Client = client.String()
	w.rec.Client, w.rec.Front = netip.AddrPortFrom(client, 0), flow.Connect
	if q.CA != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(q.CA)) {
		return bad("give authorities in PEM: -----BEGIN CERTIFICATE-----", errors.New("the CA holds no certificate"))
	}
	const form = "write a URL such as https://api.example.com/, or host:port"
	if strings.ContainsAny(q.Target, " \t\r\n") {
		return bad(form, errors.New("the target has white space in it"))
	}
	host, port, err := net.SplitHostPort(q.Target)
	if strings.Contains(q.Target, "://") {
		if w.url, err = url.Parse(q.Target); err != nil {
			return bad(form, err)
		}
		w.Target = w.url.Redacted()
		host, port = w.url.Hostname(), w.url.Port()
		def := map[string]string{"http": "80", "https": "443"}[w.url.Scheme]
		if def == "" {
			return bad("write http://…, https://…, or host:port", fmt.Errorf("the scheme %q is not known", w.url.Scheme))
		}
		if port == "" {
			port = def
		}
		w.request.TLS, w.request.HTTP = w.url.Scheme == "https", true
		if w.rec.Front = flow.HTTP; w.request.TLS {
			w.rec.Front = flow.Connect
		}
	} else if err != nil || strings.Contains(q.Target, "/") {
		return bad(form, cmp.Or(err, errors.New("it is neither")))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return bad("write a port from 1 to 65535", fmt.Errorf("%q is no port", port))
	}
	w.rec.Host, w.rec.Port, w.Flow = host, uint16(n), &w.rec
	return nil
}

// admit is the port where clients come in. It reports whether they may.
func (w *walk) admit() bool {
	user, password, given := strings.Cut(w.request.User, ":")
	switch {
	case w.Admits(w.rec.Client.Addr()) != nil:
		w.fail("port", 0, w.Admits(w.rec.Client.Addr()))
		return false
	case given && w.Password != nil && !w.Password(user, password):
		w.fail("port", 0, &flow.Error{Class: flow.Unauthenticated, Op: "auth", Hint: "the user or the password is not in auth.usersFile", Err: errors.New("the password of " + user + " is not right")})
		return false
	case !given && w.Password != nil:
		w.add("port", Warn, 0, "clients must give a user and a password (auth.usersFile); give them with --user to try them")
	default:
		w.add("port", OK, 0, "a client at "+w.Client+" is let in")
	}
	w.rec.User = user
	return true
}

// road walks the road, and tells of each stage.
func (w *walk) road(ctx context.Context) {
	var t datapath.Trace
	conn, err := w.Road.Walk(ctx, &w.rec, &t)
	w.rec.Total, w.rec.Err = time.Since(w.rec.Start), err
	if t.Name == nil { // it is no host
		w.fail("target", 0, err)
		return
	}
	if t.Name.Final(w.Road.Policy().Mode) {
		w.fail("policy (name)", 0, err)
		return
	}
	w.judged("policy (name)", "", *t.Name, "nothing denies it before its address is known")
	if t.Answer == nil {
		w.fail("tailnet", 0, err)
		return
	}
	if !w.resolved(ctx, t.Answer, err) {
		return
	}
	denied := Fail
	if w.rec.Addr.IsValid() { // another address was let through
		denied = Warn
	}
	for _, a := range t.Addrs {
		if a.Final(w.Road.Policy().Mode) {
			w.add("policy (address)", denied, 0, a.Addr.String()+": denied: "+verdict(a.Verdict, "no rule matches"))
		} else {
			w.judged("policy (address)", a.Addr.String()+": ", a.Verdict, "no rule matches, so it is allowed")
			w.carried(a)
		}
	}
	switch {
	case !w.rec.Addr.IsValid(): // all were denied
		w.blame(err)
		return
	case err != nil:
		w.fail("connect", w.rec.Dial, err)
		return
	}
	defer conn.Close()
	w.add("connect", OK, w.rec.Dial, w.rec.Addr.String()+" answered")
	w.talk(ctx, conn)
	w.rec.Total = time.Since(w.rec.Start)
}

// judged tells of a verdict that lets pass, or would not but for report mode.
func (w *walk) judged(stage, what string, v policy.Verdict, none string) {
	if v.Deny {
		w.add(stage, Warn, 0, what+verdict(v, none)+": it would be denied, but policy.mode is report")
		return
	}
	w.add(stage, OK, 0, what+verdict(v, none))
}

// verdict says what a pass of the policy found.
func verdict(v policy.Verdict, none string) string {
	switch {
	case v.Reason == policy.Forbidden:
		return "nobody may reach it through a proxy"
	case v.Reason == policy.NotRouted:
		return "no peer of the tailnet routes it, and policy.direct does not let it go directly"
	case v.Deny:
		return "rule " + v.Rule + " denies it"
	case v.Rule != "":
		return "rule " + v.Rule + " allows it"
	}
	return none
}

// resolved tells of the lookup: what clients are told, which may be remembered,
// and what the sources say now.
func (w *walk) resolved(ctx context.Context, a *resolve.Answer, err error) bool {
	host, perr := resolve.ParseHost(w.rec.Host)
	if perr != nil {
		w.fail("resolve", 0, perr)
		return false
	}
	fresh, steps, ferr := w.Road.Resolver.Explain(ctx, host)
	w.Steps = steps
	var detail []string
	for _, s := range steps {
		detail = append(detail, fmt.Sprintf("%s: %s (%s)", s.Source, s.Says, s.Name))
	}
	if len(a.Addrs) == 0 {
		if a.Cached && ferr == nil {
			detail = append(detail, "clients are told what was true a moment ago; they will soon get "+words(fresh.Addrs))
		}
		w.fail("resolve", w.rec.Resolve, err, detail...)
		return false
	}
	says := words(a.Addrs) + " from " + a.Source
	if a.TTL > 0 {
		says += ", good for " + a.TTL.Round(time.Second).String()
	}
	status := OK
	if a.Cached {
		says += ", remembered"
		switch {
		case ferr != nil:
			status = Warn
			detail = append(detail, "its source does not say so any more: "+ferr.Error())
		case words(fresh.Addrs) != words(a.Addrs):
			detail = append(detail, "its source now says "+words(fresh.Addrs))
		}
	}
	w.add("resolve", status, w.rec.Resolve, says, detail...)
	return true
}

func words[T fmt.Stringer](list []T) string { return strings.Trim(fmt.Sprint(list), "[]") }

// carried tells who carries an address.
func (w *walk) carried(a datapath.Judged) {
	if !a.Tailnet {
		w.add("route", OK, 0, a.Addr.String()+" goes directly, through the pod's own network")
		return
	}
	peer, route, ok := w.Carrier(a.Addr)
	if !ok {
		w.add("route", Warn, 0, a.Addr.String()+": the route that there was a moment ago is gone")
		return
	}
	c := Carrier{a.Addr, "subnet router", route, peer}
	switch {
	case slices.Contains(peer.Addrs, a.Addr):
		c.Kind = "peer"
	case route.Bits() == 0:
		c.Kind = "exit node"
	}
	w.Carriers = append(w.Carriers, c)
	status := OK
	if !c.Online {
		status = Warn
	}
	w.add("route", status, 0, a.Addr.String()+": "+c.String())
}

// String says who it is and how it fares.
func (c Carrier) String() string {
	says := c.Name + ", "
	if says += c.Kind; c.Kind != "peer" {
		says += " of " + c.Route.String()
	}
	if !c.Online {
		says += ", OFFLINE according to the control server"
	}
	if c.Path != "" {
		says += ", " + c.Path
	} else {
		says += ", no path used yet"
	}
	if c.LastHandshake == nil {
		return says + ", no handshake yet"
	}
	return says + ", last handshake " + time.Since(*c.LastHandshake).Round(time.Second).String() + " ago"
}
