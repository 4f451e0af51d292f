package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Validate reports every mistake in c at once, each with its path and what
// would be right; nil means that the gateway can run with it.
func (c *Config) Validate() error {
	v := &validator{}
	v.listeners(c)
	v.tailnet(&c.Tailnet)
	v.resolve(&c.Resolve)
	v.dns(c)
	v.fronts(c)
	v.policy(&c.Policy)
	v.notBelow("limits.connections", c.Limits.Connections, 0)
	v.notBelow("limits.perClient", c.Limits.PerClient, 0)
	v.notBelow("limits.dials", c.Limits.Dials, 0)
	v.positive("dial.timeout", c.Dial.Timeout)
	v.notBelow("dial.attempts", c.Dial.Attempts, 1)
	v.positive("http.headerTimeout", c.HTTP.HeaderTimeout)
	v.positive("http.idleTimeout", c.HTTP.IdleTimeout)
	if n := c.HTTP.MaxHeaderBytes; n < 1024 || n > 1<<20 {
		v.add("http.maxHeaderBytes", "%d is out of range; use 1024 to 1048576 (the default is 65536)", n)
	}
	v.positive("http.bodyTimeout", c.HTTP.BodyTimeout)
	if n := c.HTTP.MaxHeaders; n < 16 || n > 4096 {
		v.add("http.maxHeaders", "%d is out of range; use 16 to 4096 (the default is 256)", n)
	}
	v.notNegative("tunnel.idleTimeout", c.Tunnel.IdleTimeout, "use 0s to let idle tunnels be")
	v.notNegative("tunnel.peerTimeout", c.Tunnel.PeerTimeout, "use 0s to leave it to TCP")
	v.probe(&c.Probe)
	v.notNegative("drain.settle", c.Drain.Settle, "use 0s to close the port at once")
	v.notNegative("drain.timeout", c.Drain.Timeout, "use 0s to cut connections at once")
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "json", "text")
	v.notBelow("log.sample", c.Log.Sample, 1)
	return errors.Join(v.errs...)
}

type validator struct{ errs []error }

func (v *validator) add(path, format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

var tagForm = regexp.MustCompile(`^tag:[a-zA-Z][a-zA-Z0-9-]*$`)

func (v *validator) tailnet(t *Tailnet) {
	v.oneOf("tailnet.mode", t.Mode, "userspace", "kernel")
	if t.Mode == "kernel" && runtime.GOOS != "linux" {
		v.add("tailnet.mode", "kernel needs Linux; use userspace")
	}
	if u, err := url.Parse(t.ControlURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		v.add("tailnet.controlURL", "%q is no URL; write one such as https://headscale.example.com", t.ControlURL)
	}
	if h := t.Hostname; h != "" && !labelForm.MatchString(strings.ToLower(h)) {
		v.add("tailnet.hostname", "%q is no host name; use letters, digits and dashes, 63 at most", h)
	}
	if t.AuthKey != "" && t.AuthKeyFile != "" {
		v.add("tailnet.authKeyFile", "set together with tailnet.authKey; keep one of them")
	}
	if t.AuthKeyFile != "" && t.KubeSecret == "" && t.StateDir == "" { // else it may have served already
		if _, err := t.ReadAuthKey(); err != nil {
			v.errs = append(v.errs, secretFileError{fmt.Errorf("%w; mount the file, or set tailnet.authKey", err)})
		}
	}
	v.oauth(t)
	if t.KubeSecret != "" {
		if !secretNameForm.MatchString(t.KubeSecret) {
			v.add("tailnet.kubeSecret", "%q is no name of a Secret; use small letters, digits, dashes and dots", t.KubeSecret)
		}
		if t.StateDir != "" {
			v.add("tailnet.kubeSecret", "set together with tailnet.stateDir; keep one of them")
		}
	}
	for i, r := range t.AdvertiseRoutes {
		if p, err := netip.ParsePrefix(r); err != nil || p != p.Masked() {
			v.add(fmt.Sprintf("tailnet.advertiseRoutes[%d]", i), "%q is no prefix; write one such as 10.12.0.0/16", r)
		}
	}
	for i, tag := range t.Tags {
		if !tagForm.MatchString(tag) {
			v.add(fmt.Sprintf("tailnet.tags[%d]", i), "%q is no tag; write tag:name, such as tag:k8s", tag)
		}
	}
	if t.Port < 0 || t.Port > 65535 {
		v.add("tailnet.port", "%d is not between 0 and 65535", t.Port)
	}
	if n := len(t.TUN); n == 0 || n > 15 {
		v.add("tailnet.tun", "%q is no interface name; use 1 to 15 characters, such as tailscale0", t.TUN)
	}
	v.notNegative("tailnet.startTimeout", t.StartTimeout, "use 0s to refuse at once")
	v.notNegative("tailnet.bootTimeout", t.BootTimeout, "use 0s to go on trying")
}

// secretNameForm is a DNS subdomain name of RFC 1123, as Kubernetes wants it.
var secretNameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func (v *validator) oauth(t *Tailnet) {
	if t.ClientSecret == "" && t.ClientSecretFile == "" {
		return
	}
	switch _, err := t.ReadClientSecret(); {
	case t.ClientSecret != "" && t.ClientSecretFile != "":
		v.add("tailnet.clientSecretFile", "set together with tailnet.clientSecret; keep one of them")
	case err != nil:
		v.errs = append(v.errs, secretFileError{fmt.Errorf("%w; mount the file, or set tailnet.clientSecret", err)})
	case t.AuthKey != "" || t.AuthKeyFile != "":
		v.add("tailnet.clientSecret", "set together with an auth key; keep one of them")
	case len(t.Tags) == 0:
		v.add("tailnet.tags", "an OAuth client mints keys for tags alone; give at least one, such as tag:k8s")
	}
}

func (v *validator) resolve(r *Resolve) {
	names := make([]string, 0, len(r.Hosts))
	for name := range r.Hosts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		path := "resolve.hosts." + name
		v.name(path, name)
		if len(r.Hosts[name]) == 0 {
			v.add(path, "has no address; write a list such as [10.12.3.4]")
		}
		for i, a := range r.Hosts[name] {
			if ip, err := netip.ParseAddr(a); err != nil || ip.Zone() != "" {
				v.add(fmt.Sprintf("%s[%d]", path, i), "%q is no IP address; write one such as 10.12.3.4", a)
			}
		}
	}
	for i, z := range r.Zones {
		at := fmt.Sprintf("resolve.zones[%d].", i)
		v.suffix(at+"suffix", z.Suffix)
		if slices.ContainsFunc(r.Zones[:i], func(o Zone) bool { return strings.EqualFold(o.Suffix, z.Suffix) }) {
			v.add(at+"suffix", "%q is there twice; put all its servers into one zone", z.Suffix)
		}
		if len(z.Servers) == 0 {
			v.add(at+"servers", "has none; write a list such as [10.12.0.2]")
		}
		for j, s := range z.Servers {
			if _, err := netip.ParseAddr(s); err == nil {
				continue
			}
			if a, err := netip.ParseAddrPort(s); err != nil || a.Port() == 0 {
				v.add(fmt.Sprintf("%sservers[%d]", at, j), "%q is no address of a resolver; write one such as 10.12.0.2 or 10.12.0.2:5353", s)
			}
		}
	}
	v.positive("resolve.timeout", r.Timeout)
	v.positive("resolve.minTTL", r.MinTTL)
	v.positive("resolve.maxTTL", r.MaxTTL)
	if r.MaxTTL < r.MinTTL {
		v.add("resolve.maxTTL", "%s is less than resolve.minTTL, %s", r.MaxTTL, r.MinTTL)
	}
}

