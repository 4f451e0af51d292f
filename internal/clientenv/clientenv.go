// Package clientenv makes the environment variables with which an application
// uses a fleet: the proxy's address, and a NO_PROXY that keeps the cluster's own
// names and addresses away from it. Clients differ in what they understand in
// NO_PROXY, so it holds only entries that most of them do; docs/names.md has a table.
// Errors name the flags of pando env.
package clientenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Options say which fleet is used, and what is reached without it.
type Options struct {
	Proxy   string   // the fleet's URL, http://host:port
	Domain  string   // the cluster's DNS domain, such as cluster.local
	CIDRs   []string // prefixes of the cluster's services and pods
	NoProxy []string // more names (.suffix for all names below it), addresses and prefixes

	// APIServer is the address or name at which pods reach the API server. If it is
	// empty, the first address of each of CIDRs counts: in the prefix of the services,
	// that is the API server's.
	APIServer string
	// AllProxy adds ALL_PROXY, with SOCKS5. Some clients, such as httpx without its
	// SOCKS package, fail at their start if it is set.
	AllProxy bool
	// IPv6 keeps the IPv6 entries of NO_PROXY, and adds those for loopback and for
	// metadata. Some clients, such as httpx, fail at their start because of them.
	IPv6 bool
}

// Variable is an environment variable.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Names and addresses that a pod reaches without a proxy in every cluster.
var (
	local = []string{"localhost", "127.0.0.1"}
	// platform are the metadata services of the clouds and their identities for pods:
	// the instance metadata service, that of ECS tasks, and that of EKS Pod Identity.
	platform = []string{"169.254.169.254", "169.254.170.2", "169.254.170.23", "metadata.google.internal"}
	// local6 and platform6 are the same over IPv6.
	local6    = []string{"::1"}
	platform6 = []string{"fd00:ec2::254", "fd00:ec2::23"}
)

// Variables checks the options and returns the variables that they make, each in
// upper and in lower case. leftOut are the IPv6 entries that NO_PROXY would have
// with Options.IPv6.
func (o Options) Variables() (list []Variable, leftOut []string, err error) {
	proxy, err := o.proxyURL()
	if err != nil {
		return nil, nil, err
	}
	noProxy, leftOut, err := o.noProxyList()
	if err != nil {
		return nil, nil, err
	}
	both := func(name, value string) {
		list = append(list, Variable{name, value}, Variable{strings.ToLower(name), value})
	}
	both("HTTP_PROXY", "http"+proxy)
	both("HTTPS_PROXY", "http"+proxy)
	if o.AllProxy {
		both("ALL_PROXY", "socks5h"+proxy)
	}
	both("NO_PROXY", strings.Join(noProxy, ","))
	return list, leftOut, nil
}

// proxyURL returns the fleet's URL without its scheme.
func (o Options) proxyURL() (string, error) {
	u, err := url.Parse(o.Proxy)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("invalid --proxy %q: write http://host:port, such as http://pando.pando.svc:1055 (the proxy port itself does not use TLS)", o.Proxy)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("invalid --proxy %q: add the port, which is 1055 unless you changed it", o.Proxy)
	}
	if u.User != nil {
		return "://" + u.User.String() + "@" + u.Host, nil
	}
	return "://" + u.Host, nil
}

// noProxyList returns what is reached without the proxy, and the entries that only
// Options.IPv6 adds.
func (o Options) noProxyList() (list, leftOut []string, err error) {
	domain := strings.Trim(o.Domain, ".")
	if domain == "" || strings.Trim(strings.ToLower(domain), "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
		return nil, nil, fmt.Errorf("invalid --cluster-domain %q: write a DNS domain; most clusters use cluster.local", o.Domain)
	}
	apiServers, err := o.apiServers()
	if err != nil {
		return nil, nil, err
	}
	for _, s := range o.NoProxy {
		if err := checkEntry(s); err != nil {
			return nil, nil, fmt.Errorf("invalid --no-proxy %q: %w", s, err)
		}
	}
	cluster := []string{".svc", "." + domain, "kubernetes.default"}
	all := slices.Concat(local, cluster, apiServers, platform)
	if o.IPv6 {
		all = slices.Concat(all, local6, platform6)
	}
	for _, s := range slices.Concat(all, o.CIDRs, o.NoProxy) {
		switch {
		case slices.Contains(list, s) || slices.Contains(leftOut, s):
		case isIPv6(s) && !o.IPv6:
			leftOut = append(leftOut, s)
		default:
			list = append(list, s)
		}
	}
	return list, leftOut, nil
}

