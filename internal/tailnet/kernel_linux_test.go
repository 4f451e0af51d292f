package tailnet_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pandoproxy/pando/internal/tailnet"
)

// onlyNetAdmin holds the namespace to what a pod of kernel mode has.
func onlyNetAdmin(t *testing.T) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok && strings.TrimSpace(v) != "0000000000001000" {
			t.Errorf("effective capabilities are %s, want CAP_NET_ADMIN alone (bit 12)", strings.TrimSpace(v))
		}
	}
	if p := os.Getenv("PATH"); p != "" {
		t.Errorf("PATH is %q, want it empty", p)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err == nil {
		t.Error("/proc/sys is writable")
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/rp_filter"); err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Errorf("rp_filter is %q, %v; want strict", b, err)
	}
}

// noTraceInKernel looks for what a closed node could have left.
func noTraceInKernel(t *testing.T) {
	t.Helper()
	if _, err := net.InterfaceByName("tailscale0"); err == nil {
		t.Error("the TUN device is still there")
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			if r.Table == 52 {
				t.Errorf("a rule is still there: %v", r)
			}
		}
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: 52}, netlink.RT_FILTER_TABLE)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			t.Errorf("a route is still there: %v", r)
		}
	}
}

// saysWhatToMount: without the right to make it, a missing TUN device is an
// error that helps.
func saysWhatToMount(t *testing.T) {
	t.Helper()
	err := tailnet.EnsureTUN(filepath.Join(t.TempDir(), "net", "tun"))
	for _, want := range []string{"is missing", "mount it into the pod", "tailnet.mode: userspace"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("EnsureTUN says %v, want %q in it", err, want)
		}
	}
}

// With the right to make it, it is made.
func TestMakesTUN(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: making a device node needs root")
	}
	path := filepath.Join(t.TempDir(), "net", "tun")
	for range 2 { // the second time it is there
		if err := tailnet.EnsureTUN(path); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != 10 || unix.Minor(st.Rdev) != 200 {
		t.Errorf("made mode %o, device %d:%d; want a character device 10:200", st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
}
