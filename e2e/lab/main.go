// Command lab plays the surroundings of a fleet in the end-to-end tests: the
// private site behind the subnet router, and the client that measures.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
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
		return errors.New("command missing: use one of site, get, lookup, half-close, load, sysctl, supervise, touch, rm or sleep")
	}
	switch args[0] {
	case "site":
		return site(ctx)
	case "get":
		return get(ctx, args[1:])
	case "lookup":
		return lookup(ctx, args[1])
	case "half-close":
		return halfClose(ctx, args[1:])
	case "load":
		return load(ctx, args[1:])
	case "sysctl": // what the privileged init container of the stock recipe does
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	case "supervise":
		return supervise(ctx, args[1:])
	case "touch":
		return os.WriteFile(args[1], nil, 0o644)
	case "rm":
		return os.Remove(args[1])
	case "sleep":
		<-ctx.Done()
		return nil
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// supervise keeps a command running. While the file that args name first exists,
// the command is stopped.
func supervise(ctx context.Context, args []string) error {
	down := args[0]
	command := args[1:]
	for ctx.Err() == nil {
		if exists(down) {
			time.Sleep(100 * time.Millisecond) // a file has no event without a watcher
			continue
		}
		child, stop := context.WithCancel(ctx)
		cmd := exec.CommandContext(child, command[0], command[1:]...)
		cmd.Stdout = os.Stdout
		cmd.Stderr = os.Stderr
		go func() {
			for child.Err() == nil && !exists(down) {
				time.Sleep(100 * time.Millisecond) // as above
			}
			stop()
		}()
		err := cmd.Run()
		fmt.Println("ended:", err)
		stop()
		time.Sleep(200 * time.Millisecond) // a command that fails at once must not take the processor
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
