// Package nstest runs a test in a network namespace of its own, as a pod with
// kernel mode would run: root with the capability NET_ADMIN and no other, an
// empty PATH and a read-only /proc/sys. Beside it stands a second namespace,
// a client, joined by a veth pair:
//
//	here ── 10.12.5.1 ═══ 10.12.5.5 ── client
//
// Both end with the process that made them. It needs root, and skips loudly
// without.
package nstest

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses of the veth pair.
const (
	HereAddr   = "10.12.5.1"
	ClientAddr = "10.12.5.5"
)

// Lie is the address that ServeLies has every name stand for.
const Lie = "6.6.6.6"

const (
	envStage  = "PANDO_NSTEST_STAGE" // "setup", "client" or "inside"
	envClient = "PANDO_NSTEST_CLIENT"
)

// Main is the TestMain of packages that use Inside.
func Main(m *testing.M) {
	var err error
	switch os.Getenv(envStage) {
	case "setup":
		err = setup()
	case "client":
		err = client()
	default:
		os.Exit(m.Run())
	}
	fmt.Fprintln(os.Stderr, "nstest:", err)
	os.Exit(1)
}

// Inside reports whether the test runs inside the namespace. Outside it runs
// the test again inside, reports how that went and returns false: return then.
func Inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(envStage) == "inside" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: kernel mode needs root to make network namespaces; run as root")
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=5m"}
	if d, ok := t.Deadline(); ok {
		args[2] = "-test.timeout=" + max(time.Until(d)-5*time.Second, time.Second).String()
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), envStage+"=setup", envClient+"="+filepath.Join(t.TempDir(), "client.sock"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	cmd.Dir, _ = os.Getwd()
	out, err := cmd.CombinedOutput()
	t.Logf("inside the namespace:\n%s", out)
	if err != nil {
		t.Fatalf("inside the namespace: %v", err)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatal("the test did not run inside the namespace")
	}
	return false
}

// DialFromClient opens a TCP connection to addr from the client's namespace.
func DialFromClient(addr string) (*net.UnixConn, error) {
	c, err := net.Dial("unix", os.Getenv(envClient))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintln(c, addr)
	var status [1]byte
	if _, err := io.ReadFull(c, status[:]); err != nil {
		return nil, fmt.Errorf("dial %s from the client: %w", addr, err)
	}
	c.SetDeadline(time.Time{})
	return c.(*net.UnixConn), nil
}

// ServeLies makes the client a host of the pod network with the address of
// addr, whose DNS server there answers every name with Lie. Packets for that
// address go to it unless a route says otherwise, and its answers find the
// way back to whatever address of ours has asked, as behind a node that
// masquerades. More such servers may be added.
func ServeLies(addr netip.AddrPort) error {
	if out, err := tell("lie " + addr.String()); err != nil || out != "" {
		return fmt.Errorf("lies at %s: %w", addr, cmp.Or(err, errors.New(out)))
	}
	return addRoute("veth-here", netip.PrefixFrom(addr.Addr(), 32).String(), ClientAddr)
}

// Lies returns what the servers of ServeLies were asked, and by whom.
func Lies() ([]string, error) {
	out, err := tell("lies")
	return strings.FieldsFunc(out, func(c rune) bool { return c == '\n' }), err
}

// tell gives the client's process an order and returns what it says to it.
func tell(order string) (string, error) {
	c, err := net.Dial("unix", os.Getenv(envClient))
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintln(c, order)
	out, err := io.ReadAll(c)
	return string(out), err
}

// setup prepares the namespace that this process was born in, and becomes the
// test, with one capability left.
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
	// The client lives as long as the write end of its pipe.
	if _, err := unix.FcntlInt(alive.Fd(), unix.F_SETFD, 0); err != nil {
		return err
	}
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PATH=") && !strings.HasPrefix(kv, envStage+"=") {
			env = append(env, kv)
		}
	}
	return unix.Exec("/proc/self/exe", os.Args, append(env, envStage+"=inside", "PATH="))
}

// startClient starts the client's process in a namespace of its own and joins
// the two.
func startClient() (alive *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envStage+"=client")
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth-here"}, PeerName: "veth-client", PeerNamespace: netlink.NsPid(cmd.Process.Pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("veth: %w", err)
	}
	if err := linkUp("veth-here", HereAddr+"/24"); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return nil, fmt.Errorf("client said %q: %v", line, err)
	}
	return w, nil
}

// client is the process in the second namespace: it connects for whoever asks
// at its socket, and lies. It ends with its standard input.
func client() error {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	var err error
	for range 500 {
		if err = linkUp("veth-client", ClientAddr+"/24"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	if err := linkUp("lo", ""); err != nil {
		return err
	}
	ln, err := net.Listen("unix", os.Getenv(envClient))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var l liar
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go serveClient(c.(*net.UnixConn), &l)
	}
}

func serveClient(c *net.UnixConn, l *liar) {
	defer c.Close()
	br := bufio.NewReaderSize(c, 256)
	order, err := br.ReadString('\n')
	if err != nil {
		return
	}
	order = strings.TrimSpace(order)
	if addr, ok := strings.CutPrefix(order, "lie "); ok {
		if err := l.serve(addr); err != nil {
			fmt.Fprintln(c, err)
		}
		return
	}
	if order == "lies" {
		io.WriteString(c, l.seen())
		return
	}
	target, err := net.DialTimeout("tcp", order, 10*time.Second)
	if err != nil {
		fmt.Fprintln(os.Stderr, "nstest client:", err)
		return
	}
	defer target.Close()
	c.Write([]byte{1})
	go func() {
		io.Copy(target, br)
		target.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, target)
	c.CloseWrite()
}

// liar is a DNS server that answers every name with Lie.
type liar struct {
	mu    sync.Mutex
	asked []string
}

// serve starts the server, which ends with the process, and gives it its
// address.
func (l *liar) serve(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if err := linkUp("lo", host+"/32"); err != nil {
		return err
	}
	// The way to the tailnet's addresses, which such a network does not know.
	if err := addRoute("veth-client", "100.64.0.0/10", HereAddr); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	go (&dns.Server{Listener: ln, Handler: l}).ActivateAndServe()
	go (&dns.Server{PacketConn: pc, Handler: l}).ActivateAndServe()
	return nil
}

// ServeDNS is a dns.Handler.
func (l *liar) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	l.mu.Lock()
	l.asked = append(l.asked, fmt.Sprintf("%s from %s over %s", strings.ReplaceAll(q.Question[0].String(), "\t", " "), w.RemoteAddr(), w.RemoteAddr().Network()))
	l.mu.Unlock()
	m := new(dns.Msg).SetReply(q)
	if q.Question[0].Qtype == dns.TypeA {
		h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
		m.Answer = []dns.RR{&dns.A{Hdr: h, A: net.ParseIP(Lie)}}
	}
	w.WriteMsg(m)
}

// seen returns what the server was asked, a line each.
func (l *liar) seen() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.asked, "\n")
}

// addRoute leads prefix through the link called name, to the router via.
func addRoute(name, prefix, via string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	dst, err := netlink.ParseIPNet(prefix)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: net.ParseIP(via)}); err != nil {
		return fmt.Errorf("route to %s: %w", prefix, err)
	}
	return nil
}

func linkUp(name, addr string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if addr != "" {
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if err := netlink.AddrReplace(link, a); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return netlink.LinkSetUp(link)
}
