//go:build abuse && linux

package abuse

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pandoproxy/pando/internal/cli"
	"github.com/pandoproxy/pando/internal/nstest"
)

// Variables of the processes of the replica and of attackers.
const (
	envConfig = "PANDO_ABUSE_CONFIG" // its configuration file
	envCgroup = "PANDO_ABUSE_CGROUP" // the directory of its cgroup
	envAttack = "PANDO_ABUSE_ATTACK" // the name of the attack
	envSite   = "PANDO_ABUSE_SITE"   // a site, as JSON
)

func TestMain(m *testing.M) {
	if file := os.Getenv(envConfig); file != "" {
		if err := gateway(file); err != nil {
			fmt.Fprintln(os.Stderr, "gateway:", err)
			os.Exit(1)
		}
		return
	}
	if name := os.Getenv(envAttack); name != "" {
		if err := attacker(name); err != nil {
			fmt.Fprintln(os.Stderr, "attacker:", err)
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

// attacker is the process of an attack. It ends when it is killed.
func attacker(name string) error {
	var a site
	if err := json.Unmarshal([]byte(os.Getenv(envSite)), &a); err != nil {
		return err
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads { // later ones inherit it
		id, _ := strconv.Atoi(thread.Name())
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, 19); err != nil {
			return err
		}
	}
	for _, attack := range allAttacks() {
		if attack.name == name {
			attack.run(context.Background(), &a)
		}
	}
	return nil
}
