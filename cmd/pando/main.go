// Command pando reaches private resources on a tailnet, by name, from every
// pod of a cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/pandoproxy/pando/internal/cli"
)

func main() {
	// The first signal says stop, the second says now.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, stop := context.WithCancel(context.Background())
	cut, stopNow := context.WithCancel(context.Background())
	go func() {
		<-signals
		stop()
		<-signals
		stopNow()
	}()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	err := cli.Run(ctx, cut, cli.Env{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr, Hangup: hangup})
	if err != nil {
		code, told := cli.ExitCode(err)
		if !told {
			fmt.Fprintln(os.Stderr, "pando:", err)
		}
		os.Exit(code)
	}
}
