// Package clientenv makes the environment variables with which an application
// uses a fleet: the proxy's address, and a NO_PROXY that keeps the cluster's own
// names and addresses away from it. Errors name the flags of pando env.
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
}

// Variable is an environment variable.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Variables checks the options and returns the variables that they make, each in
// upper and in lower case.
func (o Options) Variables() ([]Variable, error) {
	proxy, err := o.proxyURL()
	if err != nil {
		return nil, err
	}
	noProxy, err := o.noProxyList()
	if err != nil {
		return nil, err
	}
	var all []Variable
	for _, v := range []Variable{
		{"HTTP_PROXY", "http" + proxy},
		{"HTTPS_PROXY", "http" + proxy},
		{"ALL_PROXY", "socks5h" + proxy},
		{"NO_PROXY", strings.Join(noProxy, ",")},
	} {
		all = append(all, v, Variable{strings.ToLower(v.Name), v.Value})
	}
	return all, nil
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

// noProxyList returns what is reached without the proxy.
func (o Options) noProxyList() ([]string, error) {
	for _, c := range o.CIDRs {
		if p, err := netip.ParsePrefix(c); err != nil || p != p.Masked() {
			return nil, fmt.Errorf("invalid --cidr %q: write a prefix such as 10.96.0.0/12", c)
		}
	}
	domain := strings.Trim(o.Domain, ".")
	if domain == "" || strings.Trim(strings.ToLower(domain), "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
		return nil, fmt.Errorf("invalid --cluster-domain %q: write a DNS domain; most clusters use cluster.local", o.Domain)
	}
	list := []string{"localhost", "127.0.0.1", "::1", ".svc", "." + domain, "kubernetes.default"}
	for _, s := range slices.Concat(o.CIDRs, o.NoProxy) {
		if strings.ContainsAny(s, " ,'\"$`\\\n") {
			return nil, fmt.Errorf("invalid --no-proxy %q: an entry of NO_PROXY cannot contain spaces, commas or quotes", s)
		}
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list, nil
}

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

// ClusterPrefixes returns the prefixes of the services and pods of the cluster that
// the command kubectl reaches.
func ClusterPrefixes(ctx context.Context, kubectl string) ([]string, error) {
	services, err := kubectlPrefixes(ctx, kubectl, "servicecidrs")
	if err != nil {
		return nil, err
	}
	pods, err := kubectlPrefixes(ctx, kubectl, "nodes")
	if err != nil {
		return nil, err
	}
	return append(services, pods...), nil
}

// kubectlPrefixes returns the prefixes in the specs of all objects of a kind,
// at least one.
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
			Spec struct{ PodCIDRs, CIDRs []string }
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("--from-cluster: kubectl get %s: %w", kind, err)
	}
	var found []string
	for _, i := range list.Items {
		found = append(found, slices.Concat(i.Spec.PodCIDRs, i.Spec.CIDRs)...)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("--from-cluster: the cluster's %s contain no prefixes; give them with --cidr", kind)
	}
	return found, nil
}
