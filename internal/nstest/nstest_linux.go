package nstest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Variables that the processes of one run pass on.
const (
	envStage   = "PANDO_NSTEST_STAGE"   // one of the stages below
	envClient  = "PANDO_NSTEST_CLIENT"  // socket of the client's process
	envOutside = "PANDO_NSTEST_OUTSIDE" // socket of the process outside
)

// Stages of a process. Empty is that of the process which the user started.
const (
	stageSetup  = "setup"  // in new namespaces, with every right still
	stageInside = "inside" // the same process, once it has NET_ADMIN alone
	stageClient = "client" // in the client's namespace
	stageRoot   = "root"   // one test, for Outside
	stageNobody = "nobody" // one test, for AsNobody
)

func start(m *testing.M, after []func()) int {
	stage := os.Getenv(envStage)
	var err error
	switch {
	case stage == stageSetup:
		err = setup()
	case stage == stageClient:
		err = client()
	case stage == "" && os.Geteuid() == 0:
		var code int
		code, err = runInside()
		if err == nil {
			return code
		}
	default:
		return runTests(m, after)
	}
	fmt.Fprintln(os.Stderr, "nstest:", err)
	return 1
}

// InNamespace reports whether the test runs inside the namespace, where it may
// add addresses and routes.
func InNamespace() bool { return os.Getenv(envStage) == stageInside }

// NeedKernelMode skips the test, loudly, where there is no kernel mode.
func NeedKernelMode(t *testing.T) {
	t.Helper()
	if !InNamespace() {
		t.Skip("SKIPPED, NOT TESTED: kernel mode needs root to make network namespaces; run as root")
	}
}

// runInside runs this process's tests inside new namespaces, and returns the
// exit code.
func runInside() (int, error) {
	// The kernel sends Pdeathsig when the thread that started a process ends.
	runtime.LockOSThread()
	dir, err := os.MkdirTemp("", "pando-nstest-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	outside := filepath.Join(dir, "outside.sock")
	ln, err := net.Listen("unix", outside)
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	go serveOutside(ln) // ends with its listener

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Stdin = os.Stdin
	cmd.Stdout = os.Stdout
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), envStage+"="+stageSetup, envClient+"="+filepath.Join(dir, "client.sock"), envOutside+"="+outside)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil // a signal has the code -1
	}
	if err != nil {
		return 0, fmt.Errorf("cannot start the tests inside a network namespace: %w; run as root with every capability, or as another user to test userspace mode alone", err)
	}
	return 0, nil
}

// setup prepares the namespaces that this process was started in, and becomes
// the tests, with one capability left.
func setup() error {
	runtime.LockOSThread()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := linkUp("lo", ""); err != nil {
		return err
	}
	alive, err := startClient()
	if err != nil {
		return err
	}
	for _, name := range []string{"all", "default"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("1"), 0); err != nil {
			return err
		}
	}
	if err := unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("read-only /proc/sys: %w", err)
	}
	if err := unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("read-only /proc/sys: %w", err)
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if c == unix.CAP_NET_ADMIN {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	// The client ends when the write end of its pipe is closed.
	if _, err := unix.FcntlInt(alive.Fd(), unix.F_SETFD, 0); err != nil {
		return err
	}
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PATH=") && !strings.HasPrefix(kv, envStage+"=") {
			env = append(env, kv)
		}
	}
	return unix.Exec("/proc/self/exe", os.Args, append(env, envStage+"="+stageInside, "PATH="))
}
