package nstest_test

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// capabilities returns the effective capabilities of this process, as a mask in
// hexadecimal.
func capabilities(t *testing.T) string {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strings.TrimSpace(mask)
		}
	}
	t.Fatal("/proc/self/status has no line CapEff")
	return ""
}

// Inside, the tests have what a pod of kernel mode has.
func TestKernelModeHasNetAdminAlone(t *testing.T) {
	nstest.NeedKernelMode(t)
	if got, want := capabilities(t), "0000000000001000"; got != want {
		t.Errorf("effective capabilities are %s, want %s: CAP_NET_ADMIN alone", got, want)
	}
	if path := os.Getenv("PATH"); path != "" {
		t.Errorf("PATH = %q, want it empty", path)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err == nil {
		t.Error("/proc/sys is writable")
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/rp_filter"); err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Errorf("rp_filter is %q, %v; want 1 (strict)", b, err)
	}
}

func TestOutside(t *testing.T) {
	if !nstest.Outside(t) {
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: the process outside is root only when the tests are run as root")
	}
	if err := unix.Mknod(t.TempDir()+"/null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Errorf("mknod: %v, want the right to make a device", err)
	}
}

func TestAsNobody(t *testing.T) {
	if !nstest.AsNobody(t) {
		return
	}
	if os.Geteuid() == 0 {
		t.Error("the user is root")
	}
	if got, want := capabilities(t), "0000000000000000"; got != want {
		t.Errorf("effective capabilities are %s, want %s", got, want)
	}
}

// TestEachMode checks that the modes run in their order, and where.
func TestEachMode(t *testing.T) {
	var ran []tailnet.Mode
	nstest.EachMode(t, func(t *testing.T, mode tailnet.Mode) {
		ran = append(ran, mode)
		if !strings.HasSuffix(t.Name(), "/"+string(mode)) {
			t.Errorf("mode %s runs as %s", mode, t.Name())
		}
	})
	if n := len(ran); n == 0 || ran[n-1] != tailnet.Userspace {
		t.Errorf("ran in %v, want userspace mode last", ran)
	}
}

func TestDialFromClient(t *testing.T) {
	nstest.NeedKernelMode(t)
	ln, err := net.Listen("tcp", nstest.HereAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with its listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "from "+c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}()
	c, err := nstest.DialFromClient(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if b, err := io.ReadAll(c); err != nil || string(b) != "from "+nstest.ClientAddr {
		t.Errorf("the client read %q, %v; want its own address %s", b, err, nstest.ClientAddr)
	}
}
