package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/pandoproxy/pando/internal/cli/adminport"
)

// adminPort is the admin port of a replica, as the flags of a command give it.
type adminPort struct{ adminport.Port }

// addFlags adds --admin and --timeout to cmd.
func (a *adminPort) addFlags(cmd *cobra.Command, timeout time.Duration) {
	a.Address = "127.0.0.1:9002"
	a.Timeout = timeout
	cmd.Flags().Var(&flagValue[string]{&a.Address, "string", parseHostPort}, "admin", "`address` of the replica's admin port, host:port")
	cmd.Flags().Var(&flagValue[time.Duration]{&a.Timeout, "duration", parseTimeout}, "timeout", "how long to wait for the replica's answer")
}