func (v *validator) dns(c *Config) {
	if c.Listen.DNS != "" && len(c.DNS.Zones) == 0 {
		v.add("dns.zones", "listen.dns is set, and there is no zone to answer for; add one such as {suffix: internal.example.com}")
	}
	v.positive("dns.ttl", c.DNS.TTL)
	for i, z := range c.DNS.Zones {
		at := fmt.Sprintf("dns.zones[%d].", i)
		v.suffix(at+"suffix", z.Suffix)
		if slices.ContainsFunc(c.DNS.Zones[:i], func(o ServedZone) bool { return strings.EqualFold(o.Suffix, z.Suffix) }) {
			v.add(at+"suffix", "%q is there twice; keep one", z.Suffix)
		}
		if z.Answer != "" {
			v.oneOf(at+"answer", z.Answer, "fleet", "real")
		}
		if z.Answer != "real" && len(c.DNS.Fleet) == 0 {
			v.add("dns.fleet", "zone %q is answered with the fleet's address, and none is given; write the Service's cluster IP, or its name such as pando.pando.svc", z.Suffix)
		}
	}
	for i, f := range c.DNS.Fleet {
		if _, err := netip.ParseAddr(f); err != nil {
			v.suffix(fmt.Sprintf("dns.fleet[%d]", i), f)
		}
	}
}

func (v *validator) fronts(c *Config) {
	for key, ports := range map[string][]Port{"sni": c.SNI, "web": c.Web} {
		for i, p := range ports {
			if p.Port < 0 || p.Port > 65535 {
				v.add(fmt.Sprintf("%s[%d].port", key, i), "%d is not between 0 and 65535", p.Port)
			}
		}
	}
	for i, p := range c.Forward {
		v.target(fmt.Sprintf("forward[%d].target", i), p.Target, "db.internal.example.com:5432")
	}
}

// hostForm is any name that a resolver may know. It is wider than nameForm, for
// what has to work is a matter of who is asked.
var hostForm = regexp.MustCompile(`^([a-zA-Z0-9_-]{1,63}\.)*[a-zA-Z0-9_-]{1,63}\.?$`)

