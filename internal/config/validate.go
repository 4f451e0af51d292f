package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/pandoproxy/pando/internal/auth"
	"github.com/pandoproxy/pando/internal/config/authorities"
	"github.com/pandoproxy/pando/internal/config/names"
	"github.com/pandoproxy/pando/internal/config/strictyaml"
	"github.com/pandoproxy/pando/internal/config/value"
)

// Validate reports all mistakes in c at once, each with its path and the remedy. If
// it returns nil, a replica can run with c.
func (c *Config) Validate() error {
	r := &strictyaml.Report{}
	validate(c, r)
	return r.Err()
}

// validate adds the mistakes in c to r. It looks at the keys in the order of the file.
func validate(c *Config, r *strictyaml.Report) {
	v := &validator{report: r}
	v.listeners(c)
	v.tailnet(&c.Tailnet)
	v.resolve(&c.Resolve)
	v.dns(c)
	v.fronts(c)
	v.policy(&c.Policy)
	v.auth(&c.Auth)
	v.atLeast("limits.connections", c.Limits.Connections, 0)
	v.atLeast("limits.perClient", c.Limits.PerClient, 0)
	v.atLeast("limits.dials", c.Limits.Dials, 0)
	v.atLeast("limits.memory", c.Limits.Memory, 0)
	v.atLeast("limits.rate.connections", c.Limits.Rate.Connections, 0)
	if n := c.Limits.Rate.Bytes; n != 0 && n < leastBytes {
		v.add("limits.rate.bytes", "%d is too small; use %d or more, or 0 for no limit", n, leastBytes)
	}
	v.positive("dial.timeout", c.Dial.Timeout)
	v.atLeast("dial.attempts", c.Dial.Attempts, 1)
	v.positive("http.headerTimeout", c.HTTP.HeaderTimeout)
	v.positive("http.idleTimeout", c.HTTP.IdleTimeout)
	v.positive("http.bodyTimeout", c.HTTP.BodyTimeout)
	v.between("http.maxHeaderBytes", c.HTTP.MaxHeaderBytes, 1024, 1<<20)
	v.between("http.maxHeaders", c.HTTP.MaxHeaders, 16, 4096)
	v.oneOf("http.reuse", c.HTTP.Reuse, "client", "shared", "none")
	if _, err := authorities.Load(c.HTTP.CAFile); err != nil {
		v.addError("http.caFile", err)
	}
	v.notNegative("tunnel.idleTimeout", c.Tunnel.IdleTimeout, "use 0s to keep idle tunnels open")
	v.notNegative("tunnel.maxLife", c.Tunnel.MaxLife, "use 0s to keep old tunnels open")
	v.notNegative("tunnel.peerTimeout", c.Tunnel.PeerTimeout, "use 0s to leave it to TCP")
	v.probe(&c.Probe)
	v.notNegative("drain.settle", c.Drain.Settle, "use 0s to close the port at once")
	v.notNegative("drain.timeout", c.Drain.Timeout, "use 0s to cut connections at once")
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "json", "text")
	v.atLeast("log.sample", c.Log.Sample, 1)
}

// leastBytes is the least rate of bytes: a buffer of the relay in a second.
const leastBytes = 64 << 10

type validator struct{ report *strictyaml.Report }

// add records a mistake, unless the value at path could not even be read: what is
// found in it now is a consequence of that.
func (v *validator) add(path, format string, args ...any) {
	v.addError(path, fmt.Errorf(format, args...))
}

func (v *validator) addError(path string, err error) {
	if !v.report.IsInvalid(path) {
		v.report.AddError(path, err)
	}
}

var tagForm = regexp.MustCompile(`^tag:[a-zA-Z][a-zA-Z0-9-]*$`)

// secretNameForm is a DNS subdomain name of RFC 1123, which Kubernetes requires.
var secretNameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func (v *validator) tailnet(t *Tailnet) {
	v.oneOf("tailnet.mode", t.Mode, "userspace", "kernel")
	if t.Mode == "kernel" && runtime.GOOS != "linux" {
		v.add("tailnet.mode", "kernel mode requires Linux; use userspace")
	}
	if u, err := url.Parse(t.ControlURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		v.add("tailnet.controlURL", "invalid URL %q: write one such as https://headscale.example.com", t.ControlURL)
	}
	if h := t.Hostname; h != "" && !names.IsLabel(strings.ToLower(h)) {
		v.add("tailnet.hostname", "invalid host name %q: use letters, digits and dashes, at most 63", h)
	}
	if t.Expect != "" {
		v.tailnetName(t.Expect)
	}
	v.authKey(t)
	v.oauth(t)
	if t.KubeSecret != "" && !secretNameForm.MatchString(t.KubeSecret) {
		v.add("tailnet.kubeSecret", "invalid name of a Secret %q: use small letters, digits, dashes and dots", t.KubeSecret)
	}
	if t.KubeSecret != "" && t.StateDir != "" {
		v.add("tailnet.kubeSecret", "set together with tailnet.stateDir; keep one of them")
	}
	for i, tag := range t.Tags {
		if !tagForm.MatchString(tag) {
			v.add(fmt.Sprintf("tailnet.tags[%d]", i), "invalid tag %q: write tag:name, such as tag:k8s", tag)
		}
	}
	v.between("tailnet.port", t.Port, 0, 65535)
	if n := len(t.TUN); n == 0 || n > 15 {
		v.add("tailnet.tun", "invalid interface name %q: use 1 to 15 characters, such as tailscale0", t.TUN)
	}
	v.notNegative("tailnet.startTimeout", t.StartTimeout, "use 0s to refuse at once")
	v.notNegative("tailnet.bootTimeout", t.BootTimeout, "use 0s to keep trying")
}

