package cli

import (
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
		Long: "Print HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in upper and lower case, because\n" +
			"some programs read only one of them. NO_PROXY keeps the cluster's own names and addresses\n" +
			"away from the proxy. Programs differ in what they understand there: curl since 7.86, Go\n" +
			"and Python know prefixes, Java does not.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if fromCluster {
				found, err := clientenv.ClusterPrefixes(cmd.Context(), kubectl)
				if err != nil {
					return err
				}
				o.CIDRs = append(o.CIDRs, found...)
			}
			variables, err := o.Variables()
			if err != nil {
				return usageError(cmd, "%w", err)
			}
			return clientenv.Write(env.Stdout, format, variables)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Proxy, "proxy", "http://pando.pando.svc:1055", "the fleet's `URL`, as the application's pods reach it")
	f.StringVar(&o.Domain, "cluster-domain", "cluster.local", "the cluster's DNS `domain`")
	f.StringSliceVar(&o.CIDRs, "cidr", nil, "`prefixes` of the cluster's services and pods; may be repeated")
	f.StringSliceVar(&o.NoProxy, "no-proxy", nil, "more `names` (.suffix for all names below it), addresses and prefixes to reach without the proxy")
	f.BoolVar(&fromCluster, "from-cluster", false, "read the prefixes of services and pods from the cluster, with kubectl")
	f.StringVar(&kubectl, "kubectl", "kubectl", "the kubectl `command`")
	addChoice(cmd, &format, "format", "", "form of the output (kubernetes: the env of a container)", "shell", "dotenv", "kubernetes")
	return cmd
}
