//go:build clients && linux

package clients

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	envInside = "PANDO_CLIENTS_INSIDE" // set in the process that is inside the namespaces
	envGo     = "PANDO_CLIENTS_GO"     // set in the process that is the client in Go
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envGo) != "":
		os.Exit(goClient(os.Args[1:]))
	case os.Getenv(envInside) != "":
		if err := enter(); err != nil {
			fmt.Fprintln(os.Stderr, "clients:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case os.Geteuid() != 0:
		fmt.Fprintln(os.Stderr, "clients: network namespaces need root; run as root")
		os.Exit(1)
	}
	os.Exit(runInside())
}

// runInside runs this process's tests in a network namespace and a mount namespace of
// their own.
func runInside() int {
	runtime.LockOSThread() // the kernel sends Pdeathsig when the thread ends
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Stdout = os.Stdout
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		return 1
	}
	return 0
}

// enter brings loopback up, and has every program ask the resolver of the tests.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pando-clients-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // the mount keeps the file
	file := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+resolverAddr+"\noptions timeout:2 attempts:1\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("resolv.conf: %w", err)
	}
	return nil
}
