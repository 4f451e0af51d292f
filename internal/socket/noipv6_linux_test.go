package socket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withoutIPv6 are the ways in which a node can be without IPv6. Each makes this process
// such a node; flags are those that it is started with.
var withoutIPv6 = map[string]struct {
	flags uintptr
	enter func() error
}{
	"ipv6.disable=1": {0, refuseIPv6}, // of the kernel's command line
	"disable_ipv6=1": {unix.CLONE_NEWNET, disableIPv6},
}

// TestListensWithoutIPv6 checks that each spelling of all addresses, and localhost,
// listens on IPv4 where there is no IPv6.
func TestListensWithoutIPv6(t *testing.T) {
	const variable = "PANDO_TEST_WITHOUT_IPV6"
	if way := os.Getenv(variable); way != "" {
		if err := withoutIPv6[way].enter(); err != nil {
			t.Skipf("cannot switch IPv6 off: %v", err)
		}
		listenOnIPv4(t)
		return
	}
	for way, w := range withoutIPv6 {
		t.Run(way, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestListensWithoutIPv6$", "-test.v")
			cmd.Env = append(os.Environ(), variable+"="+way)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: w.flags}
			out, err := cmd.CombinedOutput()
			switch {
			case errors.Is(err, syscall.EPERM):
				t.Skip("not root")
			case strings.Contains(string(out), "--- SKIP"):
				t.Skipf("%s", out)
			case err != nil || !strings.Contains(string(out), "--- PASS: TestListensWithoutIPv6"):
				t.Errorf("in a process without IPv6: %v\n%s", err, out)
			}
		})
	}
}

// listenOnIPv4 checks that this process, which has no IPv6, can be reached over IPv4.
func listenOnIPv4(t *testing.T) {
	if ln, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		ln.Close()
		t.Fatal("this process can listen on IPv6: the test checks nothing")
	}
	for _, host := range []string{"", "localhost", "0.0.0.0", "[::]", "[::0]", "[0:0:0:0:0:0:0:0]", "127.0.0.1", "[::ffff:127.0.0.1]"} {
		lc := ListenConfig(false, 0)
		ln, err := lc.Listen(t.Context(), "tcp", host+":0")
		if err != nil {
			t.Errorf("listening on %q: %v", host, err)
			continue
		}
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", ln.Addr().(*net.TCPAddr).Port))
		if err != nil {
			t.Errorf("listening on %q, a connection over IPv4: %v", host, err)
		} else {
			c.Close()
		}
		ln.Close()
		pc, err := lc.ListenPacket(t.Context(), "udp", host+":0")
		if err != nil {
			t.Errorf("listening for UDP on %q: %v", host, err)
			continue
		}
		pc.Close()
	}
}

// disableIPv6 switches IPv6 off in the network namespace of this process, which is a
// new one, and loopback on.
func disableIPv6() error {
	for _, which := range []string{"all", "default", "lo"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0); err != nil {
			return err
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// refuseIPv6 lets this process open no more sockets of IPv6: the kernel answers as one
// without IPv6 does.
func refuseIPv6() error {
	const errno = unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)
	filter := []unix.SockFilter{ // of struct seccomp_data: nr is at 0, and the first argument at 16
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_INET6, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		return e
	}
	return nil
}
