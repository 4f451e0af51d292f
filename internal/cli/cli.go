// Package cli is the command line: gateway, demo, check, version. It parses
// and prints; the work is done elsewhere.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/demo"
	"github.com/pandoproxy/pando/internal/gateway"
)

// Version is the release, set at link time.
var Version = "dev"

// Env is what the command line takes from its process.
type Env struct {
	Args           []string // without the program's name
	Environ        []string
	Stdout, Stderr io.Writer
}

// Run runs one command. ctx ends when the process should stop, cut when it
// should stop at once. The error was not printed yet.
func Run(ctx, cut context.Context, env Env) error {
	root := &cobra.Command{
		Use:   "pando",
		Short: "Reach private resources on a tailnet, by name, from every pod of a cluster",
		Long: "Pando is a proxy fleet for Kubernetes: HTTP CONNECT, plain HTTP and SOCKS5 on one\n" +
			"port, with an embedded Tailscale engine and name resolution through the tunnel.\n\n" +
			"To see it work without an account: pando demo",
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config.IsStock(env.Environ) || lookup(env.Environ, "KUBERNETES_SERVICE_HOST") != "" {
				return runStock(cmd.Context(), cut, env)
			}
			return cmd.Help()
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetArgs(env.Args)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.AddCommand(gatewayCommand(cut, env), checkCommand(env), demoCommand(env), versionCommand(env))
	return root.ExecuteContext(ctx)
}

func gatewayCommand(cut context.Context, env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run one replica of the fleet",
		Long: "Run one replica of the fleet. Settings come from the defaults, the file given with\n" +
			"--config (or PANDO_CONFIG), PANDO_* variables and flags; the later ones win.",
		Args: cobra.NoArgs,
	}
	load := configFlags(cmd.Flags(), env)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return runGateway(cmd.Context(), cut, cfg, logger(cfg.Log, env.Stderr))
	}
	return cmd
}

// runStock runs a replica as the stock container would: with no arguments and
// TS_* in the environment. The configuration file and PANDO_* have the last word.
func runStock(ctx, cut context.Context, env Env) error {
	base, notes, err := config.FromStock(env.Environ)
	if err != nil {
		return fmt.Errorf("the environment of the stock container can't be taken over:\n%w", err)
	}
	cfg, err := config.LoadOver(base, lookup(env.Environ, "PANDO_CONFIG"), env.Environ, nil)
	if err != nil {
		return fmt.Errorf("the configuration is not valid:\n%w", err)
	}
	log := logger(cfg.Log, env.Stderr)
	for _, n := range append(notes, config.StockNotes(cfg)...) {
		log.Info("stock environment", "note", n)
	}
	return runGateway(ctx, cut, cfg, log)
}

func runGateway(ctx, cut context.Context, cfg config.Config, log *slog.Logger) error {
	slog.SetDefault(log) // the engine has lines that go to package log
	gw, err := gateway.New(ctx, cfg, gateway.Options{Log: log, Version: Version})
	if err != nil {
		return err
	}
	return gw.Run(ctx, cut)
}

func checkCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration and report every mistake in it",
		Args:  cobra.NoArgs,
	}
	load := configFlags(cmd.Flags(), env)
	cmd.RunE = func(*cobra.Command, []string) error {
		if _, err := load(); err != nil {
			return err
		}
		fmt.Fprintln(env.Stdout, "the configuration is valid")
		return nil
	}
	return cmd
}

func demoCommand(env Env) *cobra.Command {
	var once, verbose bool
	var listen string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a private API reached by name through a fleet of three, all in this process",
		Long: "Show a private API reached by name through a fleet of three. Everything runs in this\n" +
			"process and on loopback: no account, no privilege. On a terminal the fleet stays up\n" +
			"after the tour; otherwise the command ends, with exit status 0 if every step held.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stdout, ok := env.Stdout.(*os.File)
			o := demo.Options{Listen: listen, Out: env.Stdout, Stay: !once && ok && term.IsTerminal(int(stdout.Fd()))}
			if verbose {
				o.Log = slog.New(slog.NewTextHandler(env.Stderr, nil))
			}
			return demo.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the tour, on a terminal too")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "log every flow of the replicas to standard error")
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:1055", "loopback address that the fleet shares")
	return cmd
}

func versionCommand(env Env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of pando and of its Tailscale engine",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			engine := "unknown"
			if bi, ok := debug.ReadBuildInfo(); ok {
				for _, m := range bi.Deps {
					if m.Path == "tailscale.com" {
						engine = m.Version
					}
				}
			}
			fmt.Fprintf(env.Stdout, "pando %s\ntailscale.com %s\n", Version, engine)
			return nil
		},
	}
}

// configFlags adds --config and a flag for each key, and returns a function
// that loads the configuration once they are parsed.
func configFlags(fs *pflag.FlagSet, env Env) func() (config.Config, error) {
	path := fs.String("config", "", "configuration file, YAML (or PANDO_CONFIG)")
	for _, k := range config.Keys() {
		if k.Scalar {
			fs.String(k.Flag(), k.Default, k.Doc)
			if k.Type == "bool" {
				fs.Lookup(k.Flag()).NoOptDefVal = "true"
			}
		}
	}
	return func() (config.Config, error) {
		flags := map[string]string{}
		fs.Visit(func(f *pflag.Flag) { flags[f.Name] = f.Value.String() })
		file := *path
		if file == "" {
			file = lookup(env.Environ, "PANDO_CONFIG")
		}
		cfg, err := config.Load(file, env.Environ, flags)
		if err != nil && file != "" {
			err = fmt.Errorf("%s is not valid:\n%w", file, err)
		} else if err != nil {
			err = fmt.Errorf("the configuration is not valid:\n%w", err)
		}
		return cfg, err
	}
}

func lookup(environ []string, name string) string {
	for _, kv := range environ {
		if len(kv) > len(name) && kv[:len(name)] == name && kv[len(name)] == '=' {
			return kv[len(name)+1:]
		}
	}
	return ""
}

func logger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic(errors.Join(errors.New("cli: log level was not validated"), err))
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}
