package cli

import (
	"encoding/json"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is what pando version -o json prints.
type version struct {
	Pando     string `json:"pando"`
	Tailscale string `json:"tailscale"` // of the embedded engine
}

func versionCommand(env Env) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of pando and of its Tailscale engine",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if !out.json() {
				fmt.Fprint(env.Stdout, versionText())
				return nil
			}
			enc := json.NewEncoder(env.Stdout)
			enc.SetIndent("", "  ")
			return enc.Encode(currentVersion())
		},
	}
	out.addFlags(cmd)
	return cmd
}

func currentVersion() version {
	v := version{Pando: Version, Tailscale: "unknown"}
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, m := range bi.Deps {
			if m.Path == "tailscale.com" {
				v.Tailscale = m.Version
			}
		}
	}
	return v
}

// versionText is what pando version prints.
func versionText() string {
	v := currentVersion()
	return fmt.Sprintf("pando %s\ntailscale.com %s\n", v.Pando, v.Tailscale)
}