// apiServers returns the API server's address, or those that it may have. It checks
// the prefixes.
func (o Options) apiServers() (list []string, err error) {
	for _, c := range o.CIDRs {
		p, err := netip.ParsePrefix(c)
		if err != nil || p != p.Masked() {
			return nil, fmt.Errorf("invalid --cidr %q: write a prefix such as 10.96.0.0/12", c)
		}
		if p.Bits() < p.Addr().BitLen()-1 && p.Addr().Is4() {
			list = append(list, p.Addr().Next().String())
		}
	}
	if o.APIServer != "" {
		list = []string{o.APIServer}
	}
	return list, nil
}

var nameForm = regexp.MustCompile(`^\.?[A-Za-z0-9_]([-.A-Za-z0-9_]*[A-Za-z0-9_])?$`)

// checkEntry checks an entry of NO_PROXY: a name, a suffix, an address or a prefix.
func checkEntry(s string) error {
	_, prefixErr := netip.ParsePrefix(s)
	_, addrErr := netip.ParseAddr(s)
	suffix, isPattern := strings.CutPrefix(s, "*")
	switch {
	case prefixErr == nil || addrErr == nil || nameForm.MatchString(s):
		return nil
	case strings.ContainsAny(s, " ,'\"$`\\\n"):
		return errors.New("an entry of NO_PROXY cannot contain spaces, commas or quotes")
	case isPattern && nameForm.MatchString(suffix):
		return fmt.Errorf("few clients understand the star; write %s", suffix)
	}
	return errors.New("few clients understand this entry; write a name, .suffix for all names below it, an address or a prefix, without a port")
}

// isIPv6 reports whether an entry is an IPv6 address or prefix.
func isIPv6(s string) bool { return strings.Contains(s, ":") }

// Write writes variables in a format: shell, dotenv, or kubernetes (the env of a
// container).
func Write(w io.Writer, format string, variables []Variable) error {
	switch format {
	case "shell":
		for _, v := range variables {
			fmt.Fprintf(w, "export %s='%s'\n", v.Name, strings.ReplaceAll(v.Value, "'", `'\''`))
		}
	case "dotenv":
		for _, v := range variables {
			fmt.Fprintf(w, "%s=%s\n", v.Name, v.Value)
		}
	case "kubernetes":
		y, err := yaml.Marshal(map[string]any{"env": variables})
		if err != nil {
			return err
		}
		_, err = w.Write(y)
		return err
	default:
		return fmt.Errorf("invalid --format %q: use shell, dotenv or kubernetes", format)
	}
	return nil
}

// FromCluster sets CIDRs and APIServer to those of the cluster that the command
// kubectl reaches.
func (o *Options) FromCluster(ctx context.Context, kubectl string) error {
	services, err := kubectlPrefixes(ctx, kubectl, "servicecidrs")
	if err != nil {
		return err
	}
	pods, err := kubectlPrefixes(ctx, kubectl, "nodes")
	if err != nil {
		return err
	}
	o.CIDRs = slices.Concat(o.CIDRs, services, pods)
	// Kubernetes gives its own Service the first address of the first prefix.
	if p, err := netip.ParsePrefix(services[0]); err == nil {
		o.APIServer = p.Masked().Addr().Next().String()
	}
	return nil
}

// kubectlPrefixes returns the prefixes in the specs of all objects of a kind,
// at least one. Those of the object called kubernetes, the ServiceCIDR that a cluster
// begins with, are the first.
func kubectlPrefixes(ctx context.Context, kubectl, kind string) ([]string, error) {
	args := append(strings.Fields(kubectl), "get", kind, "-o", "json")
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
	if err != nil {
		detail := err.Error()
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			detail = strings.TrimSpace(string(e.Stderr))
		}
		return nil, fmt.Errorf("--from-cluster: kubectl get %s: %s; you can give the prefixes with --cidr", kind, detail)
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ PodCIDRs, CIDRs []string }
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("--from-cluster: kubectl get %s: %w", kind, err)
	}
	var found []string
	for _, i := range list.Items {
		prefixes := slices.Concat(i.Spec.PodCIDRs, i.Spec.CIDRs)
		if i.Metadata.Name == "kubernetes" {
			found = append(prefixes, found...)
		} else {
			found = append(found, prefixes...)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("--from-cluster: the cluster's %s contain no prefixes; give them with --cidr", kind)
	}
	return found, nil
}
