package cli

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

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// envOptions are the flags of pando env.
type envOptions struct {
	proxy       string
	domain      string
	cidrs       []string
	noProxy     []string
	fromCluster bool
	kubectl     string
	format      string
}

// envCommand prints the proxy settings of an application.
func envCommand(env Env) *cobra.Command {
	var o envOptions
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the proxy variables for an application, with a correct NO_PROXY",
		Long: "Print HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in upper and lower case, because\n" +
			"some programs read only one of them. NO_PROXY keeps the cluster's own names and addresses\n" +
			"away from the proxy. Programs differ in what they understand there: curl since 7.86, Go\n" +
			"and Python know prefixes, Java does not.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.fromCluster {
				found, err := clusterPrefixes(cmd.Context(), o.kubectl)
				if err != nil {
					return err
				}
				o.cidrs = append(o.cidrs, found...)
			}
			variables, err := o.variables()
			if err != nil {
				return err
			}
			return printVariables(env.Stdout, o.format, variables)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.proxy, "proxy", "http://pando.pando.svc:1055", "the fleet's `URL`, as the application's pods reach it")
	f.StringVar(&o.domain, "cluster-domain", "cluster.local", "the cluster's DNS `domain`")
	f.StringSliceVar(&o.cidrs, "cidr", nil, "`prefixes` of the cluster's services and pods; may be repeated")
	f.StringSliceVar(&o.noProxy, "no-proxy", nil, "more `names` (.suffix for all names below it), addresses and prefixes to reach without the proxy")
	f.BoolVar(&o.fromCluster, "from-cluster", false, "read the prefixes of services and pods from the cluster, with kubectl")
	f.StringVar(&o.kubectl, "kubectl", "kubectl", "the kubectl `command`")
	f.StringVar(&o.format, "format", "shell", "`form` of the output: shell, dotenv or kubernetes (the env of a container)")
	return cmd
}

// variable is an environment variable.
type variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// variables checks the options and returns the variables that they make.
func (o envOptions) variables() ([]variable, error) {
	proxy, err := o.proxyURL()
	if err != nil {
		return nil, err
	}
	noProxy, err := o.noProxyList()
	if err != nil {
		return nil, err
	}
	var all []variable
	for _, v := range []variable{
		{"HTTP_PROXY", "http" + proxy},
		{"HTTPS_PROXY", "http" + proxy},
		{"ALL_PROXY", "socks5h" + proxy},
		{"NO_PROXY", strings.Join(noProxy, ",")},
	} {
		all = append(all, v, variable{strings.ToLower(v.Name), v.Value})
	}
	return all, nil
}

// proxyURL returns the fleet's URL without its scheme.
func (o envOptions) proxyURL() (string, error) {
	u, err := url.Parse(o.proxy)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("invalid --proxy %q: write http://host:port, such as http://pando.pando.svc:1055 (the proxy port itself does not use TLS)", o.proxy)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("invalid --proxy %q: add the port, which is 1055 unless you changed it", o.proxy)
	}
	if u.User != nil {
		return "://" + u.User.String() + "@" + u.Host, nil
	}
	return "://" + u.Host, nil
}

// noProxyList returns what is reached without the proxy.
func (o envOptions) noProxyList() ([]string, error) {
	for _, c := range o.cidrs {
		if p, err := netip.ParsePrefix(c); err != nil || p != p.Masked() {
			return nil, fmt.Errorf("invalid --cidr %q: write a prefix such as 10.96.0.0/12", c)
		}
	}
	domain := strings.Trim(o.domain, ".")
	if domain == "" || strings.Trim(strings.ToLower(domain), "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
		return nil, fmt.Errorf("invalid --cluster-domain %q: write a DNS domain; most clusters use cluster.local", o.domain)
	}
	list := []string{"localhost", "127.0.0.1", "::1", ".svc", "." + domain, "kubernetes.default"}
	for _, s := range slices.Concat(o.cidrs, o.noProxy) {
		if strings.ContainsAny(s, " ,'\"$`\\\n") {
			return nil, fmt.Errorf("invalid --no-proxy %q: an entry of NO_PROXY cannot contain spaces, commas or quotes", s)
		}
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list, nil
}

// printVariables prints variables in a format: shell, dotenv or kubernetes.
func printVariables(w io.Writer, format string, variables []variable) error {
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

// clusterPrefixes asks the cluster for the prefixes of its services and pods.
func clusterPrefixes(ctx context.Context, kubectl string) ([]string, error) {
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
