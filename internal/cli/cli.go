// Package cli is the command line: gateway, status, flows, explain, check, env,
// coredns, demo, version.
// It parses and prints; the work is done elsewhere.
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

	"github.com/pandoproxy/pando/internal/auth"
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
	Hangup         <-chan os.Signal // SIGHUP: the configuration is to be read again
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
	}
	root.SetArgs(env.Args)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.AddCommand(gatewayCommand(cut, env), checkCommand(env), demoCommand(env), statusCommand(env), flowsCommand(env), explainCommand(env), envCommand(env), corednsCommand(env), versionCommand(env))
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
	load, file := configFlags(cmd.Flags(), env)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runGateway(cmd.Context(), cut, env, load, file(), nil)
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
	file := lookup(env.Environ, "PANDO_CONFIG")
	return runGateway(ctx, cut, env, func() (config.Config, error) {
		cfg, err := config.LoadOver(base, file, env.Environ, nil)
		if err != nil {
			err = fmt.Errorf("the configuration is not valid:\n%w", err)
		}
		return cfg, err
	}, file, func(cfg config.Config) []string { return append(notes, config.StockNotes(cfg)...) })
}

// runGateway runs a replica with the configuration that load reads, now and
// when the file changes. notes are for the log; nil for none.
func runGateway(ctx, cut context.Context, env Env, load func() (config.Config, error), file string, notes func(config.Config) []string) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	log, level := logger(cfg.Log, env.Stderr)
	if notes != nil {
		for _, note := range notes(cfg) {
			log.Info("stock environment", "note", note)
		}
	}
	slog.SetDefault(log) // the engine has lines that go to package log
	o := gateway.Options{Log: log, Level: level, Version: Version, Load: load, Hangup: env.Hangup}
	if file != "" {
		o.Files = []string{file}
	}
	gw, err := gateway.New(ctx, cfg, o)
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
	load, _ := configFlags(cmd.Flags(), env)
	cmd.RunE = func(*cobra.Command, []string) error {
		cfg, err := load()
		if file := cfg.Auth.UsersFile; file != "" { // config can't: it knows no other room
			if _, uerr := auth.Load(file); uerr != nil {
				err = errors.Join(err, fmt.Errorf("auth.usersFile: %w", uerr))
			}
		}
		if err != nil {
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

// configFlags adds --config and a flag for each key, and returns functions
// that load the configuration and name its file, once they are parsed.
func configFlags(fs *pflag.FlagSet, env Env) (load func() (config.Config, error), file func() string) {
	path := fs.String("config", "", "configuration file, YAML (or PANDO_CONFIG)")
	for _, k := range config.Keys() {
		if k.Scalar {
			fs.String(k.Flag(), k.Default, k.Doc)
			if k.Type == "bool" {
				fs.Lookup(k.Flag()).NoOptDefVal = "true"
			}
		}
	}
	file = func() string {
		if *path != "" {
			return *path
		}
		return lookup(env.Environ, "PANDO_CONFIG")
	}
	return func() (config.Config, error) {
		flags := map[string]string{}
		fs.Visit(func(f *pflag.Flag) { flags[f.Name] = f.Value.String() })
		file := file()
		cfg, err := config.Load(file, env.Environ, flags)
		if err != nil && file != "" {
			err = fmt.Errorf("%s is not valid:\n%w", file, err)
		} else if err != nil {
			err = fmt.Errorf("the configuration is not valid:\n%w", err)
		}
		return cfg, err
	}, file
}

func lookup(environ []string, name string) string {
	for _, kv := range environ {
		if len(kv) > len(name) && kv[:len(name)] == name && kv[len(name)] == '=' {
			return kv[len(name)+1:]
		}
	}
	return ""
}

func logger(c config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic(errors.Join(errors.New("cli: log level was not validated"), err))
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, o)), level
	}
	return slog.New(slog.NewJSONHandler(w, o)), level
}