func (v *validator) authKey(t *Tailnet) {
	if t.AuthKey.Reveal() != "" && t.AuthKeyFile != "" {
		v.add("tailnet.authKeyFile", "set together with tailnet.authKey; keep one of them")
	}
	if t.AuthKeyFile == "" || t.KubeSecret != "" || t.StateDir != "" {
		return // a device whose login is stored may no longer need the key
	}
	if _, err := t.ReadAuthKey(); err != nil {
		v.addError("tailnet.authKeyFile", secretFileError{fmt.Errorf("%w; mount the file, or set tailnet.authKey", err)})
	}
}

func (v *validator) oauth(t *Tailnet) {
	if t.ClientSecret.Reveal() == "" && t.ClientSecretFile == "" {
		return
	}
	_, err := t.ReadClientSecret()
	switch {
	case t.ClientSecret.Reveal() != "" && t.ClientSecretFile != "":
		v.add("tailnet.clientSecretFile", "set together with tailnet.clientSecret; keep one of them")
	case err != nil:
		v.addError("tailnet.clientSecretFile", secretFileError{fmt.Errorf("%w; mount the file, or set tailnet.clientSecret", err)})
	case t.AuthKey.Reveal() != "" || t.AuthKeyFile != "":
		v.add("tailnet.clientSecret", "set together with an auth key; keep one of them")
	case len(t.Tags) == 0:
		v.add("tailnet.tags", "an OAuth client mints keys for tagged devices only; add a tag, such as tag:k8s")
	}
}

func (v *validator) resolve(r *Resolve) {
	for _, name := range slices.Sorted(maps.Keys(r.Hosts)) {
		path := "resolve.hosts." + name
		v.name(path, name)
		if len(r.Hosts[name]) == 0 {
			v.add(path, "has no address; write a list such as [10.12.3.4]")
		}
	}
	for i, z := range r.Zones {
		at := fmt.Sprintf("resolve.zones[%d].", i)
		v.suffix(at+"suffix", z.Suffix)
		if slices.ContainsFunc(r.Zones[:i], func(o Zone) bool { return strings.EqualFold(o.Suffix, z.Suffix) }) {
			v.add(at+"suffix", "duplicate zone %q; list all its servers in one zone", z.Suffix)
		}
		if len(z.Servers) == 0 {
			v.add(at+"servers", "the zone has no server; write a list such as [10.12.0.2]")
		}
		for j, s := range z.Servers {
			v.server(fmt.Sprintf("%sservers[%d]", at, j), s, z.Direct)
		}
	}
	v.oneOf("resolve.privateAnswers", r.PrivateAnswers, "allow", "deny")
	for i, suffix := range r.PrivateZones {
		v.suffix(fmt.Sprintf("resolve.privateZones[%d]", i), suffix)
	}
	v.positive("resolve.timeout", r.Timeout)
	v.positive("resolve.minTTL", r.MinTTL)
	v.positive("resolve.maxTTL", r.MaxTTL)
	if r.MaxTTL < r.MinTTL {
		v.add("resolve.maxTTL", "%s is less than resolve.minTTL, %s", r.MaxTTL, r.MinTTL)
	}
}

// server checks a zone's resolver. Only the pod's own network has IPv6 zones.
func (v *validator) server(path, s string, direct bool) {
	addr, err := netip.ParseAddr(s)
	if a, portErr := netip.ParseAddrPort(s); err != nil && portErr == nil && a.Port() > 0 {
		addr = a.Addr()
	}
	switch {
	case !addr.IsValid():
		v.add(path, "invalid resolver address %q: write one such as 10.12.0.2 or 10.12.0.2:5353", s)
	case addr.Zone() != "" && !direct:
		v.add(path, "invalid resolver address %q: the tailnet has no address with a zone; write another, or set direct: true", s)
	}
}

