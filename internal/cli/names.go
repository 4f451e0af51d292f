package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
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
	proxy, domain, format, kubectl string
	cidrs, more                    []string
	fromCluster                    bool
}

// envCommand prints the proxy settings of an application.
func envCommand(env Env) *cobra.Command {
	var o envOptions
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the proxy variables for an application, with a right NO_PROXY",
		Long: "Print HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in upper and lower case: some\n" +
			"programs know the one, some the other. NO_PROXY keeps the cluster's own names and\n" +
			"addresses from the proxy; which of them a program understands differs (curl since\n" +
			"7.86, Go and Python know prefixes, Java does not).",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.fromCluster {
				found, err := clusterPrefixes(cmd, o.kubectl)
				if err != nil {
					return err
				}
				o.cidrs = append(o.cidrs, found...)
			}
			text, err := o.print()
			if err == nil {
				fmt.Fprint(env.Stdout, text)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.proxy, "proxy", "http://pando.pando.svc:1055", "the fleet, as the application's pods reach it")
	f.StringVar(&o.domain, "cluster-domain", "cluster.local", "the cluster's DNS domain")
	f.StringSliceVar(&o.cidrs, "cidr", nil, "prefixes of the cluster's services and pods; may be repeated")
	f.StringSliceVar(&o.more, "no-proxy", nil, "more names (.suffix for all below it), addresses and prefixes that are not for the proxy")
	f.BoolVar(&o.fromCluster, "from-cluster", false, "ask the cluster, by kubectl, for the prefixes of its services and pods")
	f.StringVar(&o.kubectl, "kubectl", "kubectl", "the kubectl to ask with")
	f.StringVar(&o.format, "format", "shell", "shell, dotenv or kubernetes (the env of a container)")
	return cmd
}

// print checks the options and returns the settings in their format.
func (o envOptions) print() (string, error) {
	u, err := url.Parse(o.proxy)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("--proxy: %q is no address of the fleet; write http://host:port, such as http://pando.pando.svc:1055 (the proxy itself speaks no TLS)", o.proxy)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("--proxy: %q names no port; the fleet's is 1055 unless you changed it", o.proxy)
	}
	for _, c := range o.cidrs {
		if p, err := netip.ParsePrefix(c); err != nil || p != p.Masked() {
			return "", fmt.Errorf("--cidr: %q is no prefix; write one such as 10.96.0.0/12", c)
		}
	}
	domain := strings.Trim(o.domain, ".")
	if domain == "" || strings.Trim(strings.ToLower(domain), "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
		return "", fmt.Errorf("--cluster-domain: %q is no domain; it is cluster.local unless the cluster says otherwise", o.domain)
	}
	not := []string{"localhost", "127.0.0.1", "::1", ".svc", "." + domain, "kubernetes.default"}
	for _, s := range slices.Concat(o.cidrs, o.more) {
		if strings.ContainsAny(s, " ,'\"$`\\\n") {
			return "", fmt.Errorf("--no-proxy: %q can't be in a list that commas separate", s)
		}
		if !slices.Contains(not, s) {
			not = append(not, s)
		}
	}
	proxy := "http://" + u.Host
	if u.User != nil {
		proxy = "http://" + u.User.String() + "@" + u.Host
	}
	socks := "socks5h" + strings.TrimPrefix(proxy, "http")
	type variable struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	var all []variable
	for _, v := range []variable{{"HTTP_PROXY", proxy}, {"HTTPS_PROXY", proxy}, {"ALL_PROXY", socks}, {"NO_PROXY", strings.Join(not, ",")}} {
		all = append(all, v, variable{strings.ToLower(v.Name), v.Value})
	}
	var b strings.Builder
	switch o.format {
	case "shell":
		for _, v := range all {
			fmt.Fprintf(&b, "export %s='%s'\n", v.Name, strings.ReplaceAll(v.Value, "'", `'\''`))
		}
	case "dotenv":
		for _, v := range all {
			fmt.Fprintf(&b, "%s=%s\n", v.Name, v.Value)
		}
	case "kubernetes":
		y, err := yaml.Marshal(map[string]any{"env": all})
		return string(y), err
	default:
		return "", fmt.Errorf("--format: %q is not known; use shell, dotenv or kubernetes", o.format)
	}
	return b.String(), nil
}

