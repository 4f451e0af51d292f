package demo_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/pandoproxy/pando/internal/testkit"
)

// TestStaysOnLoopback runs `pando demo --once` and watches all its sockets: none
// may be connected to another machine. As root it runs the demo in a network
// namespace whose default route leads to a device that counts packets, so that
// even the shortest attempt to reach another machine is seen.
func TestStaysOnLoopback(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "pando")
	build := exec.Command("go", "build", "-trimpath", "-o", bin, "github.com/pandoproxy/pando/cmd/pando")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does, whose cache it shares
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, "demo", "--once", "--listen", freePort(t))
	cmd.Stdout = &out
	cmd.Stderr = &out
	var sent func() uint64
	if os.Geteuid() == 0 {
		sent = enterCountingNamespace(t)
	} else {
		t.Log("not root: sockets are watched, but packets are not counted")
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	watched := make(chan map[string]bool)
	go func() { watched <- watch(cmd.Process.Pid, stop) }()
	err := cmd.Wait()
	close(stop)
	remotes := <-watched
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out.String())
	}
	if len(remotes) == 0 {
		t.Fatal("no socket was seen, want those of the demo: the test watched nothing")
	}
	for r := range remotes {
		if ap := netip.MustParseAddrPort(r); !ap.Addr().Unmap().IsLoopback() {
			t.Errorf("a socket was connected to %s, want only loopback", r)
		}
	}
	t.Logf("%d different remote addresses, all of them loopback", len(remotes))
	if sent != nil {
		if n := sent(); n != 0 {
			t.Errorf("%d packets took the default route, want 0", n)
		}
	}
}

// watch collects the remote addresses of all connected sockets of a process
// until stop is closed.
func watch(pid int, stop <-chan struct{}) map[string]bool {
	seen := map[string]bool{}
	for {
		select {
		case <-stop:
			return seen
		case <-time.After(2 * time.Millisecond):
		}
		mine := socketInodes(pid)
		for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
			if err != nil {
				continue
			}
			for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
				f := strings.Fields(sc.Text())
				if len(f) < 10 || !mine[f[9]] {
					continue
				}
				if ap := procAddr(f[2]); ap.IsValid() && ap.Port() != 0 {
					seen[ap.String()] = true
				}
			}
		}
	}
}

// socketInodes returns the inodes of the sockets that a process has open.
func socketInodes(pid int) map[string]bool {
	m := map[string]bool{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, l := range links {
		if s, err := os.Readlink(l); err == nil && strings.HasPrefix(s, "socket:[") {
			m[strings.Trim(s[7:], "[]")] = true
		}
	}
	return m
}

// procAddr reads an address of /proc/net, in which each 4 bytes are in host
// order.
func procAddr(s string) netip.AddrPort {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}
	}
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, _ := netip.AddrFromSlice(b)
	var p uint16
	fmt.Sscanf(port, "%X", &p)
	return netip.AddrPortFrom(a, p)
}

// enterCountingNamespace moves this goroutine's thread into a new network
// namespace with loopback and a default route to a device that only counts.
// sent returns how many packets the device has counted. The test's cleanup moves
// the thread back.
func enterCountingNamespace(t *testing.T) (sent func() uint64) {
	t.Helper()
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		netns.Set(old)
		old.Close()
		runtime.UnlockOSThread()
	})
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	must(err)
	must(netlink.LinkSetUp(lo))
	out := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out0"}, PeerName: "out1"}
	must(netlink.LinkAdd(out))
	for _, name := range []string{"out0", "out1"} {
		// The kernel's own IPv6 packets (MLD, router solicitation) would count.
		must(os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0))
		l, err := netlink.LinkByName(name)
		must(err)
		must(netlink.LinkSetARPOff(l)) // otherwise the kernel would send three ARP requests
		must(netlink.LinkSetUp(l))
	}
	l, err := netlink.LinkByName("out0")
	must(err)
	addr, err := netlink.ParseAddr("192.0.2.2/24")
	must(err)
	must(netlink.AddrAdd(l, addr))
	everything := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	must(netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: everything, Scope: netlink.SCOPE_LINK}))
	ns, err := netns.Get()
	must(err)
	h, err := netlink.NewHandleAt(ns)
	must(err)
	count := func() uint64 {
		l, err := h.LinkByName("out0")
		must(err)
		return l.Attrs().Statistics.TxPackets
	}
	// Check that a packet to another machine is counted.
	before := count()
	if c, err := net.Dial("udp", "198.51.100.1:9"); err != nil {
		t.Fatal(err)
	} else {
		c.Write([]byte("x"))
		c.Close()
	}
	testkit.Eventually(t, "the packet to be counted", func() bool { return count() != before })
	before = count()
	return func() uint64 { return count() - before }
}
