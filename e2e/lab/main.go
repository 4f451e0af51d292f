// Command lab is what stands around a fleet in the end-to-end tests: the
// private site behind the subnet router, and a client pod that measures.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("wants a command: site, get, half-close, load, sysctl or sleep")
	}
	switch args[0] {
	case "site":
		return site(ctx)
	case "get":
		return get(ctx, args[1:])
	case "half-close":
		return halfClose(ctx, args[1:])
	case "load":
		return load(ctx, args[1:])
	case "sysctl": // what the privileged init container of the stock recipe does
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	case "sleep":
		<-ctx.Done()
		return nil
	}
	return fmt.Errorf("no command %q", args[0])
}
