// Package nstest runs the tests of a package in both modes of a tailnet node:
// userspace, which needs no privilege, and kernel, which needs root.
//
//	func TestMain(m *testing.M) { nstest.Main(m) }
//
//	func TestDial(t *testing.T) {
//		nstest.EachMode(t, func(t *testing.T, mode tailnet.Mode) { … })
//	}
//
// When a test binary is started as root, Main starts the same binary once more
// inside a network namespace, with the same arguments, and all tests run there:
// inside, with what a pod of kernel mode has. That is root with the capability
// NET_ADMIN and no other, an empty PATH and a read-only /proc/sys. A second
// namespace stands for a client, joined to the first by a veth pair:
//
//	here ── 10.12.5.1 ═══ 10.12.5.5 ── client
//
// The process outside waits. Outside and AsNobody have it run a single test
// with other rights. All of them end with the process that was started first.
//
// Without root, all tests run in the process itself, and those of kernel mode
// are skipped loudly.
package nstest

import (
	"flag"
	"os"
	"testing"

	"github.com/pandoproxy/pando/internal/tailnet"
)

// Addresses of the veth pair.
const (
	HereAddr   = "10.12.5.1"
	ClientAddr = "10.12.5.5"
)

// Lie is the address that ServeLies has every name stand for.
const Lie = "6.6.6.6"

// parallel is how many parallel tests run at a time, unless -parallel is given.
// Go's default is the number of processors, but these tests mostly wait. With 8, two
// processors were so busy that answers came after seconds, and it took longer.
const parallel = "4"

// EachMode runs a test in kernel mode and in userspace mode, as subtests of
// that name.
//
// Kernel tests run one after another, because they share a network namespace:
// a TUN device that comes or goes is a change of network to every engine
// there. Userspace tests run in parallel, when all kernel tests have ended.
// So a test that calls EachMode must not call t.Parallel itself.
func EachMode(t *testing.T, run func(t *testing.T, mode tailnet.Mode)) {
	t.Helper()
	kernel(t, run)
	t.Parallel()
	userspace(t, run)
}

// EachModeAlone is EachMode for tests that measure time, memory or goroutines:
// nothing runs beside them in either mode.
func EachModeAlone(t *testing.T, run func(t *testing.T, mode tailnet.Mode)) {
	t.Helper()
	kernel(t, run)
	userspace(t, run)
}

func kernel(t *testing.T, run func(*testing.T, tailnet.Mode)) {
	t.Helper()
	t.Run(string(tailnet.Kernel), func(t *testing.T) {
		NeedKernelMode(t)
		run(t, tailnet.Kernel)
	})
}

func userspace(t *testing.T, run func(*testing.T, tailnet.Mode)) {
	t.Helper()
	t.Run(string(tailnet.Userspace), func(t *testing.T) { run(t, tailnet.Userspace) })
}

// runTests runs the tests in this process and returns its exit code.
func runTests(m *testing.M, after []func()) int {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		flag.Set("test.parallel", parallel)
	}
	code := m.Run()
	for _, f := range after {
		f()
	}
	return code
}

// Main is the TestMain of packages that use this one. The functions in after
// run when the tests have ended, in the process that ran them.
func Main(m *testing.M, after ...func()) { os.Exit(start(m, after)) }