// clusterPrefixes asks the cluster for the prefixes of its services and pods.
func clusterPrefixes(cmd *cobra.Command, kubectl string) ([]string, error) {
	get := func(kind string, path ...string) ([]string, error) {
		args := append(strings.Fields(kubectl), "get", kind, "-o", "json")
		out, err := exec.CommandContext(cmd.Context(), args[0], args[1:]...).Output()
		if err != nil {
			detail := err.Error()
			if e, ok := errors.AsType[*exec.ExitError](err); ok {
				detail = strings.TrimSpace(string(e.Stderr))
			}
			return nil, fmt.Errorf("--from-cluster: kubectl get %s: %s; or give the prefixes with --cidr", kind, detail)
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
			return nil, fmt.Errorf("--from-cluster: the cluster's %s tell no prefixes; give them with --cidr", kind)
		}
		return found, nil
	}
	services, err := get("servicecidrs")
	if err != nil {
		return nil, err
	}
	pods, err := get("nodes")
	return append(services, pods...), err
}

// corednsCommand prints what cluster DNS needs to forward the served zones.
func corednsCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "coredns",
		Short: "Print what cluster DNS needs to forward the zones of dns.zones to the fleet",
		Long: "Print the server blocks for CoreDNS's Corefile, and the stubDomains of kube-dns, that\n" +
			"forward the zones of dns.zones to the fleet's Service. CoreDNS wants its address, for\n" +
			"it can't ask itself for the name: --address, or the first address in dns.fleet.",
		Args: cobra.NoArgs,
	}
	address := cmd.Flags().String("address", "", "the Service's cluster IP, with a port where DNS is not on 53")
	load, _ := configFlags(cmd.Flags(), env)
	cmd.RunE = func(*cobra.Command, []string) error {
		cfg, err := load()
		if err != nil && (len(cfg.DNS.Zones) == 0 || strings.Contains(err.Error(), "dns.zones")) {
			return err // what else is wrong with it is for pando check
		}
		if len(cfg.DNS.Zones) == 0 {
			return errors.New("dns.zones is empty: there is nothing to forward; add a zone such as {suffix: internal.example.com}")
		}
		to := *address
		for _, f := range cfg.DNS.Fleet {
			if _, err := netip.ParseAddr(f); err == nil && to == "" {
				to = f
			}
		}
		if to == "" {
			return errors.New("--address: the Service's cluster IP is needed (kubectl get service pando -o jsonpath={.spec.clusterIP})")
		}
		if a, err := netip.ParseAddr(to); err == nil {
			to = netip.AddrPortFrom(a, 53).String()
		} else if ap, err := netip.ParseAddrPort(to); err != nil || ap.Port() == 0 {
			return fmt.Errorf("--address: %q is no address; write the Service's cluster IP, such as 10.96.0.7", to)
		}
		stub := map[string][]string{}
		fmt.Fprintln(env.Stdout, "# CoreDNS: add to the Corefile (kubectl -n kube-system edit configmap coredns)")
		for _, z := range cfg.DNS.Zones {
			zone := strings.ToLower(z.Suffix)
			host, port, _ := net.SplitHostPort(to)
			fmt.Fprintf(env.Stdout, "%s:53 {\n    errors\n    cache %d\n    forward . %s\n}\n", zone, max(1, int(cfg.DNS.TTL/1e9)), to)
			stub[zone] = []string{net.JoinHostPort(host, port)}
			if port == "53" {
				stub[zone] = []string{host}
			}
		}
		js, err := json.Marshal(stub)
		if err != nil {
			return err
		}
		fmt.Fprintf(env.Stdout, "\n# kube-dns: data of its ConfigMap\nstubDomains: |\n  %s\n", js)
		return nil
	}
	return cmd
}
