package cli

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pandoproxy/pando/internal/demo"
)

func demoCommand(env Env) *cobra.Command {
	var once, verbose bool
	listen := "127.0.0.1:1055"
	checkListen := func(addr string) (string, error) { return addr, demo.CheckListen(addr) }
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a fleet of three that reaches a private API by name, all in this process",
		Long: "Show a fleet of three that reaches a private API by name. Everything runs in this\n" +
			"process and on loopback: it needs no account and no privilege. On a terminal the fleet\n" +
			"keeps running after the tour. Otherwise the command ends, with exit status 0 if every\n" +
			"step passed.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stdout, isFile := env.Stdout.(*os.File)
			o := demo.Options{
				Listen: listen,
				Out:    env.Stdout,
				Stay:   !once && isFile && term.IsTerminal(int(stdout.Fd())),
			}
			if verbose {
				o.Log = slog.New(slog.NewTextHandler(env.Stderr, nil))
			}
			return demo.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the tour, even on a terminal")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "log every flow of the replicas to standard error")
	cmd.Flags().Var(&flagValue[string]{&listen, "string", checkListen}, "listen", "loopback `address` that the fleet shares, host:port")
	return cmd
}