func (v *validator) dns(c *Config) {
	for i, h := range c.Listen.Replicas {
		if !h.Addr.IsValid() && names.Check(h.Name) != nil {
			v.add(fmt.Sprintf("listen.replicas[%d]", i), "invalid address or name %q", h)
		}
	}
	if c.Listen.DNS != "" && len(c.DNS.Zones) == 0 {
		v.add("listen.dns", "dns.zones has no zone to answer; add one such as {suffix: internal.example.com}")
	}
	for i, z := range c.DNS.Zones {
		at := fmt.Sprintf("dns.zones[%d].", i)
		v.suffix(at+"suffix", z.Suffix)
		if slices.ContainsFunc(c.DNS.Zones[:i], func(o ServedZone) bool { return strings.EqualFold(o.Suffix, z.Suffix) }) {
			v.add(at+"suffix", "duplicate zone %q; keep one", z.Suffix)
		}
		if z.Answer != "" {
			v.oneOf(at+"answer", z.Answer, "fleet", "real")
		}
		if z.Answer != "real" && len(c.DNS.Fleet) == 0 {
			v.add("dns.fleet", "zone %q is answered with the fleet's address, which is missing; write the Service's cluster IP, or its name such as pando.pando.svc", z.Suffix)
		}
	}
	for i, h := range c.DNS.Fleet {
		if !h.Addr.IsValid() && names.Check(h.Name) != nil {
			v.add(fmt.Sprintf("dns.fleet[%d]", i), "invalid address or name %q", h)
		}
	}
	v.positive("dns.ttl", c.DNS.TTL)
}

func (v *validator) fronts(c *Config) {
	for i, p := range c.SNI {
		v.frontPort(fmt.Sprintf("sni[%d]", i), p)
	}
	for i, p := range c.Web {
		v.frontPort(fmt.Sprintf("web[%d]", i), p)
	}
	for i, p := range c.Forward {
		v.target(fmt.Sprintf("forward[%d].target", i), p.Target)
	}
}

func (v *validator) frontPort(at string, p FrontPort) {
	v.between(at+".port", p.Port, 0, 65535)
	for i, name := range p.Serves {
		if name != "*" {
			v.name(fmt.Sprintf("%s.serves[%d]", at, i), name)
		}
	}
}

func (v *validator) target(path string, t Target) {
	if _, err := value.ParseTarget(t.String()); err != nil {
		v.addError(path, err)
	}
}

func (v *validator) policy(p *Policy) {
	v.oneOf("policy.direct", p.Direct, "none", "public", "any")
	v.oneOf("policy.default", p.Default, "allow", "deny")
	v.oneOf("policy.mode", p.Mode, "enforce", "report")
	for i, r := range p.Rules {
		at := fmt.Sprintf("policy.rules[%d].", i)
		v.oneOf(at+"action", r.Action, "allow", "deny")
		notEmpty(v, at+"from", r.From)
		notEmpty(v, at+"names", r.Names)
		notEmpty(v, at+"prefixes", r.Prefixes)
		notEmpty(v, at+"ports", r.Ports)
		for j, name := range r.Names {
			path := fmt.Sprintf("%snames[%d]", at, j)
			if _, err := netip.ParseAddr(name); err == nil {
				v.add(path, "%q is an address, not a name; write it under prefixes", name)
			}
			v.name(path, name)
		}
	}
}

// notEmpty rejects a rule's list that is there and empty. A template that rendered
// nothing must neither open nor close everything.
func notEmpty[T any](v *validator, path string, list []T) {
	if list != nil && len(list) == 0 {
		v.add(path, "an empty list would match everything; leave the key out if you mean that")
	}
}

func (v *validator) auth(a *Auth) {
	if a.UsersFile == "" {
		return
	}
	if _, err := auth.Load(a.UsersFile); err != nil {
		v.addError("auth.usersFile", err)
	}
}

func (v *validator) probe(p *Probe) {
	for i, t := range p.Targets {
		v.target(fmt.Sprintf("probe.targets[%d]", i), t)
	}
	v.positive("probe.interval", p.Interval)
	v.atLeast("probe.failures", p.Failures, 1)
	v.atLeast("probe.successes", p.Successes, 1)
}

func (v *validator) name(path, name string) {
	if err := names.Check(name); err != nil {
		v.addError(path, err)
	}
}

// tailnetName checks the MagicDNS suffix of a tailnet.
func (v *validator) tailnetName(name string) {
	if err := names.Check(name); err != nil || strings.HasPrefix(name, "*.") {
		v.add("tailnet.expect", "invalid MagicDNS suffix %q: write one such as tail1234.ts.net; pando status shows it in the device's name", name)
	}
}

// suffix checks the name of a zone.
func (v *validator) suffix(path, name string) {
	err := names.Check(name)
	if strings.HasPrefix(name, "*.") {
		err = errors.New(`a zone includes all names below it; leave out "*."`)
	}
	if err != nil {
		v.addError(path, err)
	}
}

func (v *validator) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		last := len(allowed) - 1
		v.add(path, "invalid value %q: use %s or %s", value, strings.Join(allowed[:last], ", "), allowed[last])
	}
}

func (v *validator) positive(path string, d Duration) {
	if d <= 0 {
		v.add(path, "%s is not positive; use a time such as 10s", d)
	}
}

func (v *validator) notNegative(path string, d Duration, instead string) {
	if d < 0 {
		v.add(path, "%s is negative; %s", d, instead)
	}
}

func (v *validator) atLeast(path string, n, least int) {
	if n < least {
		v.add(path, "%d is too small; use %d or more", n, least)
	}
}

func (v *validator) between(path string, n, least, most int) {
	if n < least || n > most {
		v.add(path, "%d is out of range; use %d to %d", n, least, most)
	}
}
