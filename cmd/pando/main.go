// Command pando reaches private resources on a tailnet, by name, from every
// pod of a cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/pandoproxy/pando/internal/cli"
)

func main() {
	// The first signal asks the process to stop, the second to stop at once.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, stop := context.WithCancel(context.Background())
	cut, stopAtOnce := context.WithCancel(context.Background())
	go func() {
		<-signals
		stop()
		<-signals
		stopAtOnce()
	}()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	err := cli.Run(ctx, cut, cli.Env{
		Name:    filepath.Base(os.Args[0]),
		Args:    os.Args[1:],
		Environ: os.Environ(),
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Hangup:  hangup,
	})
	if err == nil {
		return
	}
	code, printed := cli.ExitCode(err)
	if !printed {
		fmt.Fprintln(os.Stderr, "pando:", err)
	}
	os.Exit(code)
}