// target checks host:port.
func (v *validator) target(path, target, example string) {
	host, port, err := net.SplitHostPort(target)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" {
		v.add(path, "%q is no target; write host:port, such as %s", target, example)
		return
	}
	if _, err := netip.ParseAddr(host); err != nil && (!hostForm.MatchString(host) || len(strings.TrimSuffix(host, ".")) > 253) {
		v.add(path, "%q is neither a host name nor an address; write host:port, such as %s", host, example)
	}
}

func (v *validator) policy(p *Policy) {
	v.oneOf("policy.direct", p.Direct, "none", "public", "any")
	v.oneOf("policy.mode", p.Mode, "enforce", "report")
	for i, r := range p.Rules {
		at := fmt.Sprintf("policy.rules[%d].", i)
		v.oneOf(at+"action", r.Action, "allow", "deny")
		v.notEmpty(at+"from", r.From)
		v.notEmpty(at+"names", r.Names)
		v.notEmpty(at+"prefixes", r.Prefixes)
		v.notEmpty(at+"ports", r.Ports)
		v.prefixes(at+"from", r.From)
		v.prefixes(at+"prefixes", r.Prefixes)
		for j, name := range r.Names {
			v.name(fmt.Sprintf("%snames[%d]", at, j), name)
		}
		for j, s := range r.Ports {
			if _, _, err := ParsePorts(s); err != nil {
				v.add(fmt.Sprintf("%sports[%d]", at, j), "%v", err)
			}
		}
	}
}

// notEmpty refuses a rule's list that is there and has nothing in it: a template
// that rendered empty must neither open nor close everything.
func (v *validator) notEmpty(path string, list []string) {
	if list != nil && len(list) == 0 {
		v.add(path, "an empty list matches everything; leave the key out if that is meant")
	}
}

func (v *validator) probe(p *Probe) {
	for i, target := range p.Targets {
		v.target(fmt.Sprintf("probe.targets[%d]", i), target, "api.internal.example.com:443")
	}
	v.positive("probe.interval", p.Interval)
	v.notBelow("probe.failures", p.Failures, 1)
	v.notBelow("probe.successes", p.Successes, 1)
}

func (v *validator) prefixes(path string, list []string) {
	for i, s := range list {
		if _, err := ParsePrefix(s); err != nil {
			v.add(fmt.Sprintf("%s[%d]", path, i), "%v", err)
		}
	}
}

var labelForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
var nameForm = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// name checks a host name, or "*.suffix".
func (v *validator) name(path, name string) {
	if _, err := netip.ParseAddr(name); err == nil {
		v.add(path, "%q is an address, not a name; addresses go under prefixes", name)
		return
	}
	if strings.HasSuffix(name, ".") {
		v.add(path, "%q ends in a dot; leave it out", name)
		return
	}
	if !nameForm.MatchString(strings.ToLower(name)) || len(name) > 253 {
		v.add(path, "%q is no host name; write one such as api.example.com, or *.example.com for all names below it", name)
	}
}

// suffix checks the name of a zone.
func (v *validator) suffix(path, name string) {
	if strings.HasPrefix(name, "*.") {
		v.add(path, "%q: a zone has all names below it anyway; leave out \"*.\"", name)
		return
	}
	v.name(path, name)
}

func (v *validator) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.add(path, "%q is not known; use %s", value, strings.Join(allowed, " or "))
	}
}

func (v *validator) positive(path string, d Duration) {
	if d <= 0 {
		v.add(path, "%s is not positive; use a time such as 10s", d)
	}
}

func (v *validator) notBelow(path string, n, least int) {
	if n < least {
		v.add(path, "%d is too small; use %d or more", n, least)
	}
}

func (v *validator) notNegative(path string, d Duration, instead string) {
	if d < 0 {
		v.add(path, "%s is negative; %s", d, instead)
	}
}

// ParsePrefix reads a prefix, or a single address as the prefix of its whole
// length. Bits behind the prefix's length are an error: they are a typo.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no prefix; write one such as 10.12.0.0/16, or a single address", s)
	}
	if p.Addr().Is4In6() {
		return p, fmt.Errorf("%q is an IPv4 prefix in IPv6 clothes; write it as IPv4", s)
	}
	if p.Masked() != p {
		return p, fmt.Errorf("%q has bits behind its length; did you mean %s?", s, p.Masked())
	}
	return p, nil
}

// ParsePorts reads "443" or "8000-8099".
func ParsePorts(s string) (first, last uint16, err error) {
	a, b, ranged := strings.Cut(s, "-")
	if !ranged {
		b = a
	}
	lo, err1 := strconv.ParseUint(a, 10, 16)
	hi, err2 := strconv.ParseUint(b, 10, 16)
	if err1 != nil || err2 != nil || lo == 0 || hi < lo {
		return 0, 0, fmt.Errorf("%q is no port; write one such as 443, or a range such as 8000-8099", s)
	}
	return uint16(lo), uint16(hi), nil
}
