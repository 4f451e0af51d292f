package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pandoproxy/pando/internal/clientenv"
)

// envCommand prints the proxy settings of an application.
func envCommand(env Env) *cobra.Command {
	var o clientenv.Options
	var fromCluster bool
	var kubectl, format string
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the proxy variables for an application, with a correct NO_PROXY",
		Long: "Print HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in upper and lower case, because some programs\n" +
			"read only one of them. NO_PROXY keeps the cluster's own names and addresses away from the\n" +
			"proxy, and those of the cloud's metadata. It holds only what most programs understand.\n" +
			"docs/names.md has a table.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.APIServer = lookup(env.Environ, "KUBERNETES_SERVICE_HOST") // in a pod
			if fromCluster {
				if err := o.FromCluster(cmd.Context(), kubectl); err != nil {
					return err
				}
			}
			variables, leftOut, err := o.Variables()
			if err != nil {
				return usageError(cmd, "%w", err)
			}
			if len(leftOut) > 0 {
				fmt.Fprintf(env.Stderr, "pando: NO_PROXY does not have %s: some clients fail because of IPv6 there; --ipv6 adds it\n", strings.Join(leftOut, ", "))
			}
			return clientenv.Write(env.Stdout, format, variables)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Proxy, "proxy", "http://pando.pando.svc:1055", "the fleet's `URL`, as the application's pods reach it")
	f.StringVar(&o.Domain, "cluster-domain", "cluster.local", "the cluster's DNS `domain`")
	f.StringSliceVar(&o.CIDRs, "cidr", nil, "`prefixes` of the cluster's services and pods; may be repeated")
	f.StringSliceVar(&o.NoProxy, "no-proxy", nil, "more `names` (.suffix for all names below it), addresses and prefixes to reach without the proxy")
	f.BoolVar(&o.AllProxy, "all-proxy", false, "print ALL_PROXY, too, with SOCKS5 for programs that know only that; others, such as httpx, fail because of it")
	f.BoolVar(&o.IPv6, "ipv6", false, "keep IPv6 addresses and prefixes in NO_PROXY, although some programs, such as httpx, fail because of them")
	f.BoolVar(&fromCluster, "from-cluster", false, "read the prefixes of services and pods from the cluster, with kubectl")
	f.StringVar(&kubectl, "kubectl", "kubectl", "the kubectl `command`")
	addChoice(cmd, &format, "format", "", "form of the output (kubernetes: the env of a container)", "shell", "dotenv", "kubernetes")
	return cmd
}
