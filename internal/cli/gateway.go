package cli

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/pandoproxy/pando/internal/cgroup"
	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/gateway"
	"github.com/pandoproxy/pando/internal/logging"
	"github.com/pandoproxy/pando/internal/stock"
)

func gatewayCommand(cut context.Context, env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run one replica of the fleet",
		Long: "Run one replica of the fleet. Settings come from the defaults, the file given with\n" +
			"--config (or PANDO_CONFIG), PANDO_* variables and flags. Later ones win.",
		Args: noArgs,
	}
	settings := addConfigFlags(cmd, env)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runGateway(cmd.Context(), cut, env, replica{load: settings.load, file: settings.file()})
	}
	return cmd
}

// replica is what runGateway runs.
type replica struct {
	// load reads the configuration, at the start and after each change.
	load  func() (config.Config, error)
	file  string       // watched for changes; empty means none
	notes []stock.Note // for the log, at the start
}

// runStock runs a replica as the stock container would: without arguments, and
// with TS_* in the environment. The configuration file and PANDO_* variables
// override them.
func runStock(ctx, cut context.Context, env Env) error {
	file := lookup(env.Environ, "PANDO_CONFIG")
	load := func() (config.Config, []stock.Note, error) {
		cfg, notes, err := stock.Load(file, env.Environ)
		return cfg, notes, configError(err)
	}
	_, notes, err := load()
	if err != nil {
		return err
	}
	return runGateway(ctx, cut, env, replica{
		load: func() (config.Config, error) {
			cfg, _, err := load()
			return cfg, err
		},
		file:  file,
		notes: notes,
	})
}

// runGateway runs a replica until ctx or cut ends.
func runGateway(ctx, cut context.Context, env Env, r replica) error {
	cfg, err := r.load()
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(cfg.Log.SlogLevel())
	log, flush := logging.New(env.Stderr, cfg.Log.Format == "text", level)
	defer flush()
	for _, note := range r.notes {
		if note.Warning {
			log.Warn("stock environment", "note", note.Text)
		} else {
			log.Info("stock environment", "note", note.Text)
		}
	}
	if lacksKey(cfg.Tailnet) {
		log.Warn("no auth key is set",
			"hint", "set tailnet.authKeyFile, tailnet.clientSecretFile or tailnet.kubeSecret; without one, the replica waits for a login at a URL that the log shows")
	}
	boundHeap(env.Environ)
	slog.SetDefault(slog.New(logging.Library(log.Handler())))
	o := gateway.Options{
		Log:     log,
		Level:   level,
		Version: Version,
		Environ: env.Environ,
		Load:    r.load,
		Hangup:  env.Hangup,
	}
	if r.file != "" {
		o.Files = []string{r.file}
	}
	gw, err := gateway.New(ctx, cfg, o)
	if err != nil {
		return err
	}
	return gw.Run(ctx, cut)
}

// lacksKey reports whether nothing can log the device in: no key is set, and no
// state of an earlier login is there.
func lacksKey(t config.Tailnet) bool {
	if t.AuthKey.Reveal() != "" || t.AuthKeyFile != "" || t.ClientSecret.Reveal() != "" || t.ClientSecretFile != "" || t.KubeSecret != "" {
		return false
	}
	if t.StateDir == "" {
		return true
	}
	entries, err := os.ReadDir(t.StateDir)
	return err != nil || len(entries) == 0
}

// boundHeap has Go's collector work harder when the memory of the container gets
// short, instead of when its heap has doubled. GOMEMLIMIT in the environment
// comes first.
func boundHeap(environ []string) {
	if lookup(environ, "GOMEMLIMIT") != "" {
		return
	}
	if m, err := cgroup.Find(os.DirFS("/")); err == nil {
		debug.SetMemoryLimit(m.Limit * 4 / 5)
	}
}
