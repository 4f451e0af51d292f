//go:build abuse && linux

package abuse

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/pandoproxy/pando/internal/cli"
	"github.com/pandoproxy/pando/internal/nstest"
)

// Variables of the process that is the replica.
const (
	envConfig = "PANDO_ABUSE_CONFIG" // its configuration file
	envCgroup = "PANDO_ABUSE_CGROUP" // the directory of its cgroup
)

func TestMain(m *testing.M) {
	if file := os.Getenv(envConfig); file != "" {
		if err := gateway(file); err != nil {
			fmt.Fprintln(os.Stderr, "gateway:", err)
			os.Exit(1)
		}
		return
	}
	nstest.Main(m)
}

// gateway is the process of the replica. It runs what cmd/pando runs.
func gateway(file string) error {
	if err := join(os.Getenv(envCgroup)); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, context.Background(), cli.Env{
		Args:    []string{"gateway", "--config", file},
		Environ: []string{},
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
	})
}
