// Package cli is the command line: gateway, status, flows, explain, check, env,
// coredns, demo, version and completion. It parses arguments and prints results.
// Other packages do the work.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pandoproxy/pando/internal/cli/stockcli"
	"github.com/pandoproxy/pando/internal/stock"
)

// Version is the release. The linker sets it.
var Version = "dev"

// Env is what the command line takes from its process.
type Env struct {
	Name           string   // the program's; tailscale means the stock container's command
	Args           []string // without the program's name
	Environ        []string // as os.Environ returns it
	Stdout, Stderr io.Writer
	Hangup         <-chan os.Signal // SIGHUP, which asks for a reload of the configuration; nil means never
}

// Run runs one command. ctx ends when the process should stop, cut ends when it
// should stop at once. The caller prints the error; see ExitCode.
func Run(ctx, cut context.Context, env Env) error {
	if env.Name == stockcli.Name {
		return stockcli.Run(ctx, env.Args, env.Environ, env.Stdout)
	}
	root := newRoot(cut, env)
	var helpErr error
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) { // cobra does not validate what is beside --help
		helpErr = cmd.ValidateArgs(cmd.Flags().Args())
		if helpErr == nil {
			help(cmd, args)
		}
	})
	return cmp.Or(root.ExecuteContext(ctx), helpErr)
}

// newRoot returns the command pando with all its subcommands.
func newRoot(cut context.Context, env Env) *cobra.Command {
	var showVersion bool // not cobra's own flag, whose format cannot change without a template: 7 MiB
	root := &cobra.Command{
		Use:   "pando",
		Short: "Reach private resources on a tailnet, by name, from every pod of a cluster",
		Long: "Pando is a proxy fleet for Kubernetes: HTTP CONNECT, plain HTTP and SOCKS5 on one\n" +
			"port, with an embedded Tailscale engine and name resolution through the tunnel.\n\n" +
			"To try it without an account, run: pando demo",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if showVersion {
				_, err := io.WriteString(env.Stdout, versionText())
				return err
			}
			if stock.Detect(env.Environ) || lookup(env.Environ, "KUBERNETES_SERVICE_HOST") != "" {
				return runStock(cmd.Context(), cut, env)
			}
			return cmd.Help()
		},
	}
	root.SetArgs(env.Args)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.Flags().BoolVar(&showVersion, "version", false, "print the version, as pando version does")
	root.InitDefaultHelpFlag() // or cobra takes the word after --help for its value
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand())
	root.AddCommand(
		gatewayCommand(cut, env),
		checkCommand(env),
		demoCommand(env),
		statusCommand(env),
		flowsCommand(env),
		explainCommand(env),
		envCommand(env),
		corednsCommand(env),
		versionCommand(env),
	)
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Args = noSuchCommand
		completion.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		for _, shell := range completion.Commands() {
			shell.Args = noArgs
		}
	}
	return root
}

// exit is an error that was printed already and has an exit status of its own.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode returns the process's exit status for an error of Run. printed
// reports whether the command has printed the error already.
func ExitCode(err error) (code int, printed bool) {
	if e, ok := errors.AsType[exit](err); ok {
		return int(e), true
	}
	return 1, false
}

// lookup returns the value of a variable in environ; empty means that it is
// empty or not set.
func lookup(environ []string, name string) string {
	for _, kv := range environ {
		if key, value, _ := strings.Cut(kv, "="); key == name && value != "" {
			return value
		}
	}
	return ""
}
